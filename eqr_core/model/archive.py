"""Opens the zip that torch.save writes: one pickle, read as data, and the tensors' storages."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from eqr_core.errors import CheckpointError
from eqr_core.model.pickles import Storage, TensorView, read_pickle

MAX_PICKLE_BYTES = 64 * 2**20
MAX_STORAGE_BYTES = 2**30
UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


class Archive:
    """A torch file, opened for reading; `content` is its pickle read as data.

    CheckpointError, with the file's name, for everything that is wrong with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except UNREADABLE as error:
            raise CheckpointError(f"{path}: {_reason(error)}") from None
        try:
            self._root = self._find_root()
            if f"{self._root}byteorder" in self._zip.namelist():
                order = self._read("byteorder", 16)
                if order != b"little":
                    raise CheckpointError("the byte order is not little-endian")
            self.content = read_pickle(self._read("data.pkl", MAX_PICKLE_BYTES))
        except CheckpointError as error:
            self._zip.close()
            raise CheckpointError(f"{path}: {error}") from None

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def tensor(self, view: TensorView) -> Tensor:
        """A copy of the tensor that `view` describes, in its own dtype."""
        try:
            flat = self._storage(view.storage)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        if math.prod(view.size) > view.storage.count:
            raise CheckpointError(f"{self.path}: a tensor repeats its storage")
        return flat.as_strided(view.size, view.stride, view.offset).clone()

    def _storage(self, storage: Storage) -> Tensor:
        name = f"data/{storage.key}"
        size = storage.count * storage.dtype.itemsize
        data = self._read(name, min(size, MAX_STORAGE_BYTES))
        if len(data) != size:
            raise CheckpointError(f"{name} has {len(data)} bytes; the pickle says {size}")
        if not data:
            return torch.empty(0, dtype=storage.dtype)
        return torch.frombuffer(bytearray(data), dtype=storage.dtype)

    def _find_root(self) -> str:
        names = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise CheckpointError("not a file of torch.save (it holds no single data.pkl)")
        return names[0].removesuffix("data.pkl")

    def _read(self, name: str, most: int) -> bytes:
        try:
            entry = self._zip.getinfo(self._root + name)
            if entry.file_size > most:
                raise CheckpointError(f"{name} claims {entry.file_size} bytes; at most {most} fit")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise CheckpointError(f"{name} is compressed in a way that torch does not write")
            with self._zip.open(entry) as file:
                return file.read(most + 1)
        except KeyError:
            raise CheckpointError(f"{name} is missing") from None
        except UNREADABLE as error:
            raise CheckpointError(f"{name}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"damaged, or not a file of torch.save ({error})"
