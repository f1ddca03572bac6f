"""A WSGI application that serves a folder with WhiteNoise, and contains nothing else."""

import os

from whitenoise import WhiteNoise

application = WhiteNoise(lambda environ, start_response: [], root=os.environ["BENCH_ROOT"])
