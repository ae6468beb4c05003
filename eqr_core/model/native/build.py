"""Compiling the C++ beside this file, once for each processor, compiler and version of the source.

The library has a C interface and includes nothing of torch, so that it takes seconds to compile
and outlives torch's versions.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import torch

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent
COMPILERS = ("g++", "clang++", "c++")
MIXERS = ("units", "grid")
SIZES = ("workspace", "kept", "single_packed", "single_workspace")
"""Functions of a mixer that return a number of bytes or values."""
WORK = ("forward", "backward", "single_pack", "single_step")
"""Functions of a mixer that return 0 when they have done their work."""
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-pthread", "-w")


class _Library:
    """The compiled library of this process, made when it is first asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = False
        self._loaded: ctypes.CDLL | None = None

    def get(self) -> ctypes.CDLL | None:
        with self._lock:
            if not self._asked:
                self._asked = True
                try:
                    self._loaded = _load()
                except (OSError, subprocess.SubprocessError, _Unavailable) as error:
                    log.warning("no native kernels, torch computes instead: %s", _reason(error))
            return self._loaded


class _Unavailable(Exception):
    """The kernels cannot be built or run on this machine."""


_library = _Library()


def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they cannot be had, which is logged once a process."""
    return _library.get()


def _load() -> ctypes.CDLL:
    if sys.platform != "linux" or torch.backends.cpu.get_cpu_capability() != "AVX512":
        raise _Unavailable("they need Linux and a processor with AVX-512")
    loaded = ctypes.CDLL(str(_built()))
    for mixer in MIXERS:
        for name in SIZES:
            getattr(loaded, f"eqr_{mixer}_{name}").restype = ctypes.c_int64
        for name in WORK:
            getattr(loaded, f"eqr_{mixer}_{name}").errcheck = _check
    loaded.eqr_single_name.restype = ctypes.c_char_p
    return loaded


def _check(result: int, function: object, arguments: object) -> None:
    if result:
        raise MemoryError("native kernels: the system gave no more memory")


def _built() -> Path:
    compiler = find_compiler()
    if compiler is None:
        raise _Unavailable("there is no C++ compiler")
    name = f"kernels-{_key(compiler)}.so"
    for folder in _folders():
        path = folder / name
        if path.is_file():
            return path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=folder, suffix=".part")
        except OSError:
            continue
        os.close(handle)
        # Another process may build at the same time; each moves a whole file into place.
        try:
            command = [compiler, *FLAGS, "-o", part, *map(str, sorted(SOURCES.glob("*.cpp")))]
            subprocess.run(command, check=True, capture_output=True, text=True)
            Path(part).replace(path)
        finally:
            Path(part).unlink(missing_ok=True)
        return path
    raise _Unavailable("there is no folder to keep them in")


def _folders() -> Iterator[Path]:
    """Where a build may be kept: the user's cache, else a folder of this process."""
    with contextlib.suppress(RuntimeError):  # nobody's home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "eqr"
    own = Path(tempfile.mkdtemp(prefix="eqr-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    yield own


def find_compiler() -> str | None:
    """The C++ compiler, `CXX` if that is set; None where there is none."""
    named = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, (named,) if named else COMPILERS)), None)


def _key(compiler: str) -> str:
    """Name of what a build depends on: source, flags, compiler and processor."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True).stdout
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    processor = sorted(
        {line for line in cpuinfo.splitlines() if line.startswith(("flags", "model"))}
    )
    digest = hashlib.sha256(version + "\n".join([*FLAGS, platform.machine(), *processor]).encode())
    for source in sorted(SOURCES.glob("*.[ch]*")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:24]


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines()
        return f"{Path(error.cmd[0]).name} failed: {lines[0] if lines else error.returncode}"
    return str(error)
