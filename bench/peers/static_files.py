"""A WSGI application that only serves a folder of files, with the library WhiteNoise. The
environment variable BENCH_ROOT names the folder."""

import os

from whitenoise import WhiteNoise

application = WhiteNoise(lambda environ, start_response: [], root=os.environ["BENCH_ROOT"])
