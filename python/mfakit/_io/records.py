"""Typed results as JSON, and back: dataclasses of numbers, words, containers and arrays; arrays stand apart."""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

__all__ = ["decode", "encode"]

Array = NDArray[Any]
T = TypeVar("T")

# How JSON refers to an array.
_ARRAY = "array"


def encode(value: Any, arrays: dict[str, Array], place: str = "") -> Any:
    """`value` in JSON's own types; its arrays go to `arrays` under the names of their places, such as ``a.b.0``.

    NaN becomes null and infinities words, because JSON has neither.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        name = place or _ARRAY
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): encode(item, arrays, f"{place}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item, arrays, f"{place}.{i}".lstrip(".")) for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return str(value) if isinstance(value, Path) else value


def decode(kind: type[T], plain: Any, arrays: Mapping[str, Array], place: str = "result") -> T:
    """What :func:`encode` was given, a `kind`: a dataclass, or what its fields are declared as.

    Raises
    ------
    ValueError
        Where it is not a `kind`; the message names the place.
    """
    found: T = _decode(kind, plain, arrays, place)
    return found


def _decode(kind: Any, plain: Any, arrays: Mapping[str, Array], place: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(inner, plain, arrays, place)
    if origin is np.ndarray or kind is np.ndarray or (kind is Any and _refers(plain)):
        if not _refers(plain) or plain[_ARRAY] not in arrays:
            raise ValueError(f"{place} must be an array that is there, got {str(plain)[:40]!r}")
        return arrays[plain[_ARRAY]]
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, plain, arrays, place)
    if origin in (dict, Mapping) or kind is dict or (kind is Any and isinstance(plain, dict)):
        _check(plain, dict, place)
        item = inner[1] if inner else Any
        return {key: _decode(item, value, arrays, f"{place}.{key}") for key, value in plain.items()}
    if origin in (list, tuple, Sequence) or kind in (list, tuple) or (kind is Any and isinstance(plain, list)):
        return _sequence(list if kind is Any else origin or kind, inner, plain, arrays, place)
    if origin is typing.Literal:
        if plain not in inner:
            raise ValueError(f"{place} must be one of {', '.join(map(str, inner))}, got {str(plain)[:40]!r}")
        return plain
    return plain if kind is Any else _scalar(kind, plain, place)


def _one_of(kinds: tuple[Any, ...], plain: Any, arrays: Mapping[str, Array], place: str) -> Any:
    if plain is None and type(None) in kinds:
        return None
    for kind in (kind for kind in kinds if kind is not type(None)):
        try:
            return _decode(kind, plain, arrays, place)
        except ValueError as error:
            last = error
    raise last


def _dataclass(kind: Any, plain: Any, arrays: Mapping[str, Array], place: str) -> Any:
    _check(plain, dict, place)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    unknown = [name for name in plain if name not in fields]
    missing = [name for name in fields if name not in plain]
    if unknown or missing:
        what = f"has no field {unknown[0]}" if unknown else f"lacks {missing[0]}"
        raise ValueError(f"{place} {what}; another version of mfakit may have written it")
    return kind(**{name: _decode(hints[name], plain[name], arrays, f"{place}.{name}") for name in fields})


def _sequence(origin: Any, inner: tuple[Any, ...], plain: Any, arrays: Mapping[str, Array], place: str) -> Any:
    _check(plain, list, place)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        if len(inner) != len(plain):
            raise ValueError(f"{place} must hold {len(inner)} values, got {len(plain)}")
        kinds = inner
    else:
        kinds = (inner[0] if inner else Any,) * len(plain)
    values = [_decode(kind, v, arrays, f"{place}[{i}]") for i, (kind, v) in enumerate(zip(kinds, plain, strict=True))]
    return tuple(values) if origin is tuple else values


def _scalar(kind: Any, plain: Any, place: str) -> Any:
    if kind is float:
        if plain is None:
            return math.nan
        if plain in ("inf", "-inf"):
            return float(plain)
        if isinstance(plain, int | float) and not isinstance(plain, bool) and abs(plain) <= sys.float_info.max:
            return float(plain)
    elif kind is Path and isinstance(plain, str):
        return Path(plain)
    elif kind in (int, str, bool) and type(plain) is kind:
        return plain
    raise ValueError(f"{place} must be {getattr(kind, '__name__', kind)}, got {str(plain)[:40]!r}")


def _refers(plain: Any) -> bool:
    return isinstance(plain, dict) and set(plain) == {_ARRAY} and isinstance(plain[_ARRAY], str)


def _check(plain: Any, kind: type, place: str) -> None:
    if not isinstance(plain, kind):
        raise ValueError(f"{place} must be {'an object' if kind is dict else 'a list'}, got {str(plain)[:40]!r}")
