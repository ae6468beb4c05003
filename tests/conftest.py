"""What every test shares: one thread for torch, and hypothesis without time limits."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("eqr", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("eqr")
