"""LinearSVM and RBFSVM against scikit-learn's own fits, against differences, and against what they promise."""

from __future__ import annotations

import pickle
import threading
import time
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from support import close
from svm_cases import BOTH, BOTH_IDS, data

from mfakit._arrays.options import Options
from mfakit._arrays.rows import RowBlocks
from mfakit.classifiers import RBFSVM, LinearSVM
from mfakit.classifiers.svm import gram as _gram
from mfakit.classifiers.svm import kernel_machine as _kernel_products
from mfakit.classifiers.svm.gram import centered_gram, squared_distances

FIRST_OF_ALL = "mfakit promises a TypeError that names the dtype for all its array arguments"
# What scikit-learn expects and mfakit does otherwise, with the reason.
EXPECTED_FAILURES = {
    "check_complex_data": f"expects a ValueError for complex data; {FIRST_OF_ALL}",
    "check_dtype_object": f"expects object arrays to be converted; {FIRST_OF_ALL}",
}

MACHINES = [(LinearSVM, {"tol": 1e-9}, {"kernel": "linear", "tol": 1e-9}),
            (RBFSVM, {"gamma": "scale"}, {"kernel": "rbf"}),
            (RBFSVM, {"gamma": 0.02, "C": 3.0}, {"kernel": "rbf", "gamma": 0.02, "C": 3.0})]  # fmt: skip


@parametrize_with_checks(
    [LinearSVM(), RBFSVM(gamma="scale"), RBFSVM(accuracy_threshold=0.0, gammas=[0.1, 0.3], random_state=0)],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize(("ours", "parameters", "theirs"), MACHINES, ids=["linear", "rbf-scale", "rbf-number"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_scikit_learns_machine(ours: Any, parameters: Any, theirs: Any, dtype: Any) -> None:
    """The same support vectors and decision values, from a kernel matrix made by centred products."""
    X, y = data(dtype=dtype)
    svm, svc = ours(**parameters).fit(X, y), SVC(**theirs).fit(X.astype(np.float64), y)
    np.testing.assert_array_equal(svm.support_, svc.support_)
    Z = np.random.default_rng(1).normal(size=(50, 20))
    # libsvm holds kernels in float32: of inner products, which centring changes, other digits are lost.
    atol = 1e-4 if ours is LinearSVM else 1e-6
    close(svm.decision_function(Z), svc.decision_function(Z), atol=atol)
    np.testing.assert_array_equal(svm.predict(Z), svc.predict(Z))
    assert svm.support_vectors_.dtype == dtype
    np.testing.assert_array_equal(svm.support_vectors_, X[svm.support_])


@pytest.mark.parametrize("svm", BOTH, ids=BOTH_IDS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_gradients_are_those_of_differences(svm: Any, n_classes: int) -> None:
    X, y = data(n_classes=n_classes)
    svm = clone(svm).fit(X, y)
    Z, h = X[:7] + 0.1, 1e-5
    found = svm.decision_gradient(Z)
    assert found.shape == ((7, 20) if n_classes == 2 else (7, 3, 20))
    steps = h * np.eye(20)
    wanted = np.stack([(svm.decision_function(Z + e) - svm.decision_function(Z - e)) / (2 * h) for e in steps], axis=-1)
    close(found, wanted, atol=1e-8)


def test_the_expansion_is_the_sum_over_support_vectors() -> None:
    """Values and gradients by products against the loop that the formula is."""
    X, y = data()
    svm = RBFSVM(gamma=0.05).fit(X, y)
    for x in X[:5] + 0.2:
        difference = x - svm.support_vectors_
        a = svm.dual_coef_[0] * np.exp(-0.05 * (difference**2).sum(axis=1))
        close(svm.decision_function(x[None])[0], a.sum() + svm.intercept_[0], rtol=1e-11)
        close(svm.decision_gradient(x[None])[0], -0.1 * a @ difference, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("svm", BOTH, ids=BOTH_IDS)
def test_more_classes_are_each_against_the_rest(svm: Any) -> None:
    X, y = data(n_classes=3)
    together = clone(svm).fit(X, y)
    f = together.decision_function(X)
    assert f.shape == (len(X), 3)
    for c in range(3):
        alone = clone(svm).fit(X, y == c)
        close(f[:, c], alone.decision_function(X), atol=1e-12)
    np.testing.assert_array_equal(together.predict(X), f.argmax(axis=1))


@pytest.mark.parametrize("svm", BOTH, ids=BOTH_IDS)
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1e7), (2.0**-66, 0.0), (2.0**60, 0.0)])
def test_far_from_the_origin_and_at_any_scale(svm: Any, scale: float, shift: float) -> None:
    """Decisions do not depend on the origin; the RBF machine's not on the scale, nor the linear one's if C follows."""
    X, y = data()
    plain = clone(svm).fit(X, y)
    C = 1.0 if isinstance(svm, RBFSVM) else scale**-2
    moved = clone(svm).set_params(C=C).fit(scale * X + shift, y)
    f, g = plain.decision_function(X), moved.decision_function(scale * X + shift)
    # The solver's tolerance: moved by 1e7 the input itself is off by 1e-9, and its steps differ.
    close(g, f, atol=2e-3 if shift else 1e-9)
    assert np.isfinite(np.asarray(moved.decision_gradient(scale * X[:3] + shift))).all()


def test_products_are_centred() -> None:
    """1e6 away from the origin plain products would leave no digit of distances of 1e-4."""
    rng = np.random.default_rng(0)
    X = 1e6 + 1e-4 * rng.normal(size=(30, 8))
    rows = RowBlocks(X)
    center = X.mean(axis=0)
    D, _ = squared_distances(centered_gram(rows, center, Options(block_rows=7)), center)
    exact = ((X[:, None] - X[None]) ** 2).sum(axis=2)
    close(D, exact, rtol=1e-9, atol=1e-22)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize(("n", "d", "panel", "tile"), [(1, 3, 8, 4), (9, 8, 8, 4), (30, 17, 8, 7), (300, 5, 2, 256)])
def test_inner_products_in_panels(
    n: int, d: int, panel: int, tile: int, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = np.random.default_rng(n).integers(0, 200, size=(n, d)).astype(dtype)[:, ::-1]
    monkeypatch.setattr(_gram, "PANEL", panel)
    monkeypatch.setattr(_gram, "TILE", tile)
    monkeypatch.setattr(_gram, "HEIGHT", 2 * tile - 1)
    center = X.mean(axis=0, dtype=np.float64)
    gram = centered_gram(RowBlocks(X), center, Options(block_rows=7 if n == 30 else None))
    wide = X.astype(np.longdouble) - center
    close(gram, (wide @ wide.T).astype(np.float64), rtol=1e-12, atol=1e-9)
    np.testing.assert_array_equal(gram, gram.T)


def test_products_free_other_threads() -> None:
    """The interpreter runs on while BLAS computes: what SciPy's own wrapper would not allow."""
    A, out = np.random.default_rng(0).normal(size=(1500, 4000)), np.zeros((1500, 1500))
    product, turns = threading.Thread(target=_gram._add_products, args=(A, 0.0, out)), 0
    product.start()
    while product.is_alive():
        time.sleep(1e-3)
        turns += 1
    assert turns > 5
    close(np.tril(out), np.tril(A @ A.T), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("svm", BOTH, ids=BOTH_IDS)
def test_blocks_and_layouts_change_nothing(svm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data(dtype=np.float32)
    whole = clone(svm).fit(X, y)
    read_only = np.asfortranarray(X)
    read_only.flags.writeable = False
    parts = clone(svm).set_params(block_rows=7).fit(read_only, y)
    np.testing.assert_array_equal(parts.support_, whole.support_)
    close(parts.decision_function(X), whole.decision_function(X), np.float32, atol=1e-5)
    monkeypatch.setattr(_kernel_products, "KEEP_BYTES", 64 * 20 * 9)  # nine support vectors at a time
    again = pickle.loads(pickle.dumps(whole))
    close(again.decision_function(X), whole.decision_function(X), np.float32, rtol=1e-6, atol=1e-7)
    close(again.decision_gradient(X), whole.decision_gradient(X), np.float32, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("svm", BOTH, ids=BOTH_IDS)
def test_dtypes_containers_and_labels(svm: Any) -> None:
    torch = pytest.importorskip("torch")
    X, y = data(dtype=np.float32)
    names = np.array(["six", "zero"])[y]
    svm = clone(svm).fit(X, names)
    assert svm.classes_.tolist() == ["six", "zero"]
    assert svm.predict(X[:3]).tolist() == [["six", "zero"][int(v)] for v in svm.decision_function(X[:3]) > 0]
    assert svm.decision_function(X).dtype == svm.decision_gradient(X).dtype == np.float32
    assert svm.decision_function(X[:0]).shape == (0,)
    tensor = clone(svm).fit(torch.from_numpy(X), torch.from_numpy(y))
    assert isinstance(tensor.predict(torch.from_numpy(X)), torch.Tensor)
    assert tensor.score(torch.from_numpy(X), torch.from_numpy(y)) == svm.score(X, names)
