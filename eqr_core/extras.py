"""What a message says of packages that are not installed."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """The command that installs an extra: from here, for `eqr` on PyPI is another project."""
    return f"pip install '.[{extra}]' in the folder of this project"
