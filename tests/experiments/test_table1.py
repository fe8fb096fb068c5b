"""Table 1 on a small scale: what it writes, that an interrupted run goes on, and what it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import close

pytest.importorskip("torch")

import mfakit
from mfakit._io.tensor_files import read_tensors
from mfakit.cli import main
from mfakit.experiments import load_experiment, table1
from mfakit.experiments.resumable import Store, Trained, digest_of_model
from mfakit.experiments.table1 import parts

PARAMETERS = {
    "cnn": {"width": 4, "depth": 2, "epochs": 4, "batch_size": 20, "n_threads": 1},
    "rbf-svm": {"gammas": [0.005, 0.05], "accuracy_threshold": 0.9},
}
SMALL: dict[str, Any] = {
    "n": 8, "n_train": 240, "parameters": PARAMETERS, "device": "cpu", "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[table1.Table1Report, Path]:
    out = tmp_path_factory.mktemp("results") / "table1"
    return table1.run(["mnist-06"], out=out, **SMALL), out


def numbers(results: table1.Table1Report) -> list[tuple[Any, ...]]:
    """Everything but the seconds."""
    return [
        (r.pair, r.mean_radius, u.classifier, u.accuracy, a.attack, a.adversarial_accuracy, a.mean_l2, a.median_ratio)
        for r in results.results
        for u in r.units
        for a in u.attacks
    ]


def test_the_optimal_classifier_is_robust_and_others_are_not(found: tuple[table1.Table1Report, Path]) -> None:
    (r,) = found[0].results
    bayes, cnn, linear, rbf = r.units
    assert (bayes.classifier, cnn.classifier, linear.classifier, rbf.classifier) == table1.CLASSIFIERS
    assert bayes.attacks[0].adversarial_accuracy == 0.0
    assert cnn.attacks[0].adversarial_accuracy < 0.5 < cnn.accuracy
    assert 2.0 < r.mean_lower <= r.mean_radius <= bayes.attacks[0].mean_l2
    assert bayes.attacks[0].n_below_radius == 0
    assert 1.0 <= bayes.attacks[0].median_ratio < 1.1
    assert cnn.attacks[0].median_ratio < 0.6
    assert cnn.attacks[0].n_below_radius == sum(cnn.attacks[0].endings.get(end, 0) for end in ("flipped",))
    assert cnn.attacks[1].adversarial_accuracy == 0.0
    assert linear.attacks[0].attack == "closed form"
    assert linear.attacks[0].median_ratio < bayes.attacks[0].median_ratio
    assert [a.attack for a in rbf.attacks] == ["gradient", "log-ratio"]
    assert rbf.attacks[1].adversarial_accuracy == 0.0


def test_numbers_are_those_of_the_attacks(found: tuple[table1.Table1Report, Path]) -> None:
    """From the samples and the stored points, by the definitions of section 2.4."""
    clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(0.01)
    X, y = clf.sample(8, rng=np.random.default_rng([0, 1, *b"mnist-06"]), balanced=True)
    radius = mfakit.attacks.minimal_perturbation(clf, X, y).upper
    (path,) = (found[1] / "parts").glob("mnist-06-linear-svm-gradient-*")
    svm = mfakit.classifiers.load(next((found[1] / "parts").glob("mnist-06-linear-svm-model-*")))
    x_adv = read_tensors(path, "experiment-part")[0]["x_adv"]
    right = svm.predict(X) == y
    fooled = right & (svm.predict(x_adv) != y)
    distance = np.linalg.norm(x_adv.astype(np.float64) - X, axis=1)
    unit = found[0].results[0].units[2]
    assert unit.accuracy == right.mean()
    assert unit.attacks[0].adversarial_accuracy == (right & ~fooled).mean()
    righted = ~right & (svm.predict(mfakit.attacks.gradient_attack(svm, X).x_adv) == y)
    assert unit.attacks[0].adversarial_accuracy_paper == ((right & ~fooled) | righted).mean()
    close(unit.attacks[0].mean_l2, distance[fooled].mean(), rtol=1e-12)
    close(unit.attacks[0].mean_ratio, (distance / radius)[fooled].mean(), rtol=1e-9)
    # The exact distance to the plane.
    plane = np.abs(svm.decision_function(X.astype(np.float64))) / np.linalg.norm(svm.coef_)
    close(distance[fooled], plane[fooled], rtol=1e-4)


def test_the_papers_count_includes_what_the_attack_makes_right() -> None:
    """A machine of few samples is wrong on some; where every sample is fooled the paper counts 100 - accuracy."""
    parameters = {"linear-svm": {"C": 1e-6}}
    found = table1.run(
        ["mnist-27"], classifiers=["linear-svm"], n=24, n_train=10, parameters=parameters, progress=False, sigma=0.3,
    )  # fmt: skip
    (unit,) = found.results[0].units
    (attack,) = unit.attacks
    assert 0.5 < unit.accuracy < 1.0
    assert attack.adversarial_accuracy == 0.0
    assert attack.adversarial_accuracy_paper == pytest.approx(1.0 - unit.accuracy, abs=1e-12)
    header = found.table().columns
    assert header.index("not\nfooled") + 1 == header.index("adv.\n(%)")
    assert "it is 100 - acc. where every sample is fooled" in found.notes


def test_files_hold_what_is_printed(found: tuple[table1.Table1Report, Path]) -> None:
    results, out = found
    saved = json.loads((out / "table1.json").read_text())
    assert set(saved) == {"results", "settings", "environment", "n_reused"}
    assert saved["settings"]["parameters"]["cnn"]["width"] == 4
    assert {"torch", "scikit-learn", "numpy", "processor"} <= set(saved["environment"])
    units = saved["results"][0]["units"]
    assert [u["attacks"][0]["mean_l2"] for u in units] == [u.attacks[0].mean_l2 for u in results.results[0].units]
    assert [u["attacks"][0]["settings"]["bounds"] for u in units] == [None] * 4
    assert units[3]["training"]["gamma"] in units[3]["training"]["gamma_path"]["gammas"]
    assert max(map(len, results.table().terminal().split("\n"))) <= 100
    text = (out / "table1.md").read_text()
    assert results.table().markdown() in text
    assert results.gamma_paths()["mnist-06"].markdown() in text
    assert "100 (4)" in text
    assert "not clipped" in text
    assert not list(out.rglob(".*"))


def test_a_finished_run_is_read_and_not_run_again(
    found: tuple[table1.Table1Report, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gradient_attack", "carlini_wagner_l2", "minimal_perturbation"):
        monkeypatch.setattr(parts, name, lambda *_, **__: pytest.fail("it was run again"))
    monkeypatch.setattr(parts.Pair, "_train", lambda *_: pytest.fail("it was trained again"))
    again = table1.run(["mnist-06"], work_dir=found[1] / "parts", **SMALL)
    assert again.n_reused == 1 + 3 + 6  # the radii, the trainings, the attacks
    assert numbers(again) == numbers(found[0])


def test_an_interrupted_run_goes_on(
    found: tuple[table1.Table1Report, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the CNN's attack: its training is kept, nothing half-written is left, and the numbers are the same."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts, "carlini_wagner_l2", interrupted)
        with pytest.raises(KeyboardInterrupt):
            table1.run(["mnist-06"], out=tmp_path, **SMALL)
    kept = sorted(path.name.rsplit("-", 1)[0] for path in (tmp_path / "parts").iterdir())
    assert kept == ["mnist-06-bayes-gradient", "mnist-06-cnn-model", "mnist-06-cnn-training", "mnist-06-radii"]
    assert not (tmp_path / "table1.json").exists()
    trained = []
    train = parts.Pair._train
    monkeypatch.setattr(parts.Pair, "_train", lambda self, c: (trained.append(c), train(self, c))[1])
    again = table1.run(["mnist-06"], out=tmp_path, **SMALL)
    assert trained == ["linear-svm", "rbf-svm"]
    assert again.n_reused == 3
    for one, two in zip(numbers(again), numbers(found[0]), strict=True):
        np.testing.assert_allclose(one[-3:], two[-3:], rtol=1e-5)


def test_parts_of_other_settings_or_versions_are_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(**key: Any) -> int:
        made = []
        Store(tmp_path).part("x", key, lambda: (made.append(1), ({"a": np.ones(2)}, {"b": float("nan")}))[1])
        return len(made)

    assert [count(n=1), count(n=1), count(n=2), count(n=1, more=None)] == [1, 0, 1, 1]
    with monkeypatch.context() as patch:
        patch.setattr("mfakit.experiments.resumable.__version__", "0.0.0")
        assert [count(n=1), count(n=1)] == [1, 0]
    # A file under another part's name, and one cut short.
    one, two = (Store(tmp_path).path("x", key) for key in ({"n": 1}, {"n": 2}))
    assert one is not None
    assert two is not None
    one.write_bytes(two.read_bytes())
    assert [count(n=1), count(n=1)] == [1, 0]
    one.write_bytes(one.read_bytes()[:50])
    assert [count(n=1), count(n=1)] == [1, 0]
    assert Store(tmp_path).part("x", {"n": 1}, dict)[1] == {"b": None}


def test_a_model_that_was_lost_is_trained_again(tmp_path: Path) -> None:
    def train() -> mfakit.BayesClassifier:
        return mfakit.datasets.load_bayes_pair("mnist-06")

    first = Trained(Store(tmp_path), "x", {"n": 1}, train, mfakit.BayesClassifier.load)
    digests = {digest_of_model(first.classifier), digest_of_model(train())}
    (model,) = tmp_path.glob("x-model-*")
    model.unlink()
    again = Trained(Store(tmp_path), "x", {"n": 1}, train, mfakit.BayesClassifier.load)
    assert again.seconds == first.seconds
    assert {digest_of_model(again.classifier)} == digests
    assert model.is_file()
    assert digest_of_model(train().symmetric()) not in digests


def test_pictures_show_all_classifiers_on_one_scale(found: tuple[table1.Table1Report, Path]) -> None:
    image = pytest.importorskip("matplotlib.image")
    pixels = image.imread(found[1] / "mnist-06-table1.png")
    assert min(pixels.shape[:2]) > 600
    X = np.random.default_rng(0).uniform(0, 1, (3, 64))
    large, small = X + 0.4, X + 0.01
    large[2] = X[2]
    attacks = [mfakit.plots.Perturbations("large", X, large), mfakit.plots.Perturbations("small", X, small)]
    figure = mfakit.plots.comparison_panel(attacks, captions=list("abc"), title="two")
    images = [im.get_array() for ax in figure.axes for im in ax.images if im.get_array().shape == (8, 8)]
    assert len(images) == 3 + 2 * 2 * 3
    np.testing.assert_array_equal(images[0], X[0].reshape(8, 8))
    words = [text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))]
    assert words.count("difference × 2") == 2
    assert words.count("not fooled") == 1
    limits = [ax.get_xlim() for ax in figure.axes if ax.get_yscale() == "log"]
    assert len(limits) == 2
    assert limits[0] == limits[1]
    with pytest.raises(ValueError, match="attacks must all be of the same samples"):
        mfakit.plots.comparison_panel([attacks[0], mfakit.plots.Perturbations("other", large, X)])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CW-L2 beside, on clipped samples."""
    out = tmp_path / "t"
    words = [
        "reproduce", "table1", "--pairs", "mnist-27", "--classifiers", "linear-svm", "--samples", "4",
        "--training-samples", "100", "--clip", "--cw-all", "--seed", "3", "--out", str(out), "--no-progress",
    ]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.replace(str(tmp_path), "").split("\n"))) <= 100
    saved = json.loads((out / "table1.json").read_text())
    assert (saved["settings"]["seed"], saved["settings"]["n_train"]) == (3, {"linear-svm": 100})
    (pair,) = saved["results"]
    assert pair["outside"] == 0.0
    for unit in pair["units"]:
        assert [a["attack"] for a in unit["attacks"]] == ["gradient", "CW-L2", "CW-L2 auto"]
        assert [tuple(a["settings"]["bounds"]) for a in unit["attacks"]] == [(0.0, 1.0)] * 3
    assert "clipped to [0, 1]" in printed
    assert main(words) == 0
    assert "5 of them from before" in capsys.readouterr().out


def test_bad_arguments(tmp_path: Path) -> None:
    assert load_experiment("table1") is table1
    for given, message in (
        ({"pairs": ["nope"]}, "no shipped pair"),
        ({"classifiers": ["tree"]}, "classifiers must be some of bayes, cnn, linear-svm, rbf-svm, got 'tree'"),
        ({"classifiers": []}, "at least one of"),
        ({"n": 1}, "n must be at least 2 test samples"),
        ({"n_train": 5}, "n_train must be at least 10 samples"),
        ({"n_train": {"svm": 100}}, "got 'svm'"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"device": "tpu"}, "device"),
    ):
        with pytest.raises(ValueError, match=message):
            table1.run(**{"out": tmp_path, **given})
    with pytest.raises(SystemExit):
        main(["reproduce", "table1", "--quick", "--full"])


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("rbf-svm", {"gamma": -1.0}, "gamma must be a positive number"),
        ("linear-svm", {"C": 0.0}, "C must be a positive number"),
        ("cnn", {"label_smoothing": 2.0}, "label_smoothing must be"),
    ],
)
def test_arguments_of_classifiers_are_checked_before_any_work(
    name: str, parameters: dict[str, float], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        table1.run(["mnist-06"], classifiers=["bayes", name], n=2, parameters={name: parameters}, out=tmp_path)
    assert list(tmp_path.iterdir()) == []
