"""Table 1 on a small scale: what it writes, that an interrupted run goes on, and what it shows."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import close

pytest.importorskip("torch")

import mfakit
from mfakit._io.tensor_files import read_tensors
from mfakit.cli import main
from mfakit.experiments import EXPERIMENTS, load_experiment, load_result, reproduce, table1
from mfakit.experiments.jobs import compute_parts
from mfakit.experiments.outcome import Context
from mfakit.experiments.resumable import Store, Trained, digest_of_model
from mfakit.experiments.study import run as study
from mfakit.experiments.study.data import SymmetricPair
from mfakit.experiments.study.images import RealImages
from mfakit.experiments.study.learners import LEARNERS, Learner
from mfakit.experiments.study.numbers import LearnerNumbers

CONFIG = table1.Config(
    pairs=("mnist-06",), n=8, n_train=240, width=4, depth=2, epochs=12,
    classifiers=("bayes", "cnn", "linear-svm", "rbf-svm"),
)  # fmt: skip


def learners() -> list[Learner]:
    """Those of the configuration, small."""
    small: dict[str, dict[str, Any]] = {
        "cnn": {"batch_size": 20, "n_threads": 1, "epochs": 4},
        "rbf-svm": {"gammas": [0.005, 0.05], "accuracy_threshold": 0.9},
    }
    return [learner.given(**small.get(learner.name, {})) for learner in CONFIG.learners()]


def run(out: Path | None) -> table1.Result:
    """The experiment with its small learners."""
    data = SymmetricPair(
        "mnist-06", mfakit.datasets.load_bayes_pair("mnist-06"), sigma=0.01, n_train=240, n_test=8, seed=0
    )
    context = Context(out=out, device="cpu", progress=False)
    return table1.Result(config=CONFIG, sets=study.run_studies([data], learners(), context, desc="table1"))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[table1.Result, Path]:
    out = tmp_path_factory.mktemp("results")
    result = run(out)
    result.write(out / "table1")
    return result, out


def numbers(result: table1.Result) -> list[tuple[Any, ...]]:
    """Everything but the seconds."""
    return [
        (s.name, s.mean_radius, u.name, u.accuracy, a.attack, a.adversarial_accuracy, a.mean_l2, a.median_ratio)
        for s in result.sets
        for u in s.learners
        for a in u.attacks
    ]


def of(result: table1.Result) -> list[LearnerNumbers]:
    (found,) = result.sets
    return found.learners


def test_the_optimal_classifier_is_robust_and_others_are_not(found: tuple[table1.Result, Path]) -> None:
    (s,) = found[0].sets
    bayes, cnn, linear, rbf = s.learners
    assert bayes.attacks[0].adversarial_accuracy == 0.0
    assert cnn.attacks[0].adversarial_accuracy < 0.5 < cnn.accuracy
    assert 2.0 < s.mean_lower <= s.mean_radius <= bayes.attacks[0].mean_l2
    assert bayes.attacks[0].n_below_radius == 0
    assert 1.0 <= bayes.attacks[0].median_ratio < 1.1
    assert cnn.attacks[0].median_ratio < 0.6
    assert cnn.attacks[0].n_below_radius == sum(cnn.attacks[0].endings.get(end, 0) for end in ("flipped",))
    assert cnn.attacks[1].adversarial_accuracy == 0.0
    assert linear.attacks[0].attack == "closed form"
    assert linear.attacks[0].median_ratio < bayes.attacks[0].median_ratio
    assert [a.attack for a in rbf.attacks] == ["gradient", "log-ratio"]
    assert rbf.strongest is rbf.attacks[1]
    assert rbf.attacks[1].adversarial_accuracy == 0.0


def test_numbers_are_those_of_the_attacks(found: tuple[table1.Result, Path]) -> None:
    """From the samples and the stored points, by the definitions of section 2.4."""
    clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(0.01)
    X, y = clf.sample(8, rng=np.random.default_rng([0, 1, *b"mnist-06"]), balanced=True)
    radius = mfakit.attacks.minimal_perturbation(clf, X, y).upper
    parts = found[1] / "parts"
    (path,) = parts.glob("mnist-06-linear-svm-gradient-*")
    svm = mfakit.classifiers.load(next(parts.glob("mnist-06-linear-svm-model-*")))
    x_adv = read_tensors(path, "experiment-part")[0]["x_adv"]
    right = svm.predict(X) == y
    fooled = right & (svm.predict(x_adv) != y)
    change = x_adv.astype(np.float64) - X
    distance = np.linalg.norm(change, axis=1)
    linear = of(found[0])[2]
    (attack,) = linear.attacks
    assert linear.accuracy == right.mean()
    assert attack.adversarial_accuracy == (right & ~fooled).mean()
    righted = ~right & (svm.predict(mfakit.attacks.gradient_attack(svm, X).x_adv) == y)
    assert attack.adversarial_accuracy_paper == ((right & ~fooled) | righted).mean()
    close(attack.mean_l2, distance[fooled].mean(), rtol=1e-12)
    close(attack.mean_ratio, (distance / radius)[fooled].mean(), rtol=1e-9)
    # The exact distance to the plane.
    plane = np.abs(svm.decision_function(X.astype(np.float64))) / np.linalg.norm(svm.coef_)
    close(distance[fooled], plane[fooled], rtol=1e-4)
    close(attack.l2, np.where(fooled, distance, np.nan), rtol=1e-12)
    # Along the subspace of the likeliest component of the own class.
    shares = []
    for i in np.flatnonzero(fooled):
        m = clf.mixtures[y[i]]
        j = int(m.component_log_prob(X[i : i + 1]).argmax())
        u = np.linalg.svd(m.loadings[j], full_matrices=False)[0]
        shares.append(np.sum((u.T @ change[i]) ** 2) / distance[i] ** 2)
    close(attack.on_manifold, np.mean(shares), rtol=1e-6)


def test_the_papers_count_includes_what_the_attack_makes_right() -> None:
    """A machine of few samples is wrong on some; where every sample is fooled the paper counts 100 - accuracy."""
    data = SymmetricPair(
        "mnist-27", mfakit.datasets.load_bayes_pair("mnist-27"), sigma=0.3, n_train=10, n_test=24, seed=0
    )
    learner = LEARNERS["linear-svm"].given(10, C=1e-6)
    (s,) = study.run_studies([data], [learner], Context(progress=False), desc="x")
    (attack,) = s.learners[0].attacks
    assert 0.5 < s.learners[0].accuracy < 1.0
    assert attack.adversarial_accuracy == 0.0
    assert attack.adversarial_accuracy_paper == pytest.approx(1.0 - s.learners[0].accuracy, abs=1e-12)


def test_curves_count_what_is_right_and_not_fooled(found: tuple[table1.Result, Path]) -> None:
    (attack,) = of(found[0])[2].attacks
    l2 = np.sort(attack.l2[np.isfinite(attack.l2)])
    eps = np.array([0.0, l2[0], np.nextafter(l2[0], 0), l2[-1], 1e9])
    right, n = (~attack.already_wrong).sum(), len(attack.l2)
    left = right - len(l2)
    np.testing.assert_allclose(attack.curve(eps), np.array([right, right - 1, right, left, left]) / n)


def test_files_hold_what_is_printed(found: tuple[table1.Result, Path]) -> None:
    result, out = found
    again = load_result("fig8", out)
    assert isinstance(again, table1.Result)
    assert again.markdown() == result.markdown()
    assert numbers(again) == numbers(result)
    saved = json.loads((out / "table1" / "result.json").read_text())
    learned = saved["sets"][0]["learners"]
    assert [u["attacks"][0]["settings"]["bounds"] for u in learned] == [None] * 4
    assert learned[3]["training"]["gamma"] in learned[3]["training"]["gamma_path"]["gammas"]
    for table in result.tables().values():
        assert max(map(len, table.terminal().split("\n"))) <= 100
    text = (out / "table1" / "result.md").read_text()
    assert "100 (4)" in text
    assert "not clipped" in text
    assert not list(out.rglob(".*"))


def test_pictures_are_drawn_from_the_result_alone(found: tuple[table1.Result, Path]) -> None:
    image = pytest.importorskip("matplotlib.image")
    result, out = found
    assert set(result.pictures()) == set(result.alt_texts()) == {"norms", "mnist-06-samples", "mnist-06-curves"}
    for name in result.pictures():
        assert min(image.imread(out / "table1" / f"{name}.png").shape[:2]) > 300
    again = load_result("table1", out).pictures()["norms"]()
    assert [bar.get_height() for bar in again.axes[0].patches] == [u.strongest.mean_l2 for u in of(result)]


def test_a_finished_run_is_read_and_not_run_again(
    found: tuple[table1.Result, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gradient_attack", "carlini_wagner_l2", "minimal_perturbation"):
        monkeypatch.setattr(study, name, lambda *_, **__: pytest.fail("it was run again"))
    monkeypatch.setattr(study.Study, "_train", lambda *_: pytest.fail("it was trained again"))
    assert numbers(run(found[1])) == numbers(found[0])


def test_an_interrupted_run_goes_on(
    found: tuple[table1.Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the CNN's attack: its training is kept, nothing half-written is left, and the numbers are the same."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study, "carlini_wagner_l2", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    kept = sorted(path.name.rsplit("-", 1)[0] for path in (tmp_path / "parts").iterdir())
    assert kept == ["mnist-06-bayes-gradient", "mnist-06-cnn-model", "mnist-06-cnn-training", "mnist-06-radii"]
    trained = []
    train = study.Study._train
    monkeypatch.setattr(study.Study, "_train", lambda self, who: (trained.append(who.name), train(self, who))[1])
    again = run(tmp_path)
    assert trained == ["linear-svm", "rbf-svm"]
    for one, two in zip(numbers(again), numbers(found[0]), strict=True):
        np.testing.assert_allclose(one[-3:], two[-3:], rtol=1e-5)


def test_what_a_classifier_learns_from_depends_on_all_that_was_drawn() -> None:
    """The first 100 of 200 samples are others than 100 samples: parts of the two must not meet."""
    base = mfakit.datasets.load_bayes_pair("mnist-06")

    def pair(n: int, seed: int = 0) -> SymmetricPair:
        return SymmetricPair("a", base, sigma=0.01, n_train=n, n_test=4, seed=seed)

    assert pair(200).training_key != pair(100).training_key == pair(100).training_key
    assert pair(200).test_key == pair(100).test_key != pair(100, 1).test_key
    assert not np.array_equal(pair(200).training_samples[0][:100], pair(100).training_samples[0])


def test_real_images_are_named_by_what_they_hold() -> None:
    X = np.random.default_rng(0).uniform(size=(30, 4)).astype(np.float32)
    y = np.arange(30) % 2

    def images(scale: float) -> RealImages:
        return RealImages(
            "real", ("a", "b"), lambda: (X * scale, y, X[:9] * scale, y[:9]), n_train=20, n_test=5, seed=0
        )

    assert images(1.0).training_key == images(1.0).training_key != images(0.5).training_key
    assert [len(part) for part in (*images(1.0).training_samples, *images(1.0).test_samples)] == [20, 20, 4, 4]
    with pytest.raises(ValueError, match="real are real images"):
        study.run_studies([images(1.0)], [LEARNERS["bayes"]], Context(progress=False), desc="x")
    linear = LEARNERS["linear-svm"].given(20)
    (s,) = study.run_studies([images(1.0)], [linear], Context(progress=False), desc="x")
    assert s.upper is None
    assert np.isnan([s.mean_radius, s.learners[0].attacks[0].median_ratio, s.learners[0].attacks[0].on_manifold]).all()


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


def test_pictures_show_all_classifiers_on_one_scale() -> None:
    pytest.importorskip("matplotlib")
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
    words = [
        "reproduce", "fig7", "--pair", "mnist-27", "--classifiers", "linear-svm", "--samples", "4",
        "--training-samples", "100", "--clip", "--cw-all", "--seed", "3", "--out", str(tmp_path), "--no-progress",
    ]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.split("written to")[0].split("\n"))) <= 100
    result = load_result("table1", tmp_path)
    assert result.config == table1.Config(
        pairs=("mnist-27",), classifiers=("linear-svm",), n=4, n_train=100, clip=True, cw_all=True, seed=3
    )  # fmt: skip
    (s,) = result.sets
    assert s.outside == 0.0
    for learner in s.learners:
        assert [a.attack for a in learner.attacks] == ["gradient", "CW-L2", "CW-L2 auto"]
        assert [tuple(a.settings["bounds"]) for a in learner.attacks] == [(0.0, 1.0)] * 3
    assert "clipped to [0, 1]" in printed
    with pytest.raises(SystemExit):
        main(["reproduce", "table1", "--quick", "--full"])


@pytest.mark.skipif(sys.platform == "win32", reason="starts processes")
def test_processes_share_the_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they have finished is what one process would have."""
    given: dict[str, Any] = {
        "pairs": ("mnist-06", "mnist-27"), "classifiers": ("bayes", "linear-svm"), "n": 4, "n_train": 60,
    }  # fmt: skip
    one = reproduce("table1", progress=False, **given)
    with monkeypatch.context() as patch:
        patch.setattr(study.Study, "_train", lambda *_: pytest.fail("trained in this process"))
        two = reproduce("table1", out=tmp_path, jobs=2, progress=False, **given)
    for a, b in zip(numbers(one), numbers(two), strict=True):
        assert (a[0], *a[2:6]) == (b[0], *b[2:6])
        np.testing.assert_allclose([a[1], *a[6:]], [b[1], *b[6:]], rtol=1e-6)
    with pytest.raises(RuntimeError, match="process 0 ended with status 1"):
        compute_parts(table1.run, [table1.Config(pairs=("nope",))], Context(out=tmp_path), 2)
    with pytest.raises(ValueError, match="jobs needs out"):
        reproduce("table1", jobs=2, **given)


def test_everything_runs_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_one(name: str, shared: dict[str, Any], changes: dict[str, Any]) -> None:
        if name == "theorems":
            raise FileNotFoundError("no images")
        asked.append((name, shared["scale"], changes))

    asked: list[Any] = []
    monkeypatch.setattr("mfakit.commands.reproduce._run_one", run_one)
    assert main(["reproduce", "all", "--quick", "--seed", "3", "--out", str(tmp_path)]) == 0
    assert [name for name, *_ in asked] == [name for name in EXPERIMENTS if name != "theorems"]
    assert all(given[1:] == ("quick", {"seed": 3}) for given in asked if given[0] != "claims")
    printed = capsys.readouterr().out
    assert "not run: no images" in printed
    assert f"{len(asked)} of {len(asked) + 1} experiments were run; not run: theorems" in printed
    assert main_status("reproduce", "--list") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*EXPERIMENTS, "figs16_19"))


def main_status(*words: str) -> int:
    try:
        return main(list(words))
    except SystemExit as stop:  # argparse
        return int(stop.code or 0)


def test_bad_arguments(tmp_path: Path) -> None:
    assert load_experiment("table1") is table1
    for given, message in (
        ({"pairs": ("nope",)}, "no shipped pair"),
        ({"classifiers": ("tree",)}, "classifiers must be some of bayes, cnn, .* got 'tree'"),
        ({"classifiers": ()}, "classifiers must be some of .* got none"),
        ({"n": 1}, "n must be an integer of at least 2"),
        ({"n_train": 5}, "n_train must be an integer of at least 10"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"sigma": 0.0}, "sigma must be a positive number"),
        ({"device": "tpu"}, "device"),
        ({"width": 0}, "width"),
        ({"clip": 1}, "clip must be True or False"),
    ):
        with pytest.raises(ValueError, match=message):
            reproduce("table1", out=tmp_path, **given)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("rbf-svm", {"gamma": -1.0}, "gamma must be a positive number"),
        ("linear-svm", {"C": 0.0}, "C must be a positive number"),
        ("cnn", {"label_smoothing": 2.0}, "label_smoothing must be"),
    ],
)
def test_arguments_of_classifiers_are_checked_before_any_work(
    name: str, parameters: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        study.run_studies([], [replace(LEARNERS[name], parameters=parameters)], Context(), desc="x")
