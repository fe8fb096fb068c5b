"""The paper's claims: each can hold and fail, and says so from numbers; what is missing or damaged is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfakit.experiments import EXPERIMENTS, Outcome, bayes, fig4, fig6, load_result, reproduce, table1, table3, theorems
from mfakit.experiments.claims import CLAIMS, Finding, evaluate
from mfakit.experiments.collection import Collection
from mfakit.experiments.study.numbers import AttackNumbers, LearnerNumbers, SetNumbers
from mfakit.plots.histograms import PixelChanges
from mfakit.plots.planes import PlaneCase

NOTHING = PixelChanges.of(np.zeros((1, 4)))


def attack(name: str, l2: float, ratio: float, left: float = 0.0, within: float = 0.5) -> AttackNumbers:
    """An attack with these means; `left` is the share that it does not fool."""
    return AttackNumbers(
        name, left, left, l2, ratio, ratio, 0, within, 0.1, {}, 0.1, {}, np.full(4, l2), np.zeros(4, bool),
        np.zeros((0, 4)), NOTHING,
    )  # fmt: skip


def learner(
    kind: str, *attacks: AttackNumbers, label: str = "", accuracy: float = 1.0, gamma: float | None = None
) -> LearnerNumbers:
    training = {} if gamma is None else {"gamma": gamma}
    return LearnerNumbers(label or kind, label or kind, kind, 100, accuracy, 0.1, training, list(attacks))


def data_set(*learners: LearnerNumbers, name: str = "mnist-06") -> SetNumbers:
    upper = np.full(4, 3.0)
    return SetNumbers(name, 4, ("0", "1"), 0.1, upper, upper, np.zeros((0, 4)), np.zeros(0), list(learners))


def study(*sets: SetNumbers) -> table1.Result:
    return table1.Result(config=table1.Config(), sets=list(sets))


def pair(variant: str, name: str = "mnist-06", **changes: Any) -> bayes.PairResult:
    made = bayes.PairResult(
        name, variant, 8, 1.0, None, 1.0, 3.0 if variant == "symmetric" else 0.5, 2.9, 2.9, 2.75, 0, 1.0, None,
        0.6 if variant == "symmetric" else 0.9, [], 0.1, np.zeros(8), np.zeros(8), np.zeros((2, 0, 4)), [], NOTHING,
    )  # fmt: skip
    return replace(made, **changes)


def pairs(*rows: bayes.PairResult) -> bayes.Result:
    return bayes.Result(config=bayes.Config(), results=list(rows))


def transfer(**losses: float) -> table3.Result:
    rows = tuple(table3.Row(f"celeba-{name}", 8, 8, 0.92, 0.92 - loss, 0.9) for name, loss in losses.items())
    return table3.Result(config=table3.Config(), rows=rows)


def finding(name: str, **found: Outcome) -> Finding:
    collection = Collection(None, found, {}, tuple(e for e in EXPERIMENTS if e not in found))
    (one,) = [f for f in evaluate(collection) if f.name == name]
    return one


def two_images(share: float = 1.0, *, n: int = 100, ratio: float = 0.1) -> fig4.Result:
    """Certified radii around a share of ‖d‖/2 = 20, with deviations of .1; a CNN fooled at a ratio of them."""
    radii = 20 * share + 0.1 * np.where(np.arange(n) % 2, 1.0, -1.0)
    sets = [data_set(learner("cnn", attack("CW-L2 auto", 20 * ratio, ratio)), name="two-images")]
    return fig4.Result(config=fig4.Config(), sets=sets, half_distance=20.0, radii=radii, shape=(8, 8, 3))


def planes(misled: float | None, *, usual: float = 0.5, accuracy: float = 1.0, asymmetric: float = 0.02) -> fig6.Result:
    """Two pairs of classes; distances of the nearest samples, where the optimal one of symmetric classes is .6."""
    networks = {fig6.CONTROL: usual} if misled is None else {fig6.MISLED: misled, fig6.CONTROL: usual}
    cases = [
        fig6.Case(
            name, PlaneCase(name, np.zeros((0, 2)), np.zeros(0, int), (-1, 1, -1, 1)),
            dict.fromkeys([fig6.OPTIMAL, *networks], accuracy),
            {label: np.full(4, l2) for label, l2 in {fig6.OPTIMAL: optimal, **networks}.items()},
        )
        for name, optimal in (("asymmetric", asymmetric), ("symmetric", 0.6))
    ]  # fmt: skip
    return fig6.Result(config=fig6.Config(), cases=cases)


BAYES = learner("bayes", attack("gradient", 3.0, 1.01))
CNN = learner("cnn", attack("CW-L2", 1.8, 0.6))
LINEAR = learner("linear-svm", attack("closed form", 1.2, 0.4))
RBF = learner("rbf-svm", attack("gradient", 3.2, 1.1, left=0.3), attack("log-ratio", 2.9, 0.98))
WEAK_RBF = learner("rbf-svm", attack("log-ratio", 2.0, 0.7))
FACES = (pair("symmetric", "celeba-Male", mean_l2=3.3), pair("asymmetric", "celeba-Male", mean_l2=1.0))

# By claim: results with which it holds, results with which it fails, and what its numbers then say.
CASES: dict[str, tuple[dict[str, Outcome], dict[str, Outcome], str]] = {
    "theorem-1": (
        {"fig4": two_images(1.0014)},
        {"fig4": two_images(1.0016)},
        "is 1.0016 of ‖d‖/2, with a standard error of 0.0005; the smallest is 0.997",
    ),
    "two-images-cnn": (
        {"fig4": two_images()},
        {"fig4": two_images(ratio=0.8)},
        "fooled at 0.80 of the certified Bayes radius (median), mean ℓ2 16.00",
    ),
    "two-causes": (
        {"fig6": planes(0.2)},
        {"fig6": planes(0.4, usual=0.3)},
        "misled first has 0.67 of that, one that starts as usual 0.50",
    ),
    "bayes-accurate": (
        {"table1": study(data_set(BAYES)), "bayes": pairs(pair("symmetric"))},
        {"bayes": pairs(pair("symmetric", success_rate=0.9))},
        "at most 10.0% are right",
    ),
    "half-distance": (
        {"bayes": pairs(pair("symmetric"))},
        {"bayes": pairs(pair("symmetric"), pair("symmetric", "x", mean_l2=4.0))},
        "1.09 to 1.45 times",
    ),
    "asymmetric": (
        {"bayes": pairs(pair("symmetric"), pair("asymmetric"))},
        {"bayes": pairs(pair("symmetric", mean_l2=3.3), pair("asymmetric", mean_l2=2.0))},
        "asymmetric 2.00, which is 61% of it",
    ),
    "imperceptible": (
        {"bayes": pairs(*FACES)},
        {"bayes": pairs(FACES[0], replace(FACES[1], mean_l2=2.0, within=0.72))},
        "Mean ℓ2 2.00; 72% of the pixels",
    ),
    "norms-and-pixels": (
        {"bayes": pairs(*FACES)},
        {"bayes": pairs(replace(FACES[0], within=0.95), FACES[1])},
        "95% (1 attacks)",
    ),
    "cnn-brittle": (
        {"table1": study(data_set(CNN), data_set(CNN, name="mnist-27"))},
        {"table1": study(data_set(CNN), data_set(learner("cnn", attack("CW-L2", 2.5, 0.9)), name="mnist-27"))},
        "0.60 to 0.90 of the certified Bayes radius",
    ),
    "linear-brittle": (
        {"table1": study(data_set(LINEAR))},
        {"table1": study(data_set(learner("linear-svm", attack("closed form", 1.2, 0.4), accuracy=0.7)))},
        "70.0% right",
    ),
    "rbf-robust": (
        {"table1": study(data_set(WEAK_RBF, RBF))},
        {"table1": study(data_set(RBF), data_set(WEAK_RBF, name="mnist-27"))},
        "0.70 to 0.98",
    ),
    "large-bandwidth": (
        {"table1": study(data_set(LINEAR, learner("rbf-svm", attack("gradient", 1.3, 0.4), gamma=0.001)))},
        {"table1": study(data_set(LINEAR, learner("rbf-svm", attack("gradient", 2.26, 0.7), gamma=0.001)))},
        "1.88 times",
    ),
    "cnn-settings": (
        {"fig9": study(data_set(CNN, learner("cnn", attack("CW-L2", 1.9, 0.7), label="wide")))},
        {"fig9": study(data_set(CNN, learner("cnn", attack("CW-L2", 2.9, 0.9), label="wide")))},
        "the most robust: wide",
    ),
    "trades": (
        {"fig10": study(data_set(BAYES, learner("trades", attack("CW-L2", 3.0, 1.0), label="β 6", accuracy=0.8)))},
        {"fig10": study(data_set(BAYES, learner("trades", attack("CW-L2", 3.0, 1.0), label="β 6", accuracy=0.99)))},
        "β 6 99.0% right at 1.00 of the certified radius; robust: β 6",
    ),
    "real-faces": (
        {"table2": study(data_set(CNN, LINEAR, RBF, name="celeba-Male"))},
        {"table2": study(data_set(learner("cnn", attack("CW-L2", 3.0, np.nan)), LINEAR, RBF, name="celeba-Male"))},
        "CNNs need 1.03",
    ),
    "real-objects": (
        {"fig12": study(data_set(CNN, LINEAR, RBF, name="cifar10-01"))},
        {"fig12": study(data_set(CNN, learner("linear-svm", attack("closed form", 2.6, 0.8)), RBF, name="cifar10-01"))},
        "linear SVMs 0.90",
    ),
    "transfer": (
        {"table3": transfer(Male=0.04)},
        {"table3": transfer(Male=0.04, Smiling=0.2)},
        "celeba-Male 4.0, celeba-Smiling 20.0",
    ),
    "attacks-agree": (
        {"table1": study(data_set(learner("rbf-svm", attack("gradient", 3.0, 1.0), attack("CW-L2 auto", 2.9, 1.0))))},
        {"table1": study(data_set(learner("bayes", attack("gradient", 3.0, 1.0), attack("CW-L2", 2.0, 0.7))))},
        "furthest from it: bayes on mnist-06, 0.67",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_claim_holds_or_fails_by_its_numbers(name: str) -> None:
    good, bad, said = CASES[name]
    held, failed = finding(name, **good), finding(name, **bad)
    assert (held.verdict, failed.verdict) == ("holds", "fails"), (held.numbers, failed.numbers)
    assert said in failed.numbers
    for found in (held, failed):
        assert found.scope
        assert found.numbers.endswith(".")
        assert found.read


@pytest.fixture(scope="module")
def measured() -> theorems.Result:
    found = reproduce("theorems", pairs=("mnist-06",), n=3, sigmas=(0.01, 0.0003), progress=False)
    assert isinstance(found, theorems.Result)
    return found


def test_the_theorems_are_decided_from_their_validations(measured: theorems.Result) -> None:
    (row,) = measured.results
    verdicts = {f.name: f for f in evaluate(Collection(None, {"theorems": measured}, {}, ()))}
    assert [verdicts[n].verdict for n in ("theorem-2", "theorem-3")] == ["holds", "holds"]
    singular = verdicts["theorem-2-singular-values"]
    assert singular.verdict == "fails"
    assert f"up to {np.exp(row.assumptions.singular_value_spread):.1f} times" in singular.numbers
    equal = replace(row, assumptions=replace(row.assumptions, singular_value_spread=0.05))
    far = replace(row.theorem3, upper=row.theorem3.upper + 1)
    short = replace(row.theorem2, lower=row.theorem2.lower * 0.1)
    changed = replace(measured, results=[replace(equal, theorem3=far, theorem2=short)])
    assert finding("theorem-2-singular-values", theorems=changed).verdict == "holds"
    assert finding("theorem-3", theorems=changed).verdict == "fails"
    assert finding("theorem-2", theorems=changed).verdict == "fails"


@pytest.mark.parametrize(
    "found", [planes(0.5, usual=0.6), planes(0.2, accuracy=0.9), planes(0.2, asymmetric=0.4), planes(0.35, usual=0.3)]
)
def test_each_part_of_the_rule_of_two_causes_can_fail(found: fig6.Result) -> None:
    assert finding("two-causes", fig6=found).verdict == "fails"


def test_how_many_dynamic_samples_there_were_is_said() -> None:
    many = replace(CNN, name="fresh-10000", label="10,000 fresh")
    one = finding("cnn-settings", fig9=study(data_set(CNN, many)))
    assert one.scope.endswith("; at most 10,000 dynamic samples of the paper's 1,000,000")
    assert one.numbers.startswith("2 settings (cnn; 10,000 fresh) need 0.60 of")


def test_every_claim_is_tested_and_named_once() -> None:
    theory = {"theorem-2", "theorem-2-singular-values", "theorem-3"}
    assert sorted(claim.name for claim in CLAIMS) == sorted({*CASES, *theory})


def test_nothing_is_decided_without_results() -> None:
    found = evaluate(Collection(None, {}, {"table1": "result.json is not readable JSON"}, ("bayes",)))
    assert {f.verdict for f in found} == {"not measured"}
    said = {f.name: f.numbers for f in found}
    assert said["half-distance"] == "To measure it: mfakit reproduce bayes."
    assert said["cnn-brittle"].startswith(
        "The result of table1 cannot be read (result.json is not readable JSON); to meas"
    )


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("cnn-brittle", study(data_set(BAYES)), "No data set in table1 was learned by: cnn."),
        ("cnn-brittle", study(data_set(learner("cnn", attack("CW-L2", np.nan, np.nan, 1.0)))), "No sample was fooled"),
        ("cnn-brittle", study(data_set(learner("cnn"))), "The numbers of table1 do not fit together: "),
        ("large-bandwidth", study(data_set(LINEAR, RBF)), "No RBF SVM with γ of at most 0.002 was trained"),
        ("attacks-agree", study(data_set(RBF, CNN)), "No classifier in cw_vs_gradient was attacked by both"),
        ("cnn-settings", study(data_set(CNN)), "Fewer than two settings of the CNN were measured."),
        ("trades", study(data_set(learner("trades", attack("CW-L2", 3.0, 1.0)))), "The results lack TRADES CNNs, or"),
        ("transfer", transfer(), "The result of table3 has no data sets."),
        ("real-faces", study(data_set(CNN, LINEAR, RBF)), "No data set in table2 is called celeba-..."),
        ("rbf-robust", study(data_set(replace(RBF, accuracy=0.5))), "No RBF SVM is right on 85%"),
        (
            "theorem-1",
            two_images(n=10),
            "The mean of 10 certified radii has a standard error above 0.1% of",
        ),
        ("theorem-1", two_images(n=0), "The mean of 0 certified radii has a standard error above"),
        ("two-causes", planes(None), "No network was misled first; leave out --misled 0."),
    ],
)
def test_why_a_claim_is_not_measured(name: str, found: Outcome, message: str) -> None:
    (claim,) = [claim for claim in CLAIMS if claim.name == name]
    one = finding(name, **{claim.needs[0]: found})
    assert (one.verdict, one.scope) == ("not measured", "")
    assert one.numbers.startswith(message)


def test_pixels_are_judged_on_faces_alone() -> None:
    digits = pairs(pair("symmetric"), pair("asymmetric"))
    for name in ("imperceptible", "norms-and-pixels"):
        one = finding(name, bayes=digits)
        assert one.verdict == "not measured"
        assert "The paper says it of faces" in one.numbers
    assert "digits: mean ℓ2 0.50, 90% of the pixels" in finding("imperceptible", bayes=digits).numbers


def test_the_experiment_reads_what_the_folder_holds(tmp_path: Path, quiet: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bayes.Result, "pictures", lambda _: {})
        pairs(pair("symmetric"), pair("asymmetric")).write(tmp_path / "bayes")
    (tmp_path / "table1").mkdir()
    (tmp_path / "table1" / "result.json").write_text("no JSON")
    status, out, err = quiet("reproduce", "claims", "--out", str(tmp_path))
    assert (status, err) == (0, "")
    assert "Fooling the optimal classifier takes half the distance to the other class" in out
    assert "cannot be read" in out
    loaded: Any = load_result("claims", tmp_path)
    assert len(loaded.findings) == len(CLAIMS)
    by_name = {f.name: f for f in loaded.findings}
    assert by_name["half-distance"].verdict == "holds"
    assert by_name["half-distance"].read == ("bayes",)
    assert by_name["cnn-brittle"].verdict == "not measured"
    assert list(EXPERIMENTS)[-1] == "claims"  # it reads what the others have left
