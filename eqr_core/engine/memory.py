"""How many slots fit in the memory that is left."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from eqr_core.errors import EqrError
from eqr_core.model.operator import Operator

log = logging.getLogger(__name__)

SHARE = 0.8
"""Of the memory that is free, what slots may take; the rest is for the work on them."""
GROUP = Path("/sys/fs/cgroup")
VALUE_BYTES = 4


def slot_bytes(operator: Operator) -> int:
    """Bytes of one slot: its state and its input embedding, float32."""
    values = torch.Size(operator.state_shape).numel()
    return VALUE_BYTES * values * (operator.state_count + 1)


def fitting_slots(operator: Operator, slots: int, free: int | None = None, taken: int = 0) -> int:
    """`slots`, or as many as fit in `free` bytes but `taken`, with a line of the log.

    `free` None: what is free now where the operator is. `taken` is promised to others, as in
    `have_room`.

    A system that promises more memory than it has ends the process when the slots fill, long after
    it has started; so they are counted before. EqrError where not even one fits.
    """
    free = _left(operator, free, taken)
    each = slot_bytes(operator)
    fit = int(SHARE * free) // each
    if fit >= slots:
        return slots
    if fit < 1:
        raise EqrError(
            f"a slot of {operator.task.name} {operator.task.size} takes {each:,} bytes; "
            f"only {free:,} are free"
        )
    log.warning(
        "%d slots of %s %s would take %.1f GiB of the %.1f GiB that are free; there will be %d",
        slots,
        operator.task.name,
        operator.task.size,
        slots * each / 2**30,
        free / 2**30,
        fit,
    )
    return fit


def have_room(operator: Operator, slots: int, taken: int) -> bool:
    """Whether `slots` fit in what is free now and not one of the `taken` bytes.

    These are promised to others. On a CPU part of them may be in use already and count twice.
    """
    return slots * slot_bytes(operator) <= SHARE * _left(operator, None, taken)


def _left(operator: Operator, free: int | None, taken: int) -> int:
    if free is None and operator.device.type == "cuda":
        return torch.cuda.mem_get_info(operator.device)[0]  # its pools are filled at once
    return max(0, (free_memory() if free is None else free) - taken)


def free_memory() -> int:
    """Bytes that this process can still take: the machine's, or its container's if fewer."""
    free = _machine()
    limit, used = _number(GROUP / "memory.max"), _number(GROUP / "memory.current")
    if limit is None or used is None:
        return free
    return max(0, min(free, limit - used + _reclaimable()))


def _machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _reclaimable() -> int:
    """Bytes of files that the container has read, which the kernel gives up for anything else."""
    try:
        lines = (GROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("inactive_file ")).split()[1])
    except (OSError, StopIteration, ValueError):
        return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no control group of version 2, or no limit: "max"
        return None
