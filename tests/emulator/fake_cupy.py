"""A stand-in for CuPy on the host, as strict as CuPy about mixing host and device arrays: no silent copies."""

from __future__ import annotations

from typing import Any

import numpy as np


def unwrap(value: Any) -> Any:
    """NumPy's array behind a device array; a host array where a device array belongs is an error, as in CuPy."""
    if isinstance(value, DeviceArray):
        return value._array
    if isinstance(value, np.ndarray) and value.ndim > 0:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: a host array met a device array")
    if isinstance(value, tuple):
        return tuple(map(unwrap, value))
    if isinstance(value, list):
        return list(map(unwrap, value))
    return value


def wrap(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return DeviceArray(np.asarray(value))
    if isinstance(value, tuple):
        return tuple(map(wrap, value))
    return value


class Waits:
    """How often the host had to wait for the device so far: reads, and results whose size is on the device."""

    count = 0
    read = 0  # bytes of all reads

    @classmethod
    def add(cls, read: int = 0) -> None:
        cls.count += 1
        cls.read += read


class _Memory:
    def __init__(self, pointer: int) -> None:
        self.ptr = pointer


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array "on the device": NumPy's, behind a wall."""

    __module__ = "cupy"

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    @property
    def data(self) -> _Memory:
        return _Memory(self._array.ctypes.data)

    @property
    def device(self) -> Any:
        return type("Device", (), {"id": 0})()

    def get(self) -> np.ndarray[Any, Any]:
        Waits.add(self._array.nbytes)
        return self._array.copy()

    def tolist(self) -> Any:
        return self.get().tolist()

    def nonzero(self) -> Any:
        Waits.add()
        return wrap(self._array.nonzero())

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use .get()")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        kwargs = {name: unwrap(value) for name, value in kwargs.items()}
        result = getattr(ufunc, method)(*map(unwrap, inputs), **kwargs)
        return kwargs["out"] and wrap(result) if "out" in kwargs else wrap(result)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._array, name)
        if callable(value):
            return lambda *args, **kwargs: wrap(
                value(*map(unwrap, args), **{key: unwrap(item) for key, item in kwargs.items()})
            )
        return wrap(value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def flags(self) -> Any:
        return self._array.flags

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, DeviceArray) and key._array.dtype == bool:
            Waits.add()
        return wrap(self._array[unwrap(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._array[unwrap(key)] = unwrap(value)

    def __iter__(self) -> Any:
        return (wrap(item) for item in self._array)

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __index__(self) -> int:
        return self.get().__index__()

    def __float__(self) -> float:
        return float(self.get())

    def __repr__(self) -> str:
        return f"DeviceArray({self._array!r})"


class FakeCupy:
    """The functions of NumPy on device arrays, and those that cross the wall."""

    ndarray = DeviceArray
    # What CuPy has not, or does otherwise: using it here would pass the tests and fail on a device.
    missing = frozenset({"errstate", "require", "logaddexp2", "longdouble"})

    def __init__(self, new_byte: int = 0xFF) -> None:
        self.new_byte = new_byte  # what fills new memory: NaN and -1, so that reading it unwritten is found

    def empty(self, shape: Any, dtype: Any = np.float64) -> DeviceArray:
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[...] = self.new_byte
        return DeviceArray(array)

    def empty_like(self, array: DeviceArray) -> DeviceArray:
        return self.empty(array.shape, unwrap(array).dtype)

    def asarray(self, array: Any, dtype: Any = None) -> DeviceArray:
        if isinstance(array, DeviceArray):
            return array if dtype is None else wrap(array._array.astype(dtype, copy=False))
        return DeviceArray(np.array(array, dtype=dtype, order="C"))

    def asnumpy(self, array: Any) -> np.ndarray[Any, Any]:
        return array.get() if isinstance(array, DeviceArray) else np.asarray(array)

    class linalg:
        @staticmethod
        def norm(x: Any, **kwargs: Any) -> Any:
            return wrap(np.linalg.norm(unwrap(x), **kwargs))

    def __getattr__(self, name: str) -> Any:
        if name in self.missing:
            raise AttributeError(f"CuPy has no {name}")
        function = getattr(np, name)
        if name in ("nonzero", "flatnonzero", "argwhere", "unique", "bincount"):
            Waits.add()
        if not callable(function) or isinstance(function, type):
            return function
        return lambda *args, **kwargs: wrap(
            function(*map(unwrap, args), **{key: unwrap(item) for key, item in kwargs.items()})
        )
