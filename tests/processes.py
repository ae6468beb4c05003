"""What the tests ask of other processes."""

from __future__ import annotations

from pathlib import Path


def alive(process: int) -> bool:
    """Whether it runs. One that has ended may stay listed where process 1 collects no orphans."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")
