"""The folder of an evaluation: what it is, and the parts that are done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eqr_core.errors import DataError
from eqr_core.evaluation.part import Part, write_whole
from eqr_core.evaluation.sweep import Settings

IDENTITY = "evaluation.json"
PARTS = "parts"


class Store:
    """Parts of one evaluation in `folder`, which is made where it is missing.

    DataError where the folder holds another evaluation, named by the first setting that differs,
    or holds something else.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder, self._settings = folder, settings
        wanted = settings.identity()
        path = folder / IDENTITY
        try:
            if path.exists():
                _compare(folder, json.loads(path.read_text(encoding="utf-8")), wanted)
            elif folder.exists() and any(folder.iterdir()):
                raise DataError(f"{folder}: it holds other files and no evaluation; name another")
            (folder / PARTS).mkdir(parents=True, exist_ok=True)
            if not path.exists():
                write_whole(path, (json.dumps(wanted, indent=2) + "\n").encode())
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error.strerror})") from None
        except ValueError:
            raise DataError(f"{path}: damaged; it is no JSON") from None

    @property
    def chunks(self) -> list[range]:
        """Rows of each part, in order."""
        rows, size = self._settings.rows, self._settings.sweep.chunk_rows
        return [range(first, min(first + size, rows)) for first in range(0, rows, size)]

    def missing(self) -> list[range]:
        """Chunks that are still to be computed."""
        return [chunk for chunk in self.chunks if not self._path(chunk).exists()]

    def write(self, chunk: range, part: Part) -> None:
        """Keep the part of `chunk`; DataError where it cannot be written."""
        try:
            part.save(self._path(chunk))
        except OSError as error:
            raise DataError(f"{self._folder}: cannot be written ({error.strerror})") from None

    def read(self) -> Iterator[tuple[range, Part]]:
        """All parts in order, one in memory at a time; DataError where one is damaged."""
        sweep = self._settings.sweep
        for chunk in self.chunks:
            path = self._path(chunk)
            part = Part.load(path)
            shape = (len(chunk), len(sweep.budgets))
            if part.steps.shape != (len(chunk), sweep.breadth) or part.score.shape != shape:
                raise DataError(f"{path}: of another evaluation; without it its rows run again")
            yield chunk, part

    def _path(self, chunk: range) -> Path:
        return self._folder / PARTS / f"rows-{chunk.start:07d}-{chunk.stop - 1:07d}.npz"


def _compare(folder: Path, there: Any, wanted: dict[str, Any]) -> None:
    if not isinstance(there, dict):
        raise DataError(f"{folder / IDENTITY}: damaged; it is no JSON object")
    for name in dict.fromkeys([*wanted, *there]):
        if there.get(name) != wanted.get(name):
            raise DataError(
                f"{folder}: it holds another evaluation, whose {name} is {there.get(name)}, "
                f"not {wanted.get(name)}; name another folder"
            )
