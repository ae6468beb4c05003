"""The option of commands that call a service with an API key: no key stands in a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqr_core.errors import DataError

KeyFile = Annotated[Path | None, typer.Option(help="File that holds the API key.")]


def key_in(path: Path | None) -> str | None:
    """The key; None without a file. DataError where it cannot be read."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from None
