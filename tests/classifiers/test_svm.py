"""LinearSVM and RBFSVM against scikit-learn's own fits, against differences, and against what they promise."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import mfakit
from mfakit._arrays import RowBlocks
from mfakit._options import Options
from mfakit.classifiers import RBFSVM, LinearSVM, _kernel_products
from mfakit.classifiers._kernel_products import centered_gram, squared_distances
from mfakit.files import read_tensors, write_tensors

Array = NDArray[Any]

FIRST_OF_ALL = "mfakit promises a TypeError that names the dtype for all its array arguments"
# What scikit-learn expects and mfakit does otherwise, with the reason.
EXPECTED_FAILURES = {
    "check_complex_data": f"expects a ValueError for complex data; {FIRST_OF_ALL}",
    "check_dtype_object": f"expects object arrays to be converted; {FIRST_OF_ALL}",
}


@parametrize_with_checks(
    [LinearSVM(), RBFSVM(gamma="scale"), RBFSVM(accuracy_threshold=0.0, gammas=[0.1, 0.3], random_state=0)],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def data(n: int = 300, d: int = 20, n_classes: int = 2, dtype: Any = np.float64) -> tuple[Array, Array]:
    """Overlapping shells: neither machine is perfect, so that some coefficients are at C and some are not."""
    rng = np.random.default_rng(5)
    y = rng.integers(n_classes, size=n)
    X = rng.normal(size=(n, d)) * (1 + 0.3 * y[:, None]) + 0.3 * y[:, None]
    return X.astype(dtype), y


MACHINES = [(LinearSVM, {"tol": 1e-9}, {"kernel": "linear", "tol": 1e-9}),
            (RBFSVM, {"gamma": "scale"}, {"kernel": "rbf"}),
            (RBFSVM, {"gamma": 0.02, "C": 3.0}, {"kernel": "rbf", "gamma": 0.02, "C": 3.0})]  # fmt: skip
BOTH = [LinearSVM(), RBFSVM(gamma="scale")]
BOTH_IDS = ["linear", "rbf"]


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
    np.testing.assert_allclose(svm.decision_function(Z), svc.decision_function(Z), atol=atol)
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
    np.testing.assert_allclose(found, wanted, atol=1e-8)


def test_the_expansion_is_the_sum_over_support_vectors() -> None:
    """Values and gradients by products against the loop that the formula is."""
    X, y = data()
    svm = RBFSVM(gamma=0.05).fit(X, y)
    for x in X[:5] + 0.2:
        difference = x - svm.support_vectors_
        a = svm.dual_coef_[0] * np.exp(-0.05 * (difference**2).sum(axis=1))
        np.testing.assert_allclose(svm.decision_function(x[None])[0], a.sum() + svm.intercept_[0], rtol=1e-11)
        np.testing.assert_allclose(svm.decision_gradient(x[None])[0], -0.1 * a @ difference, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("svm", BOTH, ids=BOTH_IDS)
def test_more_classes_are_each_against_the_rest(svm: Any) -> None:
    X, y = data(n_classes=3)
    together = clone(svm).fit(X, y)
    f = together.decision_function(X)
    assert f.shape == (len(X), 3)
    for c in range(3):
        alone = clone(svm).fit(X, y == c)
        np.testing.assert_allclose(f[:, c], alone.decision_function(X), atol=1e-12)
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
    np.testing.assert_allclose(g, f, atol=2e-3 if shift else 1e-9)
    assert np.isfinite(np.asarray(moved.decision_gradient(scale * X[:3] + shift))).all()


def test_products_are_centred() -> None:
    """1e6 away from the origin plain products would leave no digit of distances of 1e-4."""
    rng = np.random.default_rng(0)
    X = 1e6 + 1e-4 * rng.normal(size=(30, 8))
    rows = RowBlocks(X)
    center = X.mean(axis=0)
    D, _ = squared_distances(centered_gram(rows, center, Options(block_rows=7)), center)
    exact = ((X[:, None] - X[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(D, exact, rtol=1e-9, atol=1e-22)


@pytest.mark.parametrize("svm", BOTH, ids=BOTH_IDS)
def test_blocks_and_layouts_change_nothing(svm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data(dtype=np.float32)
    whole = clone(svm).fit(X, y)
    read_only = np.asfortranarray(X)
    read_only.flags.writeable = False
    parts = clone(svm).set_params(block_rows=7).fit(read_only, y)
    np.testing.assert_array_equal(parts.support_, whole.support_)
    np.testing.assert_allclose(parts.decision_function(X), whole.decision_function(X), atol=1e-5)
    monkeypatch.setattr(_kernel_products, "KEEP_BYTES", 64 * 20 * 9)  # nine support vectors at a time
    again = pickle.loads(pickle.dumps(whole))
    np.testing.assert_allclose(again.decision_function(X), whole.decision_function(X), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(again.decision_gradient(X), whole.decision_gradient(X), rtol=1e-5, atol=1e-7)


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


# The path of γ


def rings(n: int = 400) -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(n, 2))
    X[:, 0] += 3 * rng.integers(2, size=n)
    return X, (np.abs(X[:, 0] - 1.5) < 1.5).astype(int)


def test_the_largest_accurate_gamma_is_found_and_the_path_is_kept() -> None:
    X, y = rings()
    svm = RBFSVM(accuracy_threshold=0.93, random_state=0, gammas=[30.0, 0.01, 0.3, 1.0, 300.0, 3000.0]).fit(X, y)
    path = svm.gamma_path_
    assert path.gammas.tolist() == [0.01, 0.3, 1.0, 30.0, 300.0, 3000.0]
    assert path.accuracy.shape == path.n_support.shape == path.mean_l2.shape == path.adversarial_accuracy.shape == (6,)
    good = path.accuracy >= 0.93
    assert 0 < good.sum() < 6
    assert svm.gamma_ == path.gamma == path.gammas[good].max()
    assert (path.n_support > 0).all()
    plain = RBFSVM(gamma=svm.gamma_).fit(X, y)
    np.testing.assert_array_equal(svm.decision_function(X), plain.decision_function(X))  # fitted to all samples again
    assert not hasattr(svm.set_params(gamma=1.0).fit(X, y), "gamma_path_")


def test_the_path_is_that_of_single_fits() -> None:
    """Accuracy and robustness of one γ, by scikit-learn and by the public attack on the same held-out samples."""
    from mfakit.classifiers._checks import as_generator
    from mfakit.classifiers._gamma_path import stratified_split

    X, y = rings()
    found = RBFSVM(accuracy_threshold=0.0, random_state=3, gammas=[0.5], n_attacked=15).fit(X, y).gamma_path_
    train, held = stratified_split(y, 0.2, as_generator(3))
    assert len(held) == pytest.approx(80, abs=1)
    assert not set(train) & set(held)
    single = RBFSVM(gamma=0.5).fit(X[train], y[train])
    assert found.accuracy[0] == single.score(X[held], y[held])
    assert found.n_support[0] == len(single.support_)
    step = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=2).sum() / (400 * 399)) / 100
    r = mfakit.attacks.gradient_attack(single, X[held][:15], y[held][:15], polish=True, step_size=step, max_steps=200)
    assert found.mean_l2[0] == pytest.approx(r.mean_l2, rel=1e-6)
    assert found.adversarial_accuracy[0] == r.adversarial_accuracy


def test_a_seed_is_enough_and_threads_change_nothing() -> None:
    X, y = rings()
    runs = [RBFSVM(accuracy_threshold=0.5, random_state=1, n_threads=t).fit(X, y) for t in (1, 3)]
    np.testing.assert_array_equal(runs[0].gamma_path_.accuracy, runs[1].gamma_path_.accuracy)
    assert runs[0].gamma_ == runs[1].gamma_
    assert len(runs[0].gamma_path_.gammas) == 17


def test_no_accurate_gamma_is_an_error_with_the_best_seen() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"^no γ of the path keeps a validation accuracy of 0.99: the best is 0\.\d+ "):
        RBFSVM(random_state=0, n_attacked=0).fit(rng.normal(size=(60, 3)), rng.integers(2, size=60))


# Bad input


@pytest.mark.parametrize("svm", BOTH, ids=BOTH_IDS)
@pytest.mark.parametrize(
    ("X", "y", "error", "match"),
    [
        (np.ones((6, 3)), [0, 1] * 3, ValueError, "all 6 rows of X are equal"),
        (np.eye(4), [1, 1, 1, 1], ValueError, "y has one class only, 1"),
        (np.full((4, 2), np.nan), [0, 1, 0, 1], ValueError, "X has NaN or inf, first in row 0"),
        (np.eye(4), [0, 1, 0], ValueError, "inconsistent numbers: 4 and 3"),
        (np.eye(4), None, ValueError, "requires y to be passed"),
        (np.eye(4) > 0, [0, 1, 0, 1], TypeError, "must be real numbers"),
        (1e200 * np.eye(4), [0, 1, 0, 1], ValueError, "too large for squared lengths"),
        (np.zeros((0, 3)), [], ValueError, r"0 sample\(s\)"),
    ],
)
def test_bad_samples_are_named(svm: Any, X: Any, y: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match), np.errstate(over="ignore"):
        clone(svm).fit(X, y)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"C": 0.0}, "C must be a positive"), ({"tol": np.nan}, "tol must be"), ({"max_iter": -2}, "max_iter must be"),
        ({"gamma": -1.0}, "gamma must be a positive"), ({"gamma": "auto"}, "gamma must be a positive number or one of"),
        ({"gammas": [1.0, 0.0]}, "gammas must be a sequence of positive"), ({"gammas": []}, "gammas must be"),
        ({"accuracy_threshold": 1.1}, "accuracy_threshold must be"), ({"n_attacked": 1.5}, "n_attacked must be"),
        ({"validation_share": 1.0}, "validation_share must be"), ({"n_threads": 0}, "n_threads must be"),
    ],
)  # fmt: skip
def test_bad_parameters_are_named(parameters: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        RBFSVM(**parameters).fit(*data())


@pytest.mark.parametrize("svm", BOTH, ids=BOTH_IDS)
def test_use_before_fit_and_with_other_widths(svm: Any) -> None:
    svm = clone(svm)
    for call in (svm.predict, svm.decision_function, svm.decision_gradient):
        with pytest.raises(NotFittedError):
            call(np.ones((2, 20)))
    with pytest.raises(NotFittedError):
        svm.save("nowhere.safetensors")
    svm.fit(*data())
    with pytest.raises(ValueError, match=r"X has 4 features, but .* is expecting 20"):
        svm.predict(np.ones((2, 4)))
    with pytest.raises(ValueError, match="first in row 1"):
        svm.decision_gradient(np.array([[0.0] * 20, [np.inf] * 20]))
    with pytest.raises(ValueError, match="at least one sample"):
        svm.score(np.ones((0, 20)), [])


def test_too_many_samples_are_refused_before_memory_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernel_products.os, "sysconf", lambda name: 1000)
    with pytest.raises(MemoryError, match="the kernel matrix of 400 samples takes"):
        LinearSVM().fit(*data(400))


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_is_heard_while_libsvm_runs() -> None:
    """Noise at a large C keeps libsvm busy for far longer than the promised half second."""
    code = (
        "import os, signal, threading, time, numpy as np\n"
        "from mfakit.classifiers import LinearSVM\n"
        "rng = np.random.default_rng(0)\n"
        "X, y = rng.normal(size=(1500, 30)), rng.integers(2, size=1500)\n"
        "def interrupt():\n"
        "    global sent\n"
        "    sent = time.perf_counter(); os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Timer(1.5, interrupt).start()\n"
        "svm = LinearSVM(C=1e6)\n"
        "try:\n"
        "    svm.fit(X, y)\n"
        "except KeyboardInterrupt:\n"
        "    print(time.perf_counter() - sent, hasattr(svm, 'support_'), flush=True); os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    seconds, fitted = done.stdout.split()
    assert float(seconds) < 0.5
    assert fitted == "False"


def test_a_solver_that_gives_up_says_so() -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        svm = RBFSVM(gamma=0.1, max_iter=3).fit(*data())
    assert svm.n_iter_.tolist() == [3]


def test_a_failed_fit_leaves_the_machine_as_it_was() -> None:
    X, y = data()
    svm = RBFSVM(gamma="scale").fit(X, y)
    before = svm.decision_function(X)
    with pytest.raises(ValueError, match="all 9 rows"):
        svm.fit(np.ones((9, 5)), [0, 1, 0] * 3)
    np.testing.assert_array_equal(svm.decision_function(X), before)


# Files


@pytest.mark.parametrize("svm", [LinearSVM(C=2.0), RBFSVM(accuracy_threshold=0.3, gammas=[0.01, 0.1], random_state=0)],
                         ids=BOTH_IDS)  # fmt: skip
@pytest.mark.parametrize("labels", [[4, 9], ["six", "zero"], [0, 1, 2]])
def test_save_and_load(svm: Any, labels: list[Any], tmp_path: Path) -> None:
    X, y = data(n_classes=len(labels), dtype=np.float32)
    svm = clone(svm).fit(X, np.array(labels)[y])
    svm.save(tmp_path / "svm.safetensors")
    again = mfakit.classifiers.load(tmp_path / "svm.safetensors")
    assert type(again) is type(svm)
    np.testing.assert_array_equal(again.decision_function(X), svm.decision_function(X))
    np.testing.assert_array_equal(again.decision_gradient(X), svm.decision_gradient(X))
    np.testing.assert_array_equal(again.predict(X), svm.predict(X))
    np.testing.assert_array_equal(again.support_, svm.support_)
    assert again.get_params() == svm.get_params()
    if isinstance(svm, RBFSVM):
        np.testing.assert_array_equal(again.gamma_path_.mean_l2, svm.gamma_path_.mean_l2)
        assert again.gamma_path_.gamma == again.gamma_ == svm.gamma_
    other = RBFSVM if isinstance(svm, LinearSVM) else LinearSVM
    with pytest.raises(ValueError, match=f"holds a {svm._kind}, not a {other._kind}"):
        other.load(tmp_path / "svm.safetensors")


def damaged(name: str, tensors: dict[str, Array], settings: dict[str, Any]) -> None:
    """Change what was read from a good file, by name."""
    changes = {
        "missing": lambda: tensors.pop("dual"),
        "nan": lambda: tensors.update(support_vectors=np.full_like(tensors["support_vectors"], np.inf)),
        "dual": lambda: tensors.update(dual=tensors["dual"][:, 1:]),
        "support": lambda: tensors.update(support=tensors["support"].astype(np.float64)),
        "none": lambda: tensors.update(support_vectors=tensors["support_vectors"][:0]),
        "flat": lambda: tensors.update(support_vectors=tensors["support_vectors"].ravel()),
        "intercept": lambda: tensors.update(intercept=np.zeros(7)),
        "gamma": lambda: settings.update(gamma=-1.0),
        "gamma word": lambda: settings.update(gamma="1e-3"),
        "classes": lambda: settings.update(classes=[1, 1]),
        "mixed classes": lambda: settings.update(classes=[1, "a"]),
        "three classes": lambda: settings.update(classes=[1, 2, 3]),
        "parameters": lambda: settings["parameters"].update(kernel="poly"),
        "no parameters": lambda: settings.pop("parameters"),
        "bad parameter": lambda: settings["parameters"].update(C="much"),
        "path": lambda: tensors.update({"path.accuracy": np.zeros(9)}),
        "chosen": lambda: settings.update(chosen=5),
    }
    changes[name]()


BAD_FILES = {
    "missing": "it lacks dual", "nan": "support_vectors has NaN or inf", "dual": r"dual must be float64 \[1, \d+\]",
    "support": "support must be int64", "none": "a machine has some", "flat": r"vectors must be .* \[any, any\]",
    "intercept": r"intercept must be float64 \[1\], got float64 \[7\]", "gamma": "gamma must be a positive number",
    "gamma word": "gamma must be a positive number", "classes": "its classes are not", "mixed classes": "its classes",
    "three classes": "dual must be", "parameters": "not the parameters of RBFSVM", "chosen": "chosen must be one of",
    "no parameters": "not the parameters", "bad parameter": "C must be a positive", "path": "path.accuracy must be",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_damaged_files_are_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "svm.safetensors"
    RBFSVM(accuracy_threshold=0.0, gammas=[0.01, 0.1], n_attacked=2).fit(*data()).save(path)
    tensors, settings = read_tensors(path, "rbf-svm")
    damaged(name, tensors, settings)
    write_tensors(path, "rbf-svm", tensors, settings)
    with pytest.raises(ValueError, match=f"svm.safetensors is not a valid rbf-svm: .*{BAD_FILES[name]}"):
        RBFSVM.load(path)


def test_a_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "svm.safetensors"
    LinearSVM().fit(*data()).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        LinearSVM.load(path)
    with pytest.raises(FileNotFoundError):
        LinearSVM.load(tmp_path / "none.safetensors")
