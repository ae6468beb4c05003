"""Reads the pickle of a torch file as data: an interpreter of its own that calls nothing.

A pickle is a program for a stack machine, and Python's own machine calls whatever it names.
This one knows the operations that build numbers, strings and containers. Of the names of classes
and functions it takes those a training checkpoint needs and no other; none of them is imported,
and what each one yields is written here: a dictionary, the description of a tensor, or an inert
stand-in. So no input makes it run foreign code, and what it allocates is bounded by its input.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import TypeGuard

import torch

from eqr_core.errors import CheckpointError

MAX_OPERATIONS = 2_000_000
MAX_NUMBER = 2**32
MAX_AXES = 8

STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
MAPPING = "collections.OrderedDict"
TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
INERT = {
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
}
INERT_PACKAGE = "models."
"""The reference's own classes, such as models.eqr.ModelCarry."""

LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
SHORT_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Storage:
    """A block of `count` numbers in the file, named by `key`; not read yet."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class TensorView:
    """A tensor as a view of a storage, checked to lie inside it; not read yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class Inert:
    """Stands for an object that is of no use here; `state` is what it was given."""

    state: object = None


@dataclass(frozen=True)
class _Name:
    path: str


def read_pickle(data: bytes) -> object:
    """The object that a pickle describes.

    Dictionaries, lists, tuples, numbers and text are themselves; a tensor is a `TensorView`;
    everything else that is allowed is `Inert`. CheckpointError names what is not allowed.
    """
    machine = _Machine()
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
            if count == MAX_OPERATIONS:
                raise CheckpointError(f"the pickle has more than {MAX_OPERATIONS} operations")
            machine.step(operation.name, argument)
        return machine.stack.pop()
    except (ValueError, IndexError, KeyError, OverflowError, RecursionError):
        raise CheckpointError("the pickle is damaged") from None


class _Machine:
    def __init__(self) -> None:
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}

    def step(self, operation: str, argument: object) -> None:
        if operation in LITERALS:
            self.stack.append(argument)
        elif operation in CONSTANTS:
            self.stack.append(CONSTANTS[operation])
        elif operation in SHORT_TUPLES:
            self._tuple(SHORT_TUPLES[operation])
        else:
            self._build(operation, argument)

    def _build(self, operation: str, argument: object) -> None:
        stack = self.stack
        match operation:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "PUT" | "BINPUT" | "LONG_BINPUT" if isinstance(argument, int):
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET" if isinstance(argument, int):
                stack.append(self.memo[argument])
            case "MARK":
                self.marks.append(stack)
                self.stack = []
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE":
                items = tuple(self._unmark())
                self.stack.append(items)
            case "APPEND":
                item = stack.pop()
                self._extend([item])
            case "APPENDS":
                self._extend(self._unmark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._update([key, value])
            case "SETITEMS":
                self._update(self._unmark())
            case "GLOBAL":
                stack.append(_allowed(str(argument).replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if type(name) is not str or type(module) is not str:
                    raise CheckpointError("the pickle names a global by something else than text")
                stack.append(_allowed(f"{module}.{name}"))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_made(function, arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Inert):
                    stack[-1].state = state
                elif type(stack[-1]) is not dict:  # an OrderedDict's attributes are dropped
                    raise CheckpointError("the pickle sets the state of something that has none")
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case _:
                what = f" ({argument[:100]})" if isinstance(argument, str) else ""
                raise CheckpointError(f"the pickle operation {operation}{what} is not allowed")

    def _tuple(self, length: int) -> None:
        items = [self.stack.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(items)))

    def _unmark(self) -> list[object]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _extend(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise CheckpointError("the pickle appends to something that is no list")
        target.extend(items)

    def _update(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise CheckpointError("the pickle sets an item of something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) and not (type(key) is int and abs(key) < MAX_NUMBER):
                raise CheckpointError("the pickle has a key that is neither text nor a number")
            target[key] = value


def _allowed(path: str) -> _Name:
    known = path in (MAPPING, TENSOR, PARAMETER) or path in INERT or path in STORAGES
    if not known and not path.startswith(INERT_PACKAGE):
        raise CheckpointError(f"the pickle names {path[:200]!r}, which is not allowed")
    return _Name(path)


def _made(function: object, arguments: object) -> object:
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        raise CheckpointError("the pickle calls something that is no function")
    if function.path == MAPPING and not arguments:
        return {}
    if function.path == TENSOR and len(arguments) >= 4:
        return _view(*arguments[:4])
    if function.path == PARAMETER and arguments and isinstance(arguments[0], TensorView):
        return arguments[0]
    if function.path in (MAPPING, TENSOR, PARAMETER):
        raise CheckpointError(f"the pickle calls {function.path} with wrong arguments")
    return Inert()


def _storage(reference: object) -> Storage:
    match reference:
        case ("storage", _Name(path), str(key), str(), int(count)) if path in STORAGES:
            if key.isdecimal() and key.isascii() and count >= 0:
                return Storage(key, STORAGES[path], count)
    raise CheckpointError("the pickle refers to something that is no tensor storage")


def _view(storage: object, offset: object, size: object, stride: object) -> TensorView:
    if not isinstance(storage, Storage) or type(offset) is not int:
        raise CheckpointError("a tensor of the pickle has no storage")
    if not _is_shape(size) or not _is_shape(stride) or len(size) != len(stride) or offset < 0:
        raise CheckpointError("a tensor of the pickle has an impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.count:
        raise CheckpointError("a tensor of the pickle lies outside its storage")
    return TensorView(storage, offset, size, stride)


def _is_shape(value: object) -> TypeGuard[tuple[int, ...]]:
    """Whether `value` is a shape: few whole numbers of moderate size."""
    return (
        isinstance(value, tuple)
        and len(value) <= MAX_AXES
        and all(type(n) is int and 0 <= n < MAX_NUMBER for n in value)
    )
