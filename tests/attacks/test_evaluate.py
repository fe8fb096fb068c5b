"""Points of anybody: verified, measured and graded as ours are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from support import blobs, close

import mfakit
from mfakit.attacks import evaluate, gradient_attack, minimal_perturbation, run_external

Array = NDArray[Any]


def classifier() -> mfakit.BayesClassifier:
    mixtures = [mfakit.MFA([1.0], [[m, 0.5]], np.zeros((1, 2, 1)), 0.01) for m in (0.25, 0.75)]
    return mfakit.BayesClassifier(mixtures)


X = np.array([[0.25, 0.5], [0.75, 0.5], [0.3, 0.5], [0.4, 0.5]])
Y = np.array([0, 1, 1, 0])
POINTS = np.array([[0.55, 0.5], [0.7, 0.5], [0.6, 0.5], [0.5, 0.5]])


def test_points_are_judged_and_measured() -> None:
    r = evaluate(classifier(), X, POINTS, Y, name="theirs", settings={"steps": 3}, bounds=(0, 1))
    assert r.reason.tolist() == ["flipped", "not fooled", "already wrong", "not fooled"]
    assert r.success.tolist() == [True, False, False, False]
    close(r.l2, np.array([0.3, np.nan, np.nan, np.nan]), rtol=1e-12)
    np.testing.assert_array_equal(r.x_adv, np.where(r.success[:, None], POINTS, X))
    assert (r.y_adv == [1, 1, 0, 0]).all()
    assert r.settings == {"attack": "theirs", "steps": 3, "bounds": (0.0, 1.0), "dtype": "float64"}
    assert (r.accuracy, r.success_rate) == (0.75, pytest.approx(1 / 3))


def test_a_flip_within_rounding_is_none() -> None:
    """On the boundary, x = 0.5, one unit of rounding may be either class."""
    above = np.nextafter(0.5, 1.0)
    r = evaluate(classifier(), X[:1], [[above, 0.5]], [0])
    assert not r.success[0]
    assert r.reason[0] in ("not verified", "not fooled")
    assert evaluate(classifier(), X[:1], [[0.5 + 1e-9, 0.5]], [0]).success[0]


def test_it_agrees_with_our_own_attack_and_grades() -> None:
    clf = classifier()
    X, y = clf.sample(30, rng=0, dtype=np.float64)
    ours = gradient_attack(clf, X, y, polish=True)
    again = evaluate(clf, X, ours.x_adv, y)
    for name in ("success", "l2", "y", "y_adv", "already_wrong", "x_adv"):
        np.testing.assert_array_equal(getattr(again, name), getattr(ours, name))
    minimal = minimal_perturbation(clf, X, y)
    assert again.classifier == minimal.classifier
    grade = again.grade(minimal)
    assert grade.same_classifier
    assert not len(grade.contradictions)
    assert grade.mean == ours.grade(minimal).mean


def test_without_labels_the_decisions_are_left() -> None:
    r = evaluate(classifier(), X, POINTS)
    np.testing.assert_array_equal(r.y, [0, 1, 0, 0])
    np.testing.assert_array_equal(r.success, [True, False, True, False])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_points_are_rounded_to_the_samples_dtype(dtype: str) -> None:
    r = evaluate(classifier(), X.astype(dtype), POINTS, Y)
    assert r.x_adv.dtype == dtype
    close(r.l2[0], np.linalg.norm(r.x_adv[0].astype(float) - X[0].astype(dtype)), rtol=1e-14)


@pytest.mark.parametrize(
    "model", [LogisticRegression(), RandomForestClassifier(10, random_state=0)], ids=["linear", "trees"]
)
def test_other_libraries_classifiers(model: Any) -> None:
    samples, codes = blobs(60)
    y = np.array(["no", "yes"])[codes]
    clf = model.fit(samples, y)
    there = samples[::-1].copy()  # each is of the other class
    r = evaluate(clf, samples, there, y, batch_size=7)
    right, fooled = clf.predict(samples) == y, clf.predict(there) != y
    np.testing.assert_array_equal(r.success, right & fooled)
    np.testing.assert_array_equal(r.y, codes)
    assert r.success.any()
    with pytest.raises(ValueError, match="must hold the classes no, yes"):
        evaluate(clf, samples, there, codes)


@pytest.mark.parametrize(
    ("x_adv", "y", "options", "message"),
    [
        (POINTS[:3], Y, {}, r"x_adv must have X's shape \(4, 2\), got \(3, 2\)"),
        (POINTS[:, :1], Y, {}, r"x_adv must have X's shape \(4, 2\), got \(4, 1\)"),
        (np.where(POINTS == 0.7, np.nan, POINTS), Y, {}, "x_adv has NaN or inf, first in row 1; clean it"),
        (POINTS, Y[:3], {}, "one label per sample"),
        (POINTS, Y + 1, {}, "must hold the classes 0 to 1"),
        (POINTS, Y, {"bounds": (0.0, 0.6)}, "x_adv must lie within bounds.*in row 1; clip x_adv"),
        (POINTS, Y, {"bounds": ([0.0, 0.0], [0.6, 9.0])}, r"bounds \[0, 0.6\] of feature 0, got 0.7 in row 1"),
        (POINTS, Y, {"batch_size": 0}, "batch_size"),
        (POINTS, Y, {"name": ""}, "name must be a string"),
    ],
)
def test_what_does_not_fit_is_refused(x_adv: Any, y: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(classifier(), X, x_adv, y, **options)


def test_what_is_no_classifier_is_refused() -> None:
    with pytest.raises(TypeError, match="density, not a classifier"):
        evaluate(classifier().mixtures[0], X, POINTS, Y)
    with pytest.raises(TypeError, match="not fitted"):
        evaluate(LogisticRegression(), X, POINTS, Y)


def network() -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    ).eval()


def test_modules_judge_images() -> None:
    net = network()
    torch = pytest.importorskip("torch")
    images = torch.rand(20, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    there = 1 - images
    y, after = (net(x).argmax(dim=1) for x in (images, there))
    r = evaluate(net, images, there, y, bounds=(0, 1))
    np.testing.assert_array_equal(r.success, (after != y).numpy())
    assert 0 < r.success.sum() < 20
    assert r.x_adv.shape == images.shape
    close(r.l2[r.success], (there - images).flatten(1).double().norm(dim=1).numpy()[r.success], rtol=1e-6)
    with pytest.raises(ValueError, match="classes 0 to 2"):
        evaluate(net, images, there, y + 1)


def test_a_module_without_numbers_fools_nobody() -> None:
    torch = pytest.importorskip("torch")

    class Broken(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return torch.stack([x[:, 0], torch.where(x[:, 0] > 0.5, torch.nan, 0.0)], dim=1)

    r = evaluate(Broken().eval(), np.array([[0.25], [0.75]]), np.array([[0.75], [0.25]]))
    assert r.reason.tolist() == ["not verified", "already wrong"]


def test_an_attack_that_is_a_function_runs_on_any_model() -> None:
    torch = pytest.importorskip("torch")

    def walk(model: Any, inputs: Any, labels: Any) -> Any:
        """To the mirrored image, in float32; leaves the first as it is."""
        assert isinstance(model, torch.nn.Module)
        assert labels.dtype == torch.int64
        found = 1 - inputs
        found[0] = torch.nan
        return found

    X32 = X.astype(np.float32)
    r = run_external(walk, classifier(), X32, Y)
    assert r.settings["attack"] == "walk"
    assert r.success.tolist() == [False, True, False, True]
    assert r.x_adv.dtype == np.float32
    net = network()
    images = torch.rand(5, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    np.testing.assert_array_equal(
        run_external(lambda model, x, y: 1 - x, net, images, batch_size=2).success,
        (net(1 - images).argmax(dim=1) != net(images).argmax(dim=1)).numpy(),
    )
    with pytest.raises(TypeError, match=r"must return a tensor of the inputs' shape \(4, 2\), got NoneType"):
        run_external(lambda model, x, y: None, classifier(), X, Y)
    with pytest.raises(TypeError, match="attack must be an instance or a function"):
        run_external(dict, classifier(), X, Y)
    with pytest.raises(ValueError, match="bounds must be"):
        run_external(walk, classifier(), X, Y, bounds=None)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_foolbox_attacks_are_run_and_graded(dtype: str) -> None:
    foolbox = pytest.importorskip("foolbox")
    clf = classifier()
    X, y = clf.sample(12, rng=1, dtype=dtype)
    X = X.clip(0, 1)
    minimal = minimal_perturbation(clf, X, y)
    attack = foolbox.attacks.LinfDeepFoolAttack() if dtype == "float32" else foolbox.attacks.L2DeepFoolAttack()
    r = run_external(attack, clf, X, y)
    assert r.settings["library"] == "foolbox"
    assert r.success_rate == 1.0
    assert 1.0 <= r.grade(minimal).mean < 2.0
    fixed = run_external(foolbox.attacks.L2PGD(steps=20), clf, X, y, epsilon=1.0)
    assert (fixed.l2[fixed.success] <= 1.0 + 1e-6).all()
