"""The compiled searches for multipliers against the readable ones, closed forms and dense matrices."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
from minimal_cases import diagonal_classifier, in_features, spheres
from scaled_models import scaled_classifier
from support import close, random_mfa

import mfakit
from mfakit.attacks import minimal_perturbation
from mfakit.attacks.minimal.box import Box, BoxLagrangian
from mfakit.attacks.minimal.components import Components
from mfakit.attacks.minimal.duals import CompiledDuals, Duals, Problem
from mfakit.attacks.minimal.lagrangian import Lagrangian
from mfakit.attacks.minimal.sample import Sample
from mfakit.backends import why_missing

pytestmark = pytest.mark.skipif(why_missing("native") is not None, reason=f"compiled: {why_missing('native')}")

Array = Any
ONE = np.ones(1)


def both(clf: mfakit.BayesClassifier, x: Array, box: Box | None = None) -> tuple[Duals, Duals]:
    sample = Sample(Components(clf), np.asarray(x, np.float64))
    return Duals(sample, box), CompiledDuals(sample, box)


def case(kind: str, seed: int) -> tuple[mfakit.BayesClassifier, Array]:
    """A classifier of 30 features whose noise is isotropic, diagonal, or diagonal over twelve orders of magnitude."""
    rng = np.random.default_rng(seed)
    if kind == "isotropic":
        clf = mfakit.BayesClassifier([random_mfa(k=3, d=30, l=2, sigma=0.3, seed=10 * seed + c) for c in range(3)])
    else:
        clf = diagonal_classifier(seed, k=3, d=30, l=2, n_classes=3)
    if kind == "badly scaled":
        scales = 10.0 ** rng.uniform(-6, 6, 30)
        clf = mfakit.BayesClassifier([m.replace(noise_variance=m.noise_variance * scales) for m in clf.mixtures])
    return clf, clf.mixtures[0].means[0] + 0.1 * rng.normal(size=30)


def problems(seed: int) -> list[tuple[Problem, Array]]:
    """One source; several; a mixed target; sources of two classes, as for a flip to the third; as for a point."""
    mixed = np.array([0.6, 0.4])
    return [
        (Problem([3 + seed % 3], ONE, 0.5, [0]), ONE),
        (Problem([4], ONE, 1.0, [0, 1, 2]), np.array([0.9, 0.06, 0.04])),
        (Problem([3, 5], mixed, 0.7, [0, 2]), mixed),
        (Problem([6], ONE, 0.3, [0, 3, 1]), np.array([0.5, 0.3, 0.2])),
        (Problem([3, 4], mixed, 0.2, [0, 1], safe=False), mixed),
    ]


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "badly scaled"])
def test_they_find_what_the_readable_ones_find(kind: str, boxed: bool) -> None:
    proved = 0
    for seed in range(2):
        clf, x = case(kind, seed)
        rng = np.random.default_rng(seed)
        box = Box(x, x - rng.uniform(0.5, 2.0, 30), x + rng.uniform(0.5, 4.0, 30)) if boxed else None
        readable, compiled = both(clf, x, box)
        for problem, theta in problems(seed):
            for search in ("nearest", "maximise"):
                a, b = (getattr(duals, search)(problem, theta) for duals in (readable, compiled))
                # Steps in θ end where they differ by roundings, and in a box where a minimisation fails on its way.
                close(b.radius, a.radius, rtol=1e-4 if boxed else 1e-7 if search == "maximise" else 1e-9)
                if a.delta is None or not 0.0 < a.radius < np.inf:
                    continue
                proved += 1
                # The value of D at the λ that was found is the readable one's.
                L = readable._lagrangian(problem)
                if isinstance(L, BoxLagrangian):  # its minimisations start where the last one ended
                    L._start = b.delta
                dual = L.evaluate(b.lam)
                assert dual is not None
                close(b.radius, L.bound(dual), rtol=1e-9)
                close(b.delta, dual.delta, rtol=1e-5, atol=1e-7 * float(np.linalg.norm(dual.delta)))
            close(compiled.slope(problem, theta, 0.1 * x), readable.slope(problem, theta, 0.1 * x), rtol=1e-9)
    assert proved >= 5


@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "badly scaled"])
def test_the_highest_ratio_in_a_ball(kind: str) -> None:
    below = 0
    for seed in range(6):
        clf, x = case(kind, seed)
        readable, compiled = both(clf, x)
        problem, _ = problems(seed)[0]
        for radius in (0.01, 0.1, 1.0):
            a, b = (duals.highest_within(problem, radius) for duals in (readable, compiled))
            close(b, a, rtol=1e-7)
            below += b < 0.0
    assert below > 3


@pytest.mark.parametrize("seed", range(40))
def test_what_counts_as_positive_definite_is(seed: int) -> None:
    """At a λ that is given: narrow sources make the diagonal negative, and their loadings may compensate for it. The
    answer is the eigenvalues' of the dense matrix, except within a rounding of 0.
    """
    rng = np.random.default_rng(seed)
    d = 6
    mixtures = []
    for c in range(2):
        m = random_mfa(k=1, d=d, l=2, noise="diagonal", sigma=0.3, seed=2 * seed + c)
        mixtures.append(m.replace(noise_variance=m.noise_variance * 10.0 ** rng.uniform(-1, 1, (1, d))))
    clf = mfakit.BayesClassifier(mixtures)
    _, compiled = both(clf, clf.mixtures[0].means[0])
    inverse = [np.linalg.inv(m.dense()[2][0]) for m in clf.mixtures]
    largest = np.linalg.eigvalsh(inverse[0] - inverse[1])[-1]
    for share in (0.1, 0.9, 0.999, 1.0 - 1e-8, 1.0 + 1e-8, 1.001, 3.0, 50.0):
        lam = share / largest if largest > 0.0 else share
        end = compiled.nearest(Problem([1], ONE, 0.0, [0]), ONE, lam, enough=-1.0)
        accepted = end.lam is not None and end.lam[0] == lam  # else the search has gone on to another
        assert accepted == (largest <= 0.0 or share < 1.0)


def test_spheres_meet_at_a_plane() -> None:
    """Equal spheres: the boundary is a plane, and the radius its distance; in the box along the features left."""
    clf = spheres([[0.0] * 50, [3.0] + [0.0] * 49], (0.5, 0.5), [0.7, 0.3])
    _, compiled = both(clf, np.full(50, 0.1))
    end = compiled.nearest(Problem([1], ONE, 0.0, [0]), ONE)
    expected = 1.5 - 0.1 + 0.25 * np.log(0.7 / 0.3) / 3.0
    close(end.radius, expected, rtol=1e-9)
    assert end.radius < expected


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_along_one_feature_the_radius_is_a_root(scale: float) -> None:
    """Noise that differs in one feature only, and means there: q is a quadratic of that feature. Others have noise
    over twelve orders of magnitude.
    """
    noise = np.geomspace(1e-6, 1e6, 13) * scale**2
    s, t = noise.copy(), noise.copy()
    s[6], t[6] = 0.04 * scale**2, 0.25 * scale**2
    means = np.zeros((2, 13))
    means[1, 6] = 2.0 * scale
    mixtures = [mfakit.MFA([1.0], m[None], np.zeros((1, 13, 0)), v[None]) for m, v in zip(means, (s, t), strict=True)]
    clf = mfakit.BayesClassifier(mixtures)
    _, compiled = both(clf, means[0])
    end = compiled.nearest(Problem([1], ONE, 0.0, [0]), ONE)
    # ½ r²/s - ½ (2 - r)²/t + ½ log(s/t) = 0 in units of `scale`
    curve = np.array([0.5 / 0.04 - 0.5 / 0.25, 2.0 / 0.25, -0.5 * 4.0 / 0.25 + 0.5 * np.log(0.04 / 0.25)])
    expected = np.roots(curve)
    close(end.radius, scale * float(np.abs(expected).min()), rtol=1e-8)


def test_a_plane_in_a_box_is_reached_by_the_features_that_are_free() -> None:
    """The nearest point of a half-space within a box: features at their bounds, the others along the normal."""
    rng = np.random.default_rng(0)
    normal = np.sort(rng.uniform(0.2, 1.0, 20))
    clf = spheres([np.zeros(20), 2.0 * normal], (0.3, 0.3))
    high = np.full(20, 0.9)
    high[-6:] = 0.6
    box = Box(np.zeros(20), np.full(20, -1.0), high)
    _, compiled = both(clf, np.zeros(20), box)
    end = compiled.nearest(Problem([1], ONE, 0.0, [0]), ONE)
    need, pressed = float(normal @ normal), normal > np.inf
    for _ in range(20):  # features that the common step would take beyond their bounds stay there
        step = (need - normal[pressed] @ high[pressed]) / (normal[~pressed] @ normal[~pressed])
        pressed |= step * normal > high
    nearest = np.where(pressed, high, step * normal)
    assert 3 < pressed.sum() < 20
    close(end.radius, np.linalg.norm(nearest), rtol=1e-5)
    assert end.radius <= np.linalg.norm(nearest)
    close(end.delta, nearest, rtol=1e-3)


def test_the_hard_case_is_completed() -> None:
    """A narrow sphere around a sample in its centre inside a broad one: every direction is as near as the others."""
    clf = spheres(np.zeros((2, 8)), (0.1, 1.0))
    _, compiled = both(clf, np.zeros(8))
    end = compiled.nearest(Problem([1], ONE, 0.0, [0]), ONE)
    expected = np.sqrt(2.0 * 8 * np.log(10.0) / (1 / 0.01 - 1.0))
    close(end.radius, expected, rtol=1e-8)
    assert len(end.aside) == 2
    close(np.linalg.norm(end.aside, axis=1), np.full(2, expected), rtol=1e-6)


@pytest.mark.parametrize("how", ["plain", "box", "target"])
@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "badly scaled"])
def test_brackets_are_those_of_the_readable_search(kind: str, how: str) -> None:
    clf, x = case(kind, 1)
    X = x + 0.2 * np.random.default_rng(0).normal(size=(2, 30)) * (kind != "badly scaled")
    y = clf.predict(X)
    options: dict[str, Any] = {"plain": {}, "box": {"bounds": (-6.0, 6.0)}, "target": {"target": (y + 1) % 3}}[how]
    a, b = (in_features(clf, X, y, backend=backend, **options) for backend in ("numpy", "native"))
    for one, other in ((a, b), (b, a)):  # each bracket holds the other's true radius
        assert (one.lower <= other.upper * (1 + 1e-9)).all()
    close(b.lower, a.lower, rtol=1e-4)
    close(b.upper, a.upper, rtol=1e-4)


def test_random_scales_keep_their_proofs() -> None:
    """No lower bound of either is above a point of the other, whatever the scales; NaN and errors in none."""
    certified = 0
    for seed in range(6):
        clf, X, kind = scaled_classifier(seed, diagonal=True)
        a, b = (in_features(clf, X[:2], backend=backend) for backend in ("numpy", "native"))
        assert (b.lower <= a.upper).all(), kind
        assert (a.lower <= b.upper).all(), kind
        certified += int((b.lower > 0.0).sum())
    assert certified > 2


def test_threads_share_the_samples_bit_for_bit() -> None:
    clf = diagonal_classifier(3, k=4, d=40, l=3)
    X, y = clf.sample(23, rng=0, dtype=np.float64)
    for options in ({}, {"bounds": (-20.0, 20.0)}):
        one, three = (in_features(clf, X, y, n_threads=n, **options) for n in (1, 3))
        for name in ("lower", "upper", "x_adv"):
            assert np.array_equal(getattr(one, name), getattr(three, name)), name


def test_a_long_search_hears_ctrl_c() -> None:
    """The GIL is free meanwhile: the thread that interrupts could not run otherwise."""
    rng = np.random.default_rng(0)
    d, l = 6_000, 50
    loadings, noise = rng.normal(size=(1, d, l)), rng.uniform(0.5, 1.0, (1, d))
    # A target that is narrower everywhere, which is never reached: some 90 evaluations of some 10 ms.
    mixtures = [mfakit.MFA([1.0], np.zeros((1, d)), loadings, scale * noise) for scale in (1.0, 0.999)]
    _, compiled = both(mfakit.BayesClassifier(mixtures, [1.0 - 1e-9, 1e-9]), np.ones(d))
    compiled.nearest(Problem([1], ONE, 0.0, [0]), ONE, 1e-9, 0.0)  # one evaluation, before the clock starts
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    def search() -> None:
        compiled.nearest(Problem([1], ONE, -100.0, [0]), ONE)
        time.sleep(1.0)  # not over before it was interrupted: then the time below says so

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, interrupt)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            search()
        assert time.perf_counter() - sent[0] < 0.5
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_a_backend_that_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clf, calls = diagonal_classifier(0), []
    X, y = clf.sample(3, rng=0, dtype=np.float64)
    inner = Lagrangian.evaluate
    monkeypatch.setattr(Lagrangian, "evaluate", lambda *given: calls.append(1) or inner(*given))
    minimal_perturbation(clf, X, y, backend="native")
    assert not calls
    minimal_perturbation(clf, X, y, backend="numpy")
    assert calls
