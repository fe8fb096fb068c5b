"""An interpreter of the few pickle operations that NumPy's arrays in plain containers take.

It imports, calls and hashes nothing on behalf of the file: a dict is kept as its pairs, and an array as the type, shape
and bytes that the file states. Work and memory are bounded by the file's length and a number of operations.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .messages import excerpt, one_line

__all__ = ["Interpreter", "Refused", "StatedArray", "StatedDict", "StatedDtype", "stated_values"]

_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NUMBERS_AND_TEXT = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_BYTES_OF_PYTHON_2 = ("STRING", "BINSTRING", "SHORT_BINSTRING")  # which pickletools reads as Latin-1


class Refused(ValueError):
    """What the file asks for and is not done."""


@dataclass(eq=False)
class StatedDict:
    pairs: list[tuple[Any, Any]]


@dataclass(eq=False)
class _Global:
    name: str


@dataclass(eq=False)
class StatedDtype:
    code: str
    byte_order: str = "="


@dataclass(eq=False)
class StatedArray:
    """As stated, not checked: shape, dtype, whether in column order, bytes; :func:`stated_values` checks."""

    shape: Any = None
    dtype: Any = None
    fortran: Any = False
    raw: Any = None


class Interpreter:
    """The stack machine of pickle, for at most a number of operations."""

    def __init__(self, data: bytes, most_operations: int) -> None:
        self._data, self._most = data, most_operations
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._text_left = len(data)

    def run(self) -> Any:
        """What the file holds."""
        left = self._most
        for opcode, argument, _ in pickletools.genops(self._data):
            if opcode.name == "STOP":
                return self._stack.pop()
            left -= 1
            if left < 0:
                raise Refused("it has far more operations than such a file takes")
            self._step(opcode.name, argument)
        raise Refused("it has no end")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _NUMBERS_AND_TEXT:
            stack.append(argument)
        elif name in _BYTES_OF_PYTHON_2:
            stack.append(argument.encode("latin1"))
        elif name in _LITERALS:
            stack.append(_LITERALS[name])
        elif name in _TUPLES:
            stack.append(tuple(self._take(_TUPLES[name])))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            number = len(self._memo) if name == "MEMOIZE" else argument
            if number > len(self._data):
                raise Refused(f"it numbers an object {number}")
            self._memo[number] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise Refused("it refers to an object that it does not have")
            stack.append(self._memo[argument])
        elif name == "GLOBAL":
            stack.append(_known(argument.replace(" ", ".")))
        elif name not in ("PROTO", "FRAME"):
            operation = _OPERATIONS_BY_NAME.get(name)
            if operation is None:
                raise Refused(f"it has the operation {name}, which no array needs")
            operation(self)

    def _take(self, n: int) -> list[Any]:
        if n > len(self._stack) - (self._marks[-1] if self._marks else 0):
            raise Refused("it takes more than it has put")
        taken = self._stack[len(self._stack) - n :]
        del self._stack[len(self._stack) - n :]
        return taken

    def _take_to_mark(self) -> list[Any]:
        start = self._marks.pop()
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _tuple(self) -> None:
        self._stack.append(tuple(self._take_to_mark()))

    def _list(self) -> None:
        self._stack.append(self._take_to_mark())

    def _empty_list(self) -> None:
        self._stack.append([])

    def _dict(self) -> None:
        self._stack.append(StatedDict(_pairs(self._take_to_mark())))

    def _empty_dict(self) -> None:
        self._stack.append(StatedDict([]))

    def _append(self) -> None:
        self._extend(self._take(1))

    def _appends(self) -> None:
        self._extend(self._take_to_mark())

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise Refused("it appends to something other than a list")
        self._stack[-1].extend(values)

    def _set_item(self) -> None:
        self._set(self._take(2))

    def _set_items(self) -> None:
        self._set(self._take_to_mark())

    def _set(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], StatedDict):
            raise Refused("it sets items of something other than a dict")
        self._stack[-1].pairs.extend(_pairs(values))

    def _stack_global(self) -> None:
        module, name = self._take(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise Refused("it asks for something whose name is no text")
        self._stack.append(_known(f"{module}.{name}"))

    def _reduce(self) -> None:
        function, arguments = self._take(2)
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise Refused("it calls something other than a function")
        self._stack.append(self._call(function.name, arguments))

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """What the functions that arrays name would return."""
        if name in _RECONSTRUCT:
            return StatedArray()
        if name in _FROM_BUFFER:
            raw, dtype, shape, order = arguments
            return StatedArray(shape, dtype, order == "F", raw)
        if name in _SCALAR:
            dtype, raw = arguments
            return StatedArray((), dtype, False, raw)
        if name == "numpy.dtype":
            return StatedDtype(_text(arguments[0]))
        if name != "_codecs.encode":
            raise Refused(f"it calls {name}")
        text, encoding = arguments
        if not isinstance(text, str) or encoding != "latin1":
            raise Refused("it encodes something other than text")
        # An array's bytes are encoded once; again and again, a short file would fill the memory.
        self._text_left -= len(text)
        if self._text_left < 0:
            raise Refused("it encodes more text than it has")
        return text.encode("latin1")

    def _build(self) -> None:
        """The state of an array (version, shape, dtype, order, bytes) or a dtype (version, byte order, ...)."""
        (state,) = self._take(1)
        built = self._stack[-1]
        if isinstance(built, StatedArray) and isinstance(state, tuple) and len(state) == 5:
            _, built.shape, built.dtype, built.fortran, built.raw = state
        elif isinstance(built, StatedDtype) and isinstance(state, tuple) and len(state) > 1:
            built.byte_order = _text(state[1])
        else:
            raise Refused("it builds what is neither an array nor a dtype")


_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_KNOWN = {*_RECONSTRUCT, *_FROM_BUFFER, *_SCALAR, "numpy.ndarray", "numpy.dtype", "_codecs.encode"}
_OPERATIONS_BY_NAME: dict[str, Callable[[Interpreter], None]] = {
    "MARK": Interpreter._mark,
    "TUPLE": Interpreter._tuple,
    "LIST": Interpreter._list,
    "EMPTY_LIST": Interpreter._empty_list,
    "DICT": Interpreter._dict,
    "EMPTY_DICT": Interpreter._empty_dict,
    "APPEND": Interpreter._append,
    "APPENDS": Interpreter._appends,
    "SETITEM": Interpreter._set_item,
    "SETITEMS": Interpreter._set_items,
    "STACK_GLOBAL": Interpreter._stack_global,
    "REDUCE": Interpreter._reduce,
    "BUILD": Interpreter._build,
}


def stated_values(array: StatedArray, name: str, kinds: str, what: str) -> NDArray[Any]:
    """The array that the file states, of numbers of these kinds ("i", "u" or "f"), which `what` says in words.

    Raises
    ------
    Refused
        For another type, or a shape that does not have the size of the bytes.
    """
    dtype, shape, raw = array.dtype, array.shape, array.raw
    if not isinstance(dtype, StatedDtype) or not isinstance(raw, bytes | bytearray):
        raise Refused(f"its {name} is not an array of {what}")
    code = dtype.code.lstrip("<>=|")
    if code[:1] not in tuple(kinds) or code[1:] not in ("1", "2", "4", "8") or dtype.byte_order not in "<>=|":
        raise Refused(f"its {name} is not an array of {what}")
    if not isinstance(shape, tuple) or any(type(n) is not int or n < 0 for n in shape):
        raise Refused(f"its {name} has no shape")
    if math.prod(shape) * int(code[1:]) != len(raw):
        raise Refused(f"its {name} must have the size of its bytes, got shape {excerpt(shape)} and {len(raw)} bytes")
    order = dtype.byte_order if dtype.byte_order in ("<", ">") else "="
    values = np.frombuffer(raw, dtype=np.dtype(f"{order}{code}"))
    return values.reshape(shape, order="F" if array.fortran else "C")


def _known(name: str) -> _Global:
    if name not in _KNOWN:
        raise Refused(f"it asks for {one_line(name, 80)}")
    return _Global(name)


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    if len(values) % 2:
        raise Refused("it has a key without a value")
    return list(zip(values[::2], values[1::2], strict=True))


def _text(value: Any) -> str:
    """Text, which Python 2 wrote as bytes."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise Refused("its array has a type whose name is no text")
    return value
