"""WhiteNoise over a folder, without an application behind it."""

import os

from whitenoise import WhiteNoise

application = WhiteNoise(lambda environ, start_response: [], root=os.environ["BENCH_ROOT"])
