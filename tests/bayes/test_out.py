"""``out`` of a classifier's functions, where it is refused, and arguments that are no count or length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import close, random_mfa, rtol

import mfakit
from mfakit import bench
from mfakit.attacks import gradient_attack, minimal_perturbation

# By function: the shape of the result after [n], for 2 and 3 classes of 7 features.
SHAPES: dict[str, dict[int, tuple[int, ...]]] = {
    "decision_function": {2: (), 3: (3,)},
    "decision_gradient": {2: (7,), 3: (3, 7)},
    "predict_log_proba": {2: (2,), 3: (3,)},
    "predict_proba": {2: (2,), 3: (3,)},
}
DTYPES = [np.float32, np.float64]


def classifier(n_classes: int = 2, scale: float = 1.0) -> mfakit.BayesClassifier:
    mixtures = [random_mfa(3, 7, 2, seed=seed, spread=0.7) for seed in range(n_classes)]
    return mfakit.BayesClassifier(
        [
            m.replace(
                means=scale * m.means, loadings=scale * m.loadings, noise_variance=scale * m.noise_variance * scale
            )
            for m in mixtures
        ]
    )


def samples(clf: mfakit.BayesClassifier, dtype: Any = np.float64) -> Any:
    return clf.sample(23, rng=3, dtype=dtype)[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("function", SHAPES)
def test_the_result_is_written_to_out(function: str, n_classes: int, dtype: Any, backend: str) -> None:
    clf = classifier(n_classes)
    X = samples(clf, dtype)
    call, shape = getattr(clf, function), (len(X), *SHAPES[function][n_classes])
    expected = call(X, backend=backend)
    assert (expected.shape, expected.dtype) == (shape, dtype)
    buffer = np.full((2 * shape[0], *shape[1:]), np.nan, dtype)
    out = buffer[::2]  # strided
    assert call(X, out=out, backend=backend, block_rows=5) is out
    largest = float(np.abs(expected).max())
    close(out, expected, dtype, rtol=10 * rtol(dtype), atol=10 * rtol(dtype) * largest)
    assert np.isnan(buffer[1::2]).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_class_log_prob_is_float64_in_out_too(n_classes: int) -> None:
    clf = classifier(n_classes)
    X = samples(clf, np.float32)
    out = np.empty((len(X), n_classes))
    assert clf.class_log_prob(X, out=out) is out
    np.testing.assert_array_equal(out, clf.class_log_prob(X))
    with pytest.raises(ValueError, match="out must be"):
        clf.class_log_prob(X, out=out.astype(np.float32))


@pytest.mark.parametrize("function", SHAPES)
def test_another_shape_or_dtype_is_refused_before_any_work(function: str) -> None:
    clf = classifier()
    X = samples(clf)
    for out in (np.empty((1, 2, 3)), np.empty((len(X), *SHAPES[function][2]), np.float32)):
        with pytest.raises(ValueError, match="out must be"):
            getattr(clf, function)(X, out=out)


def test_a_torch_tensor_takes_the_result() -> None:
    torch = pytest.importorskip("torch")
    clf = classifier()
    X = torch.from_numpy(samples(clf))
    out = torch.empty(len(X), dtype=torch.float64)
    assert clf.decision_function(X, out=out) is out
    np.testing.assert_array_equal(out.numpy(), clf.decision_function(X.numpy()))


@pytest.mark.parametrize("function", ["predict", "gradient_attack", "minimal_perturbation"])
def test_no_out_where_the_result_is_made_anew(function: str) -> None:
    clf = classifier()
    X = samples(clf)
    calls = {
        "predict": clf.predict,
        "gradient_attack": lambda X, out: gradient_attack(clf, X, out=out),
        "minimal_perturbation": lambda X, out: minimal_perturbation(clf, X, out=out),
    }
    with pytest.raises(TypeError, match=f"{function} takes no out"):
        calls[function](X, out=np.empty(len(X)))


def test_a_gradient_of_many_classes_holds_one_block_beside_it() -> None:
    import tracemalloc

    clf, n = classifier(3), 40_000
    X = np.tile(samples(clf), (n // 23 + 1, 1))[:n]
    out = np.empty((n, 3, 7))
    tracemalloc.start()
    try:
        clf.decision_gradient(X, out=out, block_rows=512)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < out.nbytes / 4


def test_counts_are_counts() -> None:
    clf = classifier()
    X = samples(clf)
    for name in ("block_rows", "n_threads"):
        for value in (0, -1, 1.0, True, 2**31, "2"):
            with pytest.raises(ValueError, match=f"{name} must be an integer of at (least 1|most 2147483647), or None"):
                clf.predict(X, **{name: value})
        clf.predict(X, **{name: np.int64(2)})
    clf.predict(X, n_threads=2**31 - 1)  # as many as the machine can use
    for steps in (0, True, 2.0, 2**31, "many"):
        with pytest.raises(ValueError, match="max_steps must be an integer of at"):
            gradient_attack(clf, X, max_steps=steps)
    for length in (0, -1.0, np.inf, np.nan, True, "0.1", None, [0.1]):
        with pytest.raises(ValueError, match="step_size must be a positive number"):
            gradient_attack(clf, X, step_size=length)


def test_samples_and_noise_within_what_can_be() -> None:
    clf = classifier()
    for draw in (clf.sample, clf.mixtures[0].sample):
        for n in (-1, 1.0, True, 10**30, "5", None):
            with pytest.raises(ValueError, match="n must be an integer of at"):
                draw(n)
        assert len(draw(np.int64(3), rng=0)[0]) == 3
    for sigma in (0.0, -1.0, 1e-200, 1e200, np.inf, np.nan):
        with pytest.raises(ValueError, match="sigma must be positive, a number from 1e-150 to 1e150, got"):
            clf.symmetric(sigma)
    for rounds in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="rounds must be an integer of at least 1, got"):
            bench.run("numpy", "tiny", rounds)


def test_numpy_scalars_are_numbers() -> None:
    clf = classifier()
    X = samples(clf)
    expected = gradient_attack(clf, X, step_size=0.0625, max_steps=500)
    assert expected.success.any()
    found = gradient_attack(clf, X, step_size=np.float32(0.0625), max_steps=np.int16(500))
    np.testing.assert_array_equal(found.x_adv, expected.x_adv)


def test_priors_in_float32_sum_to_one() -> None:
    mixtures = classifier(3).mixtures
    priors = np.full(3, 1 / 3, np.float32)
    clf = mfakit.BayesClassifier(mixtures, priors)
    assert abs(clf.priors.sum() - 1) <= 1e-15
    assert len(clf.sample(5, rng=0)[0]) == 5


def test_mixtures_on_two_devices_are_named() -> None:
    first, second = classifier().mixtures
    with pytest.raises(ValueError, match=r"mixtures\[0\] is on the host and mixtures\[1\] on cuda:0"):
        mfakit.BayesClassifier([first, second._placed("cuda:0")])


def test_a_model_that_is_there_already_is_not_copied() -> None:
    clf = classifier()
    assert clf.to("cpu") is clf
    assert clf.mixtures[0].to("cpu") is clf.mixtures[0]


@pytest.mark.parametrize("path", ["factor", "features"])
@pytest.mark.parametrize("scale", [1e-58, 1e58])
def test_certificates_at_the_ends_of_their_range(scale: float, path: str) -> None:
    unscaled, clf = classifier(), classifier(scale=scale)
    X = samples(unscaled)[:4]
    expected = minimal_perturbation(unscaled, X, path=path)
    found = minimal_perturbation(clf, X * scale, path=path)
    close(found.lower / scale, expected.lower, rtol=1e-9)
    close(found.upper / scale, expected.upper, rtol=1e-8)


@pytest.mark.parametrize("function", ["log_prob", "grad_log_prob", "reconstruct"])
def test_out_has_memory_of_its_own(function: str) -> None:
    """X is read again, by the refinement, when results have been written."""
    mfa = random_mfa(3, 7, 2)
    store = np.zeros((40, 7))
    store[:20] = mfa.sample(20, rng=0, dtype=np.float64)[0]
    expected = getattr(mfa, function)(store[:20])
    outs = {1: store[10:30, 0], 2: store[10:30]}
    with pytest.raises(ValueError, match="out shares memory with X"):
        getattr(mfa, function)(store[:20], out=outs[expected.ndim])
    interleaved = np.zeros((40, 7))
    interleaved[::2] = store[:20]
    out = {1: interleaved[1::2, 0], 2: interleaved[1::2]}[expected.ndim]
    np.testing.assert_array_equal(getattr(mfa, function)(interleaved[::2], out=out), expected)


def test_out_is_an_array() -> None:
    clf = classifier()
    with pytest.raises(TypeError, match="out must be a NumPy or CuPy array or a torch tensor, got a list"):
        clf.decision_function(samples(clf), out=[0.0] * 23)


def test_a_sample_whose_squares_leave_float64_belongs_to_the_likelier_class() -> None:
    clf = classifier()
    far, less_far = (np.full((2, 7), length) for length in (1e200, 1e100))
    decision = clf.decision_function(far)
    np.testing.assert_array_equal(np.isinf(decision), True)
    np.testing.assert_array_equal(np.sign(decision), np.sign(clf.decision_function(less_far)))
    np.testing.assert_array_equal(clf.predict_proba(far)[:, 1], decision > 0)
    np.testing.assert_array_equal(mfakit.point_subspace_distances(far, clf.mixtures[0]), np.full((2, 3), np.inf))
    twins = mfakit.BayesClassifier([clf.mixtures[0], clf.mixtures[0].replace()])
    np.testing.assert_array_equal(twins.decision_function(far), [0.0, 0.0])
    np.testing.assert_array_equal(twins.predict_proba(far), np.full((2, 2), 0.5))


@pytest.mark.parametrize("attack", [gradient_attack, minimal_perturbation])
def test_infinite_samples_that_were_let_in_fail_alone(attack: Any) -> None:
    clf = classifier()
    X = samples(clf)
    alone = attack(clf, X)
    X[1, 2], X[3, 0] = np.inf, np.nan
    found = attack(clf, X, check_finite=False)
    bad = np.isin(np.arange(len(X)), [1, 3])
    assert not found.success[bad].any()
    assert np.isnan(found.l2[bad]).all()
    np.testing.assert_array_equal(found.x_adv[~bad], alone.x_adv[~bad])


@pytest.mark.parametrize("scale", [1e-61, 1e61])
def test_no_certificates_beyond_their_range(scale: float) -> None:
    clf = classifier(scale=scale)
    with pytest.raises(ValueError, match="certificates need noise of at least 1e-60 and lengths of at most 1e\\+60"):
        minimal_perturbation(clf, samples(classifier())[:4] * scale)
