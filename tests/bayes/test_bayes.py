"""BayesClassifier: decisions against the oracle, its variants, its samples, and what it refuses."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp
from support import close, parameters, random_mfa

import mfakit
from mfakit import _reference as reference
from mfakit.bayes.outliers import outlier_step, principal_step


def classifier(n_classes: int = 2, priors: Any = None, **options: Any) -> mfakit.BayesClassifier:
    return mfakit.BayesClassifier([random_mfa(seed=s, **options) for s in range(n_classes)], priors)


def joint(clf: mfakit.BayesClassifier, X: np.ndarray) -> np.ndarray:
    logs = [np.log(p) + reference.log_prob(X, *parameters(m)) for p, m in zip(clf.priors, clf.mixtures, strict=True)]
    return np.stack(logs, axis=1)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_two_classes_against_the_oracle(noise: str) -> None:
    clf = classifier(priors=[0.3, 0.7], noise=noise)
    X, _ = clf.sample(60, rng=0, dtype=np.float64)
    logs = joint(clf, X)
    close(clf.decision_function(X), logs[:, 1] - logs[:, 0], rtol=1e-10)
    np.testing.assert_array_equal(clf.predict(X), logs.argmax(axis=1))
    expected = logs - logsumexp(logs, axis=1, keepdims=True)
    close(clf.predict_log_proba(X), expected, rtol=1e-9, atol=1e-12)
    close(clf.predict_proba(X), np.exp(expected), atol=1e-12)
    gradients = [reference.grad_log_prob(X, *parameters(m)) for m in clf.mixtures]
    close(clf.decision_gradient(X), gradients[1] - gradients[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_missing_features_leave_the_classifier_of_the_others(n_classes: int) -> None:
    clf = mfakit.BayesClassifier([random_mfa(seed=s, k=s + 2, l=s + 1) for s in range(n_classes)])
    X, y = clf.sample(30, rng=0, dtype=np.float64)
    missing = np.random.default_rng(0).uniform(size=X.shape) < 0.4
    missing[:, 0] &= ~missing.all(axis=1)
    gaps = np.where(missing, np.nan, X)
    how: dict[str, Any] = {"missing": "marginal"}
    marginals = [
        mfakit.BayesClassifier([m.marginal(~gap) for m in clf.mixtures], clf.priors) for gap in missing
    ]  # fmt: skip
    rows = [(its, x[None, ~gap]) for its, x, gap in zip(marginals, X, missing, strict=True)]
    for name in ("class_log_prob", "decision_function", "predict_proba", "predict_log_proba"):
        expected = np.concatenate([getattr(its, name)(x) for its, x in rows])
        close(getattr(clf, name)(gaps, **how), expected, rtol=1e-9, atol=1e-9)
    predicted = clf.predict(gaps, **how)
    np.testing.assert_array_equal(predicted, np.concatenate([its.predict(x) for its, x in rows]))
    assert clf.score(gaps, y, **how) == (predicted == y).mean()
    assert clf.class_log_prob(gaps.astype(np.float32), **how).dtype == np.float64
    with pytest.raises(ValueError, match=r"missing must be .*'marginal'"):
        clf.predict(gaps, missing="drop")  # type: ignore[arg-type]


def test_far_samples_with_missing_features_are_decided_by_differences() -> None:
    means = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    clf = mfakit.BayesClassifier([mfakit.MFA([1.0], m[None], np.zeros((1, 3, 1)), 1.0) for m in means])
    X = np.array([[0.3, 1e9, np.nan], [-0.3, np.nan, 1e10], [0.1, np.nan, 1e12]])
    close(clf.decision_function(X, missing="marginal"), -2 * X[:, 0], rtol=1e-6)


def test_three_classes_of_different_ranks() -> None:
    clf = mfakit.BayesClassifier([random_mfa(seed=s, k=s + 2, l=s + 1) for s in range(3)])
    X, y = clf.sample(80, rng=0, dtype=np.float64)
    logs = joint(clf, X)
    close(clf.decision_function(X), logs, rtol=1e-10)
    assert clf.decision_gradient(X).shape == (80, 3, 12)
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1.0)
    assert clf.score(X, y) == (logs.argmax(axis=1) == y).mean()


def test_float32_decides_as_float64() -> None:
    """The two classes' log-densities differ by 1e5 nats and cancel near the boundary: float32 may round the result
    only."""
    clf = classifier(d=200, sigma=0.05).symmetric(0.01)
    X, _ = clf.sample(50, rng=0)
    exact = clf.decision_function(X.astype(np.float64))
    close(clf.decision_function(X), exact, np.float32, rtol=1e-5)
    assert clf.decision_function(X).dtype == np.float32


def test_a_class_without_prior_is_never_predicted() -> None:
    clf = classifier(priors=[1.0, 0.0])
    X, y = clf.sample(50, rng=0)
    assert not clf.predict(X).any()
    assert not y.any()
    np.testing.assert_array_equal(clf.predict_proba(X)[:, 1], 0.0)


def test_samples_follow_the_priors_and_the_seed() -> None:
    clf = classifier(priors=[0.2, 0.8])
    X, y = clf.sample(2000, rng=7)
    assert abs(y.mean() - 0.8) < 4 * np.sqrt(0.16 / 2000)
    again, labels = clf.sample(2000, rng=7)
    np.testing.assert_array_equal(X, again)
    np.testing.assert_array_equal(y, labels)
    assert np.bincount(clf.sample(11, rng=0, balanced=True)[1]).tolist() == [6, 5]
    assert clf.sample(0)[0].shape == (0, 12)


def test_symmetric_has_one_sigma_and_uniform_weights() -> None:
    clf = classifier(noise="diagonal")
    sym = clf.symmetric(0.02)
    for before, m in zip(clf.mixtures, sym.mixtures, strict=True):
        np.testing.assert_allclose(m.noise_variance, 0.02**2)
        np.testing.assert_allclose(m.weights, 1 / m.n_components)
        np.testing.assert_array_equal(m.loadings, before.loadings)
    np.testing.assert_array_equal(
        clf.symmetric(0.02, uniform_weights=False).mixtures[0].weights, clf.mixtures[0].weights
    )


def test_asymmetric_adds_one_outlier_per_class() -> None:
    sym = classifier(d=60, k=3).symmetric(0.01)
    mean, step = outlier_step(sym, None, 20)
    asym = sym.asymmetric(direction=20, scale=2.0, sigma=0.4)
    for sign, m in zip((1, -1), asym.mixtures, strict=True):
        assert m.n_components == 4
        close(m.weights, [0.25] * 4)
        close(m.means[-1], mean + sign * 2.0 * step)
        assert not m.loadings[-1].any()
        close(m.noise_variance[-1], 0.16)


def test_the_outliers_step_is_a_principal_direction_of_the_data() -> None:
    clf = classifier(d=20, k=3)
    X, _ = clf.sample(400, rng=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    mean, step = principal_step(X, 5)
    close(mean, X.mean(axis=0), atol=1e-12)
    close(np.linalg.norm(step), np.sqrt(values[-5]), rtol=1e-10)
    close(abs(step @ vectors[:, -5]), np.linalg.norm(step), rtol=1e-10)
    wide, _ = principal_step(X[:10], 3), None  # fewer samples than features goes by the Gram matrix
    small = np.linalg.eigh(np.cov(X[:10].T, bias=True))
    close(np.linalg.norm(wide[1]), np.sqrt(small[0][-3]), rtol=1e-9)


def test_the_mixtures_own_moments_are_those_of_their_samples() -> None:
    clf = classifier(d=20, k=3)
    from_samples = principal_step(clf.sample(200_000, rng=0)[0], 2)
    from_moments = outlier_step(clf, None, 2)
    close(from_moments[0], from_samples[0], atol=0.05)
    close(from_moments[1], from_samples[1], atol=0.05)


def test_large_models_take_the_iterative_eigensolver() -> None:
    clf = classifier(d=2100, k=3, l=2)
    F = np.hstack([np.sqrt(w / 2) * A for m in clf.mixtures for w, A in zip(m.weights, m.loadings, strict=True)])
    mean, step = outlier_step(clf, None, 3)
    centered = [np.sqrt(m.weights / 2)[:, None] * (m.means - mean) for m in clf.mixtures]
    F = np.hstack([F, np.concatenate(centered).T])
    noise = sum(m.weights @ m.noise_variance / 2 for m in clf.mixtures)
    expected = np.linalg.svd(F, compute_uv=False)[2] ** 2 + noise
    close(step @ step, expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: mfakit.BayesClassifier([random_mfa()]), ValueError, "at least two"),
        (lambda: mfakit.BayesClassifier([random_mfa(), "mfa"]), TypeError, "MFA objects"),
        (lambda: mfakit.BayesClassifier([random_mfa(), random_mfa(d=5)]), ValueError, r"features, got \[12, 5\]"),
        (lambda: classifier(priors=[0.5, 0.6]), ValueError, "sum to 1"),
        (lambda: classifier(priors=[0.5]), ValueError, "2 non-negative numbers"),
        (lambda: classifier(priors=[np.nan, 1]), ValueError, "non-negative"),
        (lambda: classifier().symmetric(0.0), ValueError, "sigma must be positive.*subspace_distances"),
        (lambda: classifier().symmetric(-1.0), ValueError, "sigma must be positive"),
        (lambda: classifier().asymmetric(sigma=0.0, direction=3), ValueError, "sigma must be positive"),
        (lambda: classifier().asymmetric(), ValueError, "direction must be an integer of at most 12, got 50"),
        (lambda: classifier(3).asymmetric(direction=3), ValueError, "two classes, got 3"),
        (lambda: classifier().asymmetric(np.zeros((2, 12)), direction=3), ValueError, "too few"),
        (lambda: classifier().score(np.zeros((2, 12)), [0, 2]), ValueError, "classes 0 to 1 .* got values 0, 2"),
        (lambda: classifier().score(np.zeros((2, 12)), [0.5, 1]), ValueError, "classes 0 to 1"),
        (lambda: classifier().score(np.zeros((2, 12)), [0]), ValueError, "one label per sample"),
        (lambda: classifier().score(np.zeros((0, 12)), []), ValueError, "at least one sample"),
        (lambda: classifier().predict(np.zeros((2, 5))), ValueError, r"\[n, 12\].*got \(2, 5\)"),
        (lambda: classifier().sample(-1), ValueError, "n must be an integer of at least 0"),
    ],
)
def test_bad_input_says_what_is_wrong(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_what_is_no_mixture_prior_or_label() -> None:
    clf, X = classifier(), np.zeros((2, 12))
    for bad in (clf.mixtures[0], None, 3):
        with pytest.raises(TypeError, match="mixtures must be a sequence of MFA objects, one a class"):
            mfakit.BayesClassifier(bad)
    for priors in ("ab", [0.5j, 0.5], [None, 1.0]):
        with pytest.raises(TypeError, match="priors must be real numbers, got dtype"):
            mfakit.BayesClassifier(clf.mixtures, priors)
    for labels, got in (
        ([None, None], "None"),
        (["a", "b"], "a, b"),
        ([0, 7], "0, 7"),
        ([0.5, 0.0], "0.0, 0.5"),
        ([np.nan, 0], "0.0, nan"),
    ):
        with pytest.raises(ValueError, match=f"y must hold the classes 0 to 1 of this classifier, got values {got}"):
            clf.score(X, labels)
    with pytest.raises(ValueError, match="check_finite must be True or False, got 'no'"):
        clf.predict(X, check_finite="no")
    attacked = mfakit.attacks.gradient_attack(clf, X)
    with pytest.raises(TypeError, match="an attack is graded by a MinimalResult, got a AttackResult"):
        attacked.grade(attacked)


@pytest.mark.parametrize("sigma", [0, -1.0, np.nan, np.inf, "0.1", None, True, [0.1], 1e-200])
def test_a_sigma_that_is_no_positive_number_is_named(sigma: Any) -> None:
    for variant in (lambda s: classifier().symmetric(s), lambda s: classifier().asymmetric(sigma=s, direction=1)):
        with pytest.raises(ValueError, match="sigma must be positive"):
            variant(sigma)


def test_numbers_of_any_width_are_numbers() -> None:
    for sigma in (np.float32(0.25), np.float16(0.25), np.array(0.25)):
        assert classifier().symmetric(sigma).mixtures[0].noise_variance[0] == 0.0625
    assert classifier().asymmetric(scale=np.float16(2), sigma=np.float32(0.5), direction=1).n_features
    for scale in (np.nan, np.inf, "1", None):
        with pytest.raises(ValueError, match="scale must be a finite number"):
            classifier().asymmetric(scale=scale, direction=1)


def test_extras_and_labels_of_other_kinds() -> None:
    with pytest.raises(TypeError, match="extras must be a mapping"):
        mfakit.BayesClassifier(classifier().mixtures, extras=[1.0])  # type: ignore[arg-type]
    clf = classifier()
    X, y = clf.sample(20, rng=0)
    assert clf.score(X, y.astype(object)) == clf.score(X, y)
    with pytest.raises(ValueError, match="got values 0, 1"):
        clf.score(X, y.astype(str))


def test_metadata_is_what_json_gives_back(tmp_path: Path) -> None:
    clf = classifier().replace(metadata={"source": {"pair": (0, 6)}, "σ": 0.01})
    clf.save(tmp_path / "pair")
    for model in (
        clf,
        mfakit.BayesClassifier.load(tmp_path / "pair"),
        clf.symmetric(0.1),
        pickle.loads(pickle.dumps(clf)),
    ):
        assert model.metadata == {"source": {"pair": [0, 6]}, "σ": 0.01}
    model.metadata["source"]["pair"].append(1)
    assert model.metadata["source"] == {"pair": [0, 6]}
    assert classifier().metadata == {}
    for bad, match in ((3, "must be a mapping"), ({"a": object()}, "what JSON can hold"), ({"a": np.nan}, "JSON")):
        with pytest.raises(TypeError, match=match):
            classifier().replace(metadata=bad)
