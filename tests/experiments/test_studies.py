"""Every experiment that trains and attacks, on tiny settings: it runs, comes back from its folder, and is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from mfakit.attacks import carlini_wagner_l2
from mfakit.experiments import fig6, load_experiment, load_result, reproduce
from mfakit.experiments.fig4 import standard_error
from mfakit.experiments.study import run as study
from mfakit.plots.common import STYLE

NETWORK = {"width": 2, "depth": 1, "epochs": 1}
SMALL: dict[str, dict[str, Any]] = {
    "fig9": {**NETWORK, "n": 4, "n_train": 60, "widths": (3,), "depths": (), "passes": (1, 2), "fresh": (200,)},
    "fig10": {**NETWORK, "n": 4, "n_train": 60, "pairs": ("mnist-06",), "betas": (0.0, 1.0)},
    "cw_vs_gradient": {"n": 4, "n_train": 60},
    "table2": {**NETWORK, "n": 4, "n_train": 80, "attributes": (), "digits": True},
    "table3": {**NETWORK, "n": 40, "n_train": 80, "attributes": ()},
    "fig12": {**NETWORK, "n": 4, "n_train": 80, "classes": (0, 3)},
}
DATA = ("table2", "fig12", "table3")


@pytest.fixture(autouse=True)
def short_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """CW-L2 of a few steps: what it finds is tested with the attack."""

    def short(clf: Any, X: Any, y: Any, *, preset: str | None, **settings: Any) -> Any:
        return carlini_wagner_l2(clf, X, y, max_iterations=30, binary_search_steps=2, **settings)

    monkeypatch.setattr(study, "carlini_wagner_l2", short)
    monkeypatch.setitem(STYLE, "savefig.dpi", 60)  # that pictures are drawn is tested, not their size


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.data if name in DATA else ()) for name in SMALL])
def test_it_runs_comes_back_and_is_drawn(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    found: Any = reproduce(name, out=tmp_path, device="cpu", progress=False, **SMALL[name])
    again = load_result(name, tmp_path)
    assert again.markdown() == found.markdown()
    for table in found.tables().values():
        assert max(map(len, table.terminal().split("\n"))) <= 100
    pictures = found.pictures()
    assert set(pictures) == set(found.alt_texts())
    assert pictures or name == "table3"
    for picture in pictures:
        assert (tmp_path / name / f"{picture}.png").stat().st_size > 2000
    # One configuration for each data set leaves the parts of all.
    monkeypatch.setattr(study.Study, "_train", lambda *_: pytest.fail("it was trained again"))
    module = load_experiment(name)
    for config in module.by_data_set(found.config):
        module.run(config, study.Context(out=tmp_path, device="cpu", progress=False))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("fig9", {"widths": (0,)}, r"widths\[0\] must be an integer of at least 1"),
        ("fig9", {"fresh": (1.5,)}, r"fresh\[0\] must be an integer"),
        ("fig10", {"betas": (-1.0,)}, r"betas\[0\] must be a non-negative number"),
        ("fig10", {"epsilon": 0.0}, "epsilon must be a positive number"),
        ("fig12", {"classes": (9,)}, r"classes\[0\] must be an integer of at most 8"),
        ("table2", {"attributes": ()}, "attributes must name at least one attribute, or digits be True"),
        ("cw_vs_gradient", {"n": 1}, "n must be an integer of at least 2"),
    ],
)
def test_bad_settings_are_said_before_any_work(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reproduce(name, **changes)


@pytest.mark.parametrize("name", DATA)
def test_missing_images_are_said_before_any_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        reproduce(name, data=tmp_path, out=tmp_path / "out", progress=False)


def test_a_network_that_two_settings_share_is_trained_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Width 2, depth 1, 1 pass is in all three lists."""
    trained = []
    train = study.Study._train
    monkeypatch.setattr(study.Study, "_train", lambda self, who: (trained.append(who.label), train(self, who))[1])
    settings = {**SMALL["fig9"], "widths": (2,), "depths": (1,), "passes": (1,), "fresh": ()}
    found: Any = reproduce("fig9", out=tmp_path, device="cpu", progress=False, **settings)
    assert trained == ["RBF SVM γ .04", "width 2"]
    norms = [learner.strongest.mean_l2 for learner in found.sets[0].learners if learner.kind == "cnn"]
    np.testing.assert_array_equal(norms, norms[0])


@pytest.mark.data
def test_pairs_are_fitted_to_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of each class, once for both experiments; the numbers are beside the paper's."""
    pytest.importorskip("PIL")
    monkeypatch.setattr("mfakit.experiments.study.fitted.N_FACTORS", 2)
    monkeypatch.setattr("mfakit.experiments.table1.MOST_IMAGES", 120)
    settings: dict[str, Any] = {"classifiers": ("bayes", "linear-svm"), "n": 4, "n_train": 40}
    found: Any = reproduce("table1", attributes=("Male",), out=tmp_path, progress=False, **settings)
    (s,) = found.sets
    assert s.name == "celeba-Male"
    assert s.shown.shape[1] == 64 * 64 * 3
    assert "100 (0)" in found.markdown()
    small = {**NETWORK, "n": 40, "n_train": 120, "digits": False, "attributes": ("Male",)}
    again: Any = reproduce("table3", out=tmp_path, device="cpu", progress=False, **small)
    (row,) = again.rows
    assert row.n_train == 120
    assert 0.5 <= row.bayes <= 1.0
    assert len(list((tmp_path / "parts").glob("celeba-Male-pair-model-*"))) == 1


FIGURES: dict[str, dict[str, Any]] = {
    "fig1": {**NETWORK, "n": 4, "n_train": 60, "pairs": ("mnist-06",)},
    "fig2": {"pairs": ("mnist-27",), "n": 300, "components": 4},
    "fig4": {"side": 16, "n": 2, "n_train": 100, "n_certified": 200, "width": 4, "depth": 2, "epochs": 4},
    "fig6": {"n": 20, "misled": 10},
    "fig13": {"pairs": ("mnist-45",)},
    "theorem2": {"models": ("random-30", "mnist-06"), "ks": (1, 4, 40), "n": 6, "certified": 4},
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_from_what_comes_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("matplotlib.image")
    if name == "fig6":
        for size, value in (("FINE", 200), ("HIDDEN", 64), ("STEPS", 400)):
            monkeypatch.setattr(f"mfakit.experiments.fig6.{size}", value)
    found: Any = reproduce(name, out=tmp_path, device="cpu", progress=False, **FIGURES[name])
    again: Any = load_result(name, tmp_path)
    assert again.markdown() == found.markdown()
    assert set(again.pictures()) == set(again.alt_texts())
    for picture, draw in again.pictures().items():
        assert image.imread(tmp_path / name / f"{picture}.png").std() > 0
        draw()
    if name == "fig2":
        assert found.log_likelihood > found.of_one + 0.5
        assert np.median(found.noise) < 0.15
    if name == "fig4":
        (s,) = found.sets
        bayes, cnn = s.learners
        assert found.shape == (16, 16, 3)
        error = standard_error(found.radii)
        assert error == pytest.approx(0.1 / 200**0.5, rel=0.2)  # σ/√n
        assert found.radii.mean() == pytest.approx(found.half_distance, abs=3 * error)
        assert (s.lower <= bayes.attacks[0].l2).all()
        np.testing.assert_allclose(bayes.attacks[0].l2, s.lower, rtol=1e-4)
        assert (cnn.accuracy, cnn.attacks[0].adversarial_accuracy) == (1.0, 0.0)
        assert cnn.attacks[0].mean_l2 < found.half_distance / 3
    if name == "fig6":
        asymmetric, symmetric = found.cases
        assert asymmetric.nearest(fig6.OPTIMAL, 0.5) < 0.1 < 0.6 < symmetric.nearest(fig6.OPTIMAL, 0.5)
        assert symmetric.nearest(fig6.MISLED) < symmetric.nearest(fig6.CONTROL)
        assert symmetric.nearest(fig6.MISLED) < symmetric.nearest(fig6.OPTIMAL)
        alone: Any = reproduce(name, progress=False, **{**FIGURES[name], "misled": 0})
        for case, both in zip(alone.cases, found.cases, strict=True):
            assert list(case.accuracy) == list(case.radii) == list(case.case.decisions) == [fig6.OPTIMAL, fig6.CONTROL]
            # The control is the same network, whether another one is misled or not.
            np.testing.assert_array_equal(case.radii[fig6.CONTROL], both.radii[fig6.CONTROL])
    if name == "fig13":
        (o,) = found.outliers
        assert o.step == pytest.approx(0.384, rel=0.05)  # the paper's


def test_the_error_of_a_mean_needs_two_values() -> None:
    assert np.isnan(standard_error(np.ones(1)))
    assert np.isnan(standard_error(np.zeros(0)))
    assert standard_error(np.array([1.0, 3.0])) == pytest.approx(1.0)


def test_distances_where_there_is_nothing_to_measure() -> None:
    X, none = np.zeros((3, 2)), np.zeros((0, 2))
    case = fig6.Case("x", None, {}, {"one class": fig6._distances(X, none), "never right": fig6._distances(none, X)})  # type: ignore[arg-type]
    assert np.isinf(case.nearest("one class"))
    assert np.isnan(case.nearest("never right"))


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path, side in zip(paths, (8, 8, 9), strict=True):
        image.fromarray(np.full((side, side, 3), 100 + side, np.uint8)).save(path)
    (tmp_path / "d.png").write_bytes(b"no image")
    for images, error, message in (
        ((paths[0], paths[2]), ValueError, r"the two images must have one size, got \(8, 8\) and \(9, 9\)"),
        ((paths[0], tmp_path / "d.png"), ValueError, "is not a readable image"),
        ((paths[0], tmp_path / "e.png"), FileNotFoundError, "no image at"),
        ((paths[0],), ValueError, "images must be two files or none, got 1"),
    ):
        with pytest.raises(error, match=message):
            reproduce("fig4", images=images)
