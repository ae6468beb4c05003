"""What every test shares: one thread for torch, and hypothesis without time limits."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every command
# that they start and send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("eqr", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("eqr")
