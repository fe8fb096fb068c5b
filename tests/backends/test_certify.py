"""The compiled certificates refuse arrays that they would read or write wrongly, and name the attribute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import random_mfa

import mfakit
from mfakit.attacks.coordinates import FactorCoordinates
from mfakit.attacks.minimal.pairs import PairTable
from mfakit.backends import why_missing
from mfakit.backends.certify import Certificates, Samples, certify
from mfakit.backends.operands import Coordinates

pytestmark = pytest.mark.skipif(why_missing("native") is not None, reason="compiled code")

N = 3


def operands() -> dict[str, Any]:
    clf = mfakit.BayesClassifier([random_mfa(k=k, d=10, l=2, seed=k, spread=0.3) for k in (2, 3)])
    X, y = clf.sample(N, rng=0, dtype=np.float64)
    q = FactorCoordinates.of(clf)
    samples = Samples(*q.project(X), y.astype(np.int64))
    found = Certificates.zeros(*samples.a.shape)
    coordinates, pairs = Coordinates(*q.kernel_arguments), PairTable.of(q).quadrics
    return {"coordinates": coordinates, "pairs": pairs, "samples": samples, "found": found}


def test_what_is_found_is_a_bracket_and_the_point_at_its_end() -> None:
    given = operands()
    certify(**given)
    q, samples, found = given["coordinates"], given["samples"], given["found"]
    lower, upper = found.bracket.T
    assert (lower > 0.0).all()
    assert (lower <= upper).all()
    assert (upper < np.inf).all()
    # ‖α v + w · columns‖² by inner products
    squared = found.alpha**2 * samples.sq + 2.0 * found.alpha * (found.w * samples.a).sum(axis=1)
    squared += np.einsum("nc,cd,nd->n", found.w, q.gram, found.w)
    np.testing.assert_allclose(np.sqrt(squared), upper, rtol=1e-6)
    assert (found.reports[:, 2] == 1 - samples.y).all()
    assert (found.reports[:, 3:] > 0).all()


def narrower(array: Any) -> Any:
    return np.ascontiguousarray(array[..., :-1])


def strided(array: Any) -> Any:
    return np.repeat(array, 2, axis=-1)[..., ::2]


@pytest.mark.parametrize(
    ("struct", "field"),
    [
        *(("coordinates", name) for name in ("gram", "variance", "spread", "log_const")),
        *(("pairs", name) for name in ("rows", "values", "vectors", "tilt", "size")),
        *(("samples", name) for name in ("a", "sq", "y")),
        *(("found", name) for name in ("alpha", "w", "bracket", "reports")),
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
        with pytest.raises(error, match=f"^{field} must"):
            certify(**{**given, struct: given[struct]._replace(**{field: wrong})})
    assert not given["found"].bracket.any()


@pytest.mark.parametrize(
    ("struct", "field", "value"), [("samples", "y", 2), ("pairs", "rank", 5), ("pairs", "rows", 99)]
)
def test_numbers_out_of_range_are_refused(struct: str, field: str, value: int) -> None:
    given = operands()
    array = np.full_like(getattr(given[struct], field), value)
    with pytest.raises(ValueError, match=f"^{field} is out of range"):
        certify(**{**given, struct: given[struct]._replace(**{field: array})})


def test_read_only_results_are_refused() -> None:
    given = operands()
    given["found"].bracket.setflags(write=False)
    with pytest.raises(ValueError, match="not writeable"):
        certify(**given)
