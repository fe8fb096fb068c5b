"""The compiled searches for multipliers refuse arrays that they would read or write wrongly, and name the attribute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import random_mfa

import mfakit
from mfakit.attacks.minimal.components import Components
from mfakit.attacks.minimal.sample import Sample
from mfakit.backends import why_missing
from mfakit.backends.duals import (
    DensityLine,
    FeatureBox,
    FeatureProblem,
    Found,
    HowFar,
    crossing,
    highest_in_ball,
    search_dual,
    slope_at,
)  # fmt: skip

pytestmark = pytest.mark.skipif(why_missing("native") is not None, reason="compiled code")

D = 10
HOW = HowFar(0.0, np.inf, np.inf, 0.0, True)


def operands() -> dict[str, Any]:
    clf = mfakit.BayesClassifier([random_mfa(k=2, d=D, l=2, noise="diagonal", seed=s, spread=0.3) for s in (2, 3)])
    sample = Sample(Components(clf), clf.mixtures[0].means[0]).operand
    problem = FeatureProblem(np.array([2, 3]), np.array([0.7, 0.3]), 0.1, np.array([0, 1]), True, False)
    box = FeatureBox(np.full(D, -5.0), np.full(D, 5.0))
    return {"sample": sample, "problem": problem, "box": box, "theta": np.full(2, 0.5), "found": Found.empty(2, D)}


def search(given: dict[str, Any]) -> tuple[float, bool, bool]:
    return search_dual(given["sample"], given["problem"], given["box"], given["theta"], HOW, given["found"])


def test_what_is_found_is_a_dual() -> None:
    given = operands()
    radius, has_dual, _ = search(given)
    assert has_dual
    found = given["found"]
    assert (found.lam >= 0.0).all()
    assert 0.0 < radius <= np.linalg.norm(found.delta) * (1 + 1e-6)


def narrower(array: Any) -> Any:
    return np.ascontiguousarray(array[..., :-1])


def strided(array: Any) -> Any:
    return np.repeat(array, 2, axis=-1)[..., ::2]


@pytest.mark.parametrize(
    ("struct", "field"),
    [
        *(("sample", name) for name in ("log_const", "tilt", "owner", "maha", "rounding", "gradients")),
        ("problem", "share"),
        *(("box", name) for name in ("low", "high")),
        *(("found", name) for name in ("lam", "delta", "aside")),
    ],
)
def test_arrays_of_another_shape_dtype_or_layout_are_refused(struct: str, field: str) -> None:
    given = operands()
    array = getattr(given[struct], field)
    for wrong, error in (
        (narrower(array), ValueError),
        (array.astype(np.float32), TypeError),
        (strided(array), TypeError),
        (array.tolist(), TypeError),
    ):
        with pytest.raises(error, match=rf"^{field} must\b"):
            search({**given, struct: given[struct]._replace(**{field: wrong})})


def test_loadings_of_other_shapes_are_refused() -> None:
    given = operands()
    W = given["sample"].whitened
    for wrong, error in (
        ((W[0],), ValueError),
        ((W[0], narrower(W[1])), ValueError),
        ((W[0], W[1].astype(np.float32)), TypeError),
        (list(W), TypeError),
    ):
        with pytest.raises(error, match=r"^whitened must\b"):
            search({**given, "sample": given["sample"]._replace(whitened=wrong)})


@pytest.mark.parametrize("field", ["targets", "sources"])
def test_components_out_of_range_are_refused(field: str) -> None:
    given = operands()
    for wrong in (-1, 4):
        problem = given["problem"]._replace(**{field: np.array([0, wrong])})
        with pytest.raises(ValueError, match=rf"^{field} is out of range$"):
            search({**given, "problem": problem})


def test_shares_and_sources_of_another_number_are_refused() -> None:
    given = operands()
    with pytest.raises(ValueError, match=r"^theta must\b"):
        search({**given, "theta": np.ones(3)})
    with pytest.raises(ValueError, match=r"^delta must\b"):
        slope_at(given["sample"], given["problem"], given["theta"], np.zeros(D + 1))
    with pytest.raises(ValueError, match="one source"):
        highest_in_ball(given["sample"], given["problem"], None, 1.0, -40.0)
    with pytest.raises(ValueError, match="a target and a source"):
        search({**given, "problem": given["problem"]._replace(sources=np.empty(0, np.int64)), "theta": np.empty(0)})


def test_a_crossing_is_that_of_the_quadratics() -> None:
    """log p_0 - log p_1 = 3 - τ - τ², whose root is (√13 - 1)/2; classes of one component each."""
    line = DensityLine(np.array([3.0, 0.0]), np.array([-1.0, 0.0]), np.array([-2.0, 0.0]), np.array([0, 1, 2]), 0, 1.0)
    tau = np.linspace(0.0, 2.0, 9)
    root = (np.sqrt(13.0) - 1.0) / 2.0
    assert root <= crossing(line, tau) <= root * (1 + 1e-12)
    assert crossing(line, tau[:5]) == np.inf
    assert crossing(line._replace(sign=-1.0), tau) == 0.0  # decided for class 0 at once
    with pytest.raises(ValueError, match=r"^cls is out of range$"):
        crossing(line._replace(cls=2), tau)
    with pytest.raises(ValueError, match=r"^slope must\b"):
        crossing(line._replace(slope=np.zeros(3)), tau)
