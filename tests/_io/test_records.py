"""Typed results as JSON and arrays, and back: what survives, what becomes of NaN, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from mfakit._io.records import decode, encode


@dataclass(frozen=True, eq=False)
class Inner:
    name: str
    values: NDArray[Any]
    size: float | None = None


@dataclass(frozen=True, eq=False)
class Outer:
    first: Inner
    rest: list[Inner]
    pair: tuple[int, float]
    many: tuple[float, ...]
    by_name: dict[str, Inner]
    mixed: dict[str, Any]
    kind: Literal["a", "b"]
    where: Path
    flag: bool
    sequence: Sequence[int] = (1,)
    mapping: Mapping[str, float] = field(default_factory=dict)
    array_or_none: NDArray[Any] | None = None


def example() -> Outer:
    return Outer(
        first=Inner("ℓ2", np.arange(6, dtype=np.float32).reshape(2, 3), 0.5),
        rest=[Inner("", np.zeros((0, 4))), Inner("b", np.array([True, False]), None)],
        pair=(3, 2.0),
        many=(math.inf, -math.inf, 1e-300, 1.7976931348623157e308),
        by_name={"x.y": Inner("c", np.array([np.nan, np.inf])), "": Inner("d", np.array(7))},
        mixed={
            "n": np.int64(4),
            "share": np.float32(0.5),
            "list": [1, "2", None],
            "array": np.ones(2),
            "ok": np.True_,
        },
        kind="b",
        where=Path("a") / "b",
        flag=True,
        mapping={"p": 1.0},
    )


def returned(kind: Any, value: Any) -> Any:
    """Through JSON's text, as in a file."""
    arrays: dict[str, NDArray[Any]] = {}
    text = json.dumps(encode(value, arrays), allow_nan=False)
    return decode(kind, json.loads(text), arrays)


def test_everything_comes_back() -> None:
    sent, got = example(), returned(Outer, example())
    assert (got.pair, got.many, got.kind, got.where, got.flag) == (
        sent.pair, sent.many, sent.kind, sent.where, sent.flag,
    )  # fmt: skip
    assert (got.sequence, got.mapping, got.array_or_none) == ([1], {"p": 1.0}, None)
    assert [type(part) for part in (got.pair, got.pair[0], got.pair[1], got.rest)] == [tuple, int, float, list]
    inner = [(sent.first, got.first), *zip(sent.rest, got.rest, strict=True)]
    inner += [(sent.by_name[key], got.by_name[key]) for key in ("x.y", "")]
    for a, b in inner:
        assert (a.name, a.size) == (b.name, b.size)
        assert (a.values.dtype, a.values.shape) == (b.values.dtype, b.values.shape)
        np.testing.assert_array_equal(a.values, b.values)
    assert {key: got.mixed[key] for key in ("n", "share", "list", "ok")} == {
        "n": 4, "share": 0.5, "list": [1, "2", None], "ok": True,
    }  # fmt: skip
    np.testing.assert_array_equal(got.mixed["array"], np.ones(2))


def test_each_array_has_a_place_of_its_own() -> None:
    arrays: dict[str, NDArray[Any]] = {}
    plain = encode(example(), arrays)
    assert sorted(arrays) == [
        "by_name..values", "by_name.x.y.values", "first.values", "mixed.array", "rest.0.values", "rest.1.values",
    ]  # fmt: skip
    assert plain["first"]["values"] == {"array": "first.values"}


def test_not_a_number_and_infinities() -> None:
    got = returned(dict[str, float], {"nan": math.nan, "inf": math.inf, "-inf": np.float64("-inf")})
    assert math.isnan(got.pop("nan"))
    assert got == {"inf": math.inf, "-inf": -math.inf}
    # Of an optional number NaN is "not known", as None is.
    assert returned(float | None, math.nan) is None


@dataclass(frozen=True)
class Small:
    a: int
    b: float = 1.0


@pytest.mark.parametrize(
    ("kind", "plain", "message"),
    [
        (Small, {"a": 1}, "result lacks b; another version of mfakit may have written it"),
        (Small, {"a": 1, "b": 2, "c": 3}, "result has no field c; another version"),
        (Small, [1, 2], r"result must be an object, got '\[1, 2\]'"),
        (Small, {"a": 1.5, "b": 2}, r"result\.a must be int, got '1.5'"),
        (Small, {"a": True, "b": 2}, r"result\.a must be int, got 'True'"),
        (Small, {"a": 1, "b": "x"}, r"result\.b must be float, got 'x'"),
        (Small, {"a": 1, "b": False}, r"result\.b must be float, got 'False'"),
        (Small, {"a": 1, "b": 10**400}, r"result\.b must be float, got '10000"),
        (list[Small], [{"a": 1, "b": 2}, {"a": "1", "b": 2}], r"result\[1\]\.a must be int, got '1'"),
        (tuple[int, int], [1], "result must hold 2 values, got 1"),
        (tuple[int, ...], {"0": 1}, "result must be a list, got"),
        (dict[str, int], [1], "result must be an object, got"),
        (Literal["a", "b"], "c", "result must be one of a, b, got 'c'"),
        (int | None, "x", "result must be int, got 'x'"),
        (bool, 1, "result must be bool, got '1'"),
        (str, None, "result must be str, got 'None'"),
        (Path, 3, "result must be Path, got '3'"),
        (NDArray[Any], [1.0], r"result must be an array that is there, got '\[1.0\]'"),
        (NDArray[Any], {"array": "elsewhere"}, "result must be an array that is there"),
        (NDArray[Any], {"array": 3}, "result must be an array that is there"),
        (dict[str, Any], {"x": {"array": "elsewhere"}}, r"result\.x must be an array that is there"),
        (Inner, {"name": "x", "values": None, "size": None}, r"result\.values must be an array that is there"),
    ],
)
def test_what_is_something_else_is_named(kind: Any, plain: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        decode(kind, plain, {"here": np.zeros(1)})
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_values_of_any_length_are_cut() -> None:
    with pytest.raises(ValueError, match="must be int") as caught:
        decode(int, "x" * 10**6, {})
    assert len(str(caught.value)) < 100
