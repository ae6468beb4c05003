"""`python -m eqr_core.cli`."""

from __future__ import annotations

from eqr_core.cli import main

main()
