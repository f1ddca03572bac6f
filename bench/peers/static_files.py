"""A WSGI application in which WhiteNoise serves a folder, without another application behind it."""

import os

from whitenoise import WhiteNoise

application = WhiteNoise(lambda environ, start_response: [], root=os.environ["BENCH_ROOT"])
