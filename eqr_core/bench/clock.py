"""Time by the clock and by the processor."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

import torch


@dataclass
class Clock:
    """Seconds of a `with` block: by the clock, and of this process on one core.

    Processor time is spread over torch's threads. It tells what the machine would need if nobody
    else used it, so it is what is compared; on a quiet machine both are the same.
    """

    wall: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> Self:
        self._begin = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._begin[0]
        self.cpu += (time.process_time() - self._begin[1]) / torch.get_num_threads()
