"""The gradient attack: against boundaries known in closed form, and against everything its docstring promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import close, parameters, random_mfa

import mfakit
from mfakit import _reference as reference
from mfakit.attacks import gradient_attack


def spheres(sigma: float = 0.1, gap: float = 2.0, d: int = 5) -> mfakit.BayesClassifier:
    """Theorem 1's case: the boundary is the plane x₀ = gap/2."""
    means = np.zeros((2, 1, d))
    means[1, 0, 0] = gap
    return mfakit.BayesClassifier([mfakit.MFA([1.0], m, np.zeros((1, d, 1)), sigma**2) for m in means])


def pair(d: int = 60, sigma: float = 0.02, **options: Any) -> mfakit.BayesClassifier:
    mixtures = [random_mfa(d=d, k=4, l=3, seed=s, spread=0.3, sigma=sigma, **options) for s in range(2)]
    return mfakit.BayesClassifier([m.replace(loadings=0.2 * m.loadings) for m in mixtures])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_spheres_are_fooled_at_their_plane(dtype: Any, backend: str) -> None:
    X, y = spheres().sample(40, rng=0, dtype=dtype)
    r = gradient_attack(spheres(), X, y, polish=True, backend=backend)
    assert r.success.all()
    close(r.l2, np.abs(X[:, 0].astype(float) - 1.0), rtol=1e-5 if dtype == np.float32 else 1e-10)
    assert r.x_adv.dtype == dtype
    assert r.mean_l2 == r.l2.mean()


def test_steps_are_counted_and_are_of_the_size_asked_for() -> None:
    X = np.zeros((1, 5))
    r = gradient_attack(spheres(), X, [0], step_size=0.3)
    assert r.n_steps.tolist() == [4]  # 0.9 is on this side of 1, 1.2 on the other
    np.testing.assert_allclose(r.l2, 1.2)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_it_takes_the_step_of_the_oracle(noise: str) -> None:
    """One step, with source, target and gradient from dense covariances."""
    clf = pair(noise=noise)
    X, y = clf.sample(20, rng=0, dtype=np.float64)
    logs = [reference.component_log_prob(X, *parameters(m)) for m in clf.mixtures]
    walk = gradient_attack(clf, X, y, step_size=1e3, max_steps=1)  # one huge step: its direction is (x_adv - x)/step
    moved = walk.success
    assert moved.any()
    for i in np.flatnonzero(moved):
        s, t = logs[y[i]][i].argmax(), logs[1 - y[i]][i].argmax()
        assert (walk.source[i], walk.target[i], walk.target_class[i]) == (s, t, 1 - y[i])
        g = 0
        for sign, c, j in ((1, 1 - y[i], t), (-1, y[i], s)):
            _, means, covariances = clf.mixtures[c].dense()
            g = g - sign * np.linalg.solve(covariances[j], X[i] - means[j])
        close(walk.x_adv[i] - X[i], 1e3 * g / np.linalg.norm(g), rtol=1e-7, atol=1e-6)


def test_theorem2_holds_for_every_sample() -> None:
    sym = pair().symmetric(0.01)
    X, y = sym.sample(100, rng=1)
    r = gradient_attack(sym, X, y, polish=True)
    own, other = mfakit.theory.own_and_other_distances(sym, X, y)
    assert r.success.all()
    assert (r.l2 >= (other - own) / 2).all()
    assert 1.0 < r.mean_l2 / (other.mean() / 2) < 1.3


def test_polish_makes_the_norm_independent_of_the_step() -> None:
    sym = pair().symmetric(0.01)
    X, y = sym.sample(30, rng=2, dtype=np.float64)
    coarse, fine = (gradient_attack(sym, X, y, polish=True, step_size=s) for s in (0.02, 0.01))
    rough = gradient_attack(sym, X, y, step_size=0.02)
    close(coarse.l2, fine.l2, rtol=0.03)
    assert (coarse.l2 <= rough.l2).all()
    assert (rough.l2 - coarse.l2 <= 0.02 + 1e-12).all()


def test_frozen_targets_miss_where_rechosen_ones_do_not() -> None:
    """With s and t frozen the walk is longer, or fails, on asymmetric models."""
    sym = pair().symmetric(0.01)
    asym = sym.asymmetric(direction=30)
    X, y = sym.sample(60, rng=3)
    rechosen = gradient_attack(asym, X, y, max_steps=400, step_size=0.05)
    frozen = gradient_attack(asym, X, y, max_steps=400, step_size=0.05, targets="frozen")
    assert rechosen.success.all()
    assert np.nansum(frozen.l2) + 20 * (~frozen.success).sum() >= np.nansum(rechosen.l2)
    assert frozen.settings["targets"] == "frozen"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_success_is_verified_on_what_is_returned(dtype: Any) -> None:
    asym = pair().symmetric(0.01).asymmetric(direction=30)
    X, y = asym.sample(80, rng=4, dtype=dtype)
    r = gradient_attack(asym, X, y, polish=True)
    logs = np.stack([reference.log_prob(r.x_adv.astype(float), *parameters(m)) for m in asym.mixtures], axis=1)
    # The oracle's Cholesky factors round at 1e-16 times a condition of 1e4 times log-densities of 1e5 nats.
    rows = np.flatnonzero(r.success)
    assert (logs[rows, r.y_adv[rows]] - logs[rows, y[rows]] > -1e-6).all()
    for batch in (X[:0], X[:3], X):
        again = asym.predict(np.concatenate([r.x_adv, batch]))[: len(X)]
        np.testing.assert_array_equal(again, r.y_adv)
    assert (r.y_adv != y)[r.success].all()
    close(r.l2[r.success], np.linalg.norm(r.x_adv.astype(float) - X, axis=1)[r.success], rtol=1e-14)
    np.testing.assert_array_equal(r.x_adv[~r.success], X[~r.success])
    assert np.isnan(r.l2[~r.success]).all()


def test_samples_that_are_wrong_are_left_alone_and_not_averaged() -> None:
    X = np.array([[0.0] * 5, [2.0, 0, 0, 0, 0], [0.9, 0, 0, 0, 0]])
    r = gradient_attack(spheres(), X, [0, 0, 0], polish=True)
    assert r.already_wrong.tolist() == [False, True, False]
    assert r.success.tolist() == [True, False, True]
    np.testing.assert_array_equal(r.x_adv[1], X[1])
    assert r.y_adv[1] == 1
    assert (r.n_steps[1], r.reason[1]) == (0, "already wrong")
    close(r.mean_l2, (1.0 + 0.1) / 2, rtol=1e-9)
    np.testing.assert_allclose([r.accuracy, r.success_rate, r.adversarial_accuracy], [2 / 3, 1, 0])


def test_the_papers_count_is_of_all_samples_and_of_an_attack_without_labels() -> None:
    """All three decisions change, which makes the wrong one right; ours counts none, because none stayed right."""
    X = np.array([[0.0] * 5, [2.0, 0, 0, 0, 0], [0.9, 0, 0, 0, 0]])
    with_labels, without = gradient_attack(spheres(), X, [0, 0, 0]), gradient_attack(spheres(), X)
    assert without.adversarial_accuracy_paper([0, 0, 0]) == pytest.approx(1 / 3) == 1 - with_labels.accuracy
    assert with_labels.adversarial_accuracy == 0.0
    with pytest.raises(ValueError, match=r"1 sample\(s\) were wrong already .*attack again without y"):
        with_labels.adversarial_accuracy_paper([0, 0, 0])
    with pytest.raises(ValueError, match="true classes of the 3 samples as integers"):
        without.adversarial_accuracy_paper([0, 0])
    unfinished = gradient_attack(spheres(), X, step_size=0.01, max_steps=1)
    assert unfinished.adversarial_accuracy_paper([0, 0, 0]) == pytest.approx(2 / 3)  # nothing has changed


def test_without_labels_the_predicted_classes_are_attacked() -> None:
    X, _ = spheres().sample(20, rng=0)
    r = gradient_attack(spheres(), X)
    np.testing.assert_array_equal(r.y, spheres().predict(X))
    assert r.success.all()


def test_running_out_of_steps_is_a_failure_that_returns_the_sample() -> None:
    X = np.zeros((2, 5))
    r = gradient_attack(spheres(), X, [0, 0], step_size=0.01, max_steps=5)
    assert not r.success.any()
    np.testing.assert_array_equal(r.x_adv, X)
    assert r.n_steps.tolist() == [5, 5]
    assert r.reason.tolist() == ["max_steps"] * 2
    assert np.isnan(r.l2).all()
    assert np.isnan(r.mean_l2)


def test_a_vanishing_gradient_is_a_failure_with_its_reason() -> None:
    """Two classes with the same mean and different radii: at the centre there is nowhere to go."""
    mixtures = [mfakit.MFA([1.0], np.zeros((1, 3)), np.zeros((1, 3, 0)), v) for v in (0.01, 1.0)]
    r = gradient_attack(mfakit.BayesClassifier(mixtures), np.zeros((1, 3)), [0])
    assert r.reason.tolist() == ["no gradient"]
    assert not r.success.any()


def test_a_samples_result_does_not_depend_on_its_batch() -> None:
    sym = pair().symmetric(0.01)
    X, y = sym.sample(24, rng=5, dtype=np.float64)
    whole = gradient_attack(sym, X, y, polish=True)
    for size in (1, 7):
        part = gradient_attack(sym, X, y, polish=True, block_rows=size)
        np.testing.assert_array_equal(part.n_steps, whole.n_steps)
        close(part.x_adv, whole.x_adv, rtol=1e-9, atol=1e-11)
    alone = gradient_attack(sym, X[3:4], y[3:4], polish=True)
    close(alone.x_adv, whole.x_adv[3:4], rtol=1e-9, atol=1e-11)


def test_three_classes() -> None:
    means = np.zeros((3, 1, 2))
    means[1, 0], means[2, 0] = (1.0, 0.0), (0.0, 3.0)
    clf = mfakit.BayesClassifier([mfakit.MFA([1.0], m, np.zeros((1, 2, 1)), 0.01) for m in means])
    r = gradient_attack(clf, np.zeros((1, 2)), [0], polish=True)
    assert r.y_adv.tolist() == [1]
    np.testing.assert_allclose(r.l2, 0.5, rtol=1e-9)


def test_bounds_keep_the_walk_inside() -> None:
    clf = spheres(gap=0.8)
    X = np.full((1, 5), 0.0)
    inside = gradient_attack(clf, X, [0], polish=True, bounds=(0.0, 1.0))
    assert inside.success.all()
    assert inside.x_adv.min() >= 0.0
    unfinished = gradient_attack(clf, X, [0], bounds=(-1.0, 0.2), max_steps=50)
    assert not unfinished.success.any()
    with pytest.raises(ValueError, match=r"within bounds \[0, 1\], got values from -0.5 .* in row 1"):
        gradient_attack(clf, np.array([[0.0] * 5, [-0.5, 0, 0, 0, 0]]), [0, 0], bounds=(0.0, 1.0))


class Linear:
    """A classifier that is no mixture: w · x + b."""

    classes_ = np.array([0, 1])
    w, b = np.array([3.0, 4.0]), -5.0

    def decision_function(self, X: Any) -> Any:
        return X @ self.w + self.b

    def decision_gradient(self, X: Any) -> Any:
        return np.tile(self.w, (len(X), 1))


def test_anything_with_a_decision_and_its_gradient_can_be_attacked() -> None:
    X = np.array([[0.0, 0.0], [2.0, 2.0]])
    r = gradient_attack(Linear(), X, [0, 1], polish=True)
    close(r.l2, [1.0, 9 / 5], rtol=1e-9)


def test_torch_in_torch_out() -> None:
    torch = pytest.importorskip("torch")
    X, y = spheres().sample(5, rng=0)
    r = gradient_attack(spheres(), torch.from_numpy(X), torch.from_numpy(y))
    assert isinstance(r.x_adv, torch.Tensor)
    np.testing.assert_array_equal(r.x_adv.numpy(), gradient_attack(spheres(), X, y).x_adv)


def test_no_samples() -> None:
    r = gradient_attack(spheres(), np.zeros((0, 5), np.float32), np.zeros(0, int))
    assert r.x_adv.shape == (0, 5)
    assert len(r) == 0
    assert np.isnan(r.mean_l2)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"clf": object()}, TypeError, "object is not recognised as a linear classifier"),
        ({"X": np.full((1, 5), np.nan)}, ValueError, "X has NaN or inf, first in row 0"),
        ({"X": np.zeros((1, 4))}, ValueError, r"\[n, 5\]"),
        ({"y": [2]}, ValueError, "classes 0 to 1"),
        ({"y": [0, 1]}, ValueError, "one label per sample"),
        ({"step_size": 0.0}, ValueError, "step_size must be a positive"),
        ({"step_size": np.nan}, ValueError, "step_size must be a positive"),
        ({"max_steps": 0}, ValueError, "max_steps"),
        ({"targets": "other"}, ValueError, "targets must be one of"),
        ({"path": "other"}, ValueError, "path must be one of"),
        ({"bounds": (1.0, 0.0)}, ValueError, "low < high"),
        ({"unknown": 1}, TypeError, "unknown"),
    ],
)
def test_bad_input_says_what_is_wrong(changes: dict[str, Any], error: type[Exception], match: str) -> None:
    arguments: dict[str, Any] = {"clf": spheres(), "X": np.zeros((1, 5)), "y": [0]} | changes
    with pytest.raises(error, match=match):
        gradient_attack(**arguments)


def test_a_class_of_prior_zero_does_not_stand_in_the_way() -> None:
    """Its score is -inf, which once made every flip unsure."""
    clf = mfakit.BayesClassifier([random_mfa(2, 8, 2, seed=s, spread=0.6) for s in (1, 2, 3)], [0.5, 0.5, 0.0])
    X, y = clf.sample(10, rng=0, dtype=np.float64)
    for path in ("factor", "features"):
        r = gradient_attack(clf, X, y, step_size=0.1, path=path)
        assert r.success[~r.already_wrong].all()
        assert (r.y_adv[r.success] != 2).all()


@pytest.mark.parametrize("path", ["factor", "features"])
def test_a_flip_is_sure_beyond_the_rounding_of_the_scores(path: str) -> None:
    """Bisection ends nearer to the boundary than that: the point is moved on until no other batch can deny the flip."""
    clf = mfakit.BayesClassifier([mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 0)), 1e-4) for m in (-1.0, 1.0)])
    X, y = clf.sample(20, rng=0, dtype=np.float64)
    r = gradient_attack(clf, X, y, polish=True, step_size=0.05, path=path)
    assert r.success.all()
    scores = clf.class_log_prob(r.x_adv)
    margin = scores[np.arange(20), r.y_adv] - scores[np.arange(20), y]
    assert (margin > 0.9e-12 * np.abs(scores).max(axis=1)).all()
