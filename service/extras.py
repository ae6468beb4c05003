"""What a command says when the packages of an extra are missing."""

from __future__ import annotations

from eqr_core.errors import EqrError
from eqr_core.extras import how_to_install


class MissingExtra(EqrError):
    """A command that needs packages of an extra that is not installed."""

    exit_code = 2

    def __init__(self, command: str, missing: str | None, extra: str = "service") -> None:
        super().__init__(f"eqr {command} needs {missing}: {how_to_install(extra)}")
