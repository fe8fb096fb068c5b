"""The parts of Table 1: samples of a pair, the certified radii, training, attacks, and what is counted of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._lazy import lazy
from ...attacks import AttackResult, carlini_wagner_l2, gradient_attack, minimal_perturbation
from ...attacks.result import PIXEL_THRESHOLD
from ...bayes.classifier import BayesClassifier
from ..resumable import Part, Store, Trained, digest_of_model

__all__ = [
    "CLASSIFIERS",
    "CW_AUTO",
    "LABELS",
    "AttackNumbers",
    "Pair",
    "PairNumbers",
    "Plan",
    "UnitNumbers",
    "unfitted",
]

Array = NDArray[Any]

CLASSIFIERS = ("bayes", "cnn", "linear-svm", "rbf-svm")
LABELS = {"bayes": "Bayes", "cnn": "CNN", "linear-svm": "linear SVM", "rbf-svm": "RBF SVM"}
CW, CW_AUTO, GRADIENT, LOG_RATIO = "CW-L2", "CW-L2 auto", "gradient", "log-ratio"
# Appendix C: the first attack of each is the paper's. Others stand beside where that one may fail by itself.
ATTACKS = {"bayes": (GRADIENT,), "cnn": (CW, CW_AUTO), "linear-svm": (GRADIENT,), "rbf-svm": (GRADIENT, LOG_RATIO)}
# 20 in ℓ2, twice the typical distance between two samples: an attack that has not succeeded by then never will.
STEP_SIZE, MAX_STEPS = 0.05, 400
# The robustness of each γ of a search: training samples of the machines, attacked samples, and the attack's steps, a
# hundredth of the typical distance between two samples.
PATH_TRAINING, PATH_SAMPLES, PATH_STEP, PATH_STEPS = 2000, 20, 0.1, 100
# Adam's step in CW-L2, with the paper's preset and with our defaults, in units of a pixel.
CW_RATE = 0.01
BOX = (0.0, 1.0)


@dataclass(frozen=True)
class Plan:
    """What is run for every pair; see :func:`mfakit.experiments.table1.run`."""

    n: int
    n_train: Mapping[str, int]
    sigma: float
    seed: int
    clip: bool
    cw_all: bool
    device: str
    parameters: Mapping[str, Mapping[str, Any]]

    def attacks(self, classifier: str) -> tuple[str, ...]:
        """Kinds of attack on a classifier, the one of Table 1 first."""
        beside = (CW, CW_AUTO) if self.cw_all else ()
        return tuple(dict.fromkeys((*ATTACKS[classifier], *beside)))

    @property
    def bounds(self) -> tuple[float, float] | None:
        """What every attack keeps within."""
        return BOX if self.clip else None


@dataclass(frozen=True, eq=False)
class AttackNumbers:
    """One attack on one classifier; ℓ2 in data units, shares are of 1.

    Attributes
    ----------
    attack : str
        "gradient" (appendix C.2, with its last step bisected), "closed form", "log-ratio" (the gradient attack along
        the log-ratio of the two kernel sums), "CW-L2" (the paper's preset) or "CW-L2 auto" (its first constant by the
        scale of the logits, more searches for samples that none has fooled, and a polished end).
    adversarial_accuracy : float
        Share of all samples that were right before the attack and were not fooled.
    adversarial_accuracy_paper : float
        The paper's count: share of all samples whose decision after the attack is right. Its attacks change the
        predicted class also of samples that were wrong before, which makes them right where there are two classes.
    mean_l2 : float
        Over the samples that were right and were fooled (section 2.4); NaN if there are none.
    median_ratio, mean_ratio : float
        Of a sample's ℓ2 to its certified Bayes radius; NaN if there are none.
    n_below_radius : int
        Samples fooled by less than their certified Bayes radius. Of the Bayes classifier itself none can be.
    within : float
        Share of pixels that changed by at most 5/255, over fooled samples.
    endings : dict
        How many samples ended how.
    settings : dict
        The attack's own parameters, with bounds.
    """

    attack: str
    adversarial_accuracy: float
    adversarial_accuracy_paper: float
    mean_l2: float
    median_ratio: float
    mean_ratio: float
    n_below_radius: int
    within: float
    endings: dict[str, int]
    seconds: float
    settings: dict[str, Any]


@dataclass(frozen=True, eq=False)
class UnitNumbers:
    """One classifier on one pair: `accuracy` on the attacked test samples, and what was found in training."""

    classifier: str
    n_train: int | None
    accuracy: float
    train_seconds: float
    training: dict[str, Any]
    attacks: list[AttackNumbers]


@dataclass(frozen=True, eq=False)
class PairNumbers:
    """One pair: `mean_radius` is the mean certified Bayes radius (its upper end; `mean_lower` the lower one) of the
    test samples that Bayes has right, `outside` the share of their pixels outside [0, 1].
    """

    pair: str
    n: int
    mean_radius: float
    mean_lower: float
    outside: float
    units: list[UnitNumbers] = field(default_factory=list)


class Pair:
    """A shipped pair in its symmetric variant, its samples, and the parts that are computed on them."""

    def __init__(self, name: str, base: BayesClassifier, plan: Plan, store: Store, progress: bool | None) -> None:
        self.name, self.plan, self.store, self.progress = name, plan, store, progress
        self.clf = base.symmetric(plan.sigma)
        self._samples = {
            "pair": name, "model": digest_of_model(self.clf), "seed": plan.seed, "clip": plan.clip,
        }  # fmt: skip
        self.points: dict[str, dict[str, Array]] = {}
        self._robust: dict[Any, dict[str, Array]] = {}

    @lazy
    def training_samples(self) -> tuple[Array, Array]:
        """X [n, d] and y [n], as many as the classifier that is given most."""
        return self._drawn(max(self.plan.n_train.values()), 0)

    @lazy
    def test_samples(self) -> tuple[Array, Array]:
        """X [n, d] and y [n], fresh ones, half of each class."""
        return self._drawn(self.plan.n, 1)

    def _drawn(self, n: int, stream: int) -> tuple[Array, Array]:
        # A pair's samples depend on the seed and its name, and not on which other pairs are run.
        rng = np.random.default_rng([self.plan.seed, stream, *self.name.encode()])
        X, y = self.clf.sample(n, rng=rng, balanced=True)
        return (np.clip(X, *BOX, out=X) if self.plan.clip else X), y

    def run(self, classifiers: tuple[str, ...], tell: Callable[[str], None]) -> PairNumbers:
        """All parts of this pair; `tell` is called with what is done next."""
        tell(f"{self.name} certified radii")
        lower, upper = self._radii()
        right, X = upper > 0, self.test_samples[0]
        numbers = PairNumbers(
            self.name, self.plan.n, _mean(upper[right]), _mean(lower[right]), float(((X < 0) | (X > 1)).mean())
        )
        for classifier in classifiers:
            numbers.units.append(self._unit(classifier, (lower, upper), tell))
        return numbers

    def _radii(self) -> tuple[Array, Array]:
        """Certified bounds on the smallest perturbation of each test sample, [n] each; 0 where already wrong."""

        def make() -> Part:
            r = minimal_perturbation(self.clf, *self.test_samples, progress=self.progress)
            return {"lower": r.lower, "upper": r.upper}, {}

        arrays, _ = self.store.part(f"{self.name}-radii", {**self._samples, "n": self.plan.n}, make)
        return arrays["lower"], arrays["upper"]

    def _unit(self, classifier: str, radii: tuple[Array, Array], tell: Callable[[str], None]) -> UnitNumbers:
        tell(f"{self.name} {LABELS[classifier]}: training")
        n_train = self.plan.n_train.get(classifier)
        key = {**self._samples, "classifier": classifier}
        if n_train is None:
            victim: _Given | Trained = _Given(self.clf)
        else:
            # All of them: a part that was made with other defaults is another part.
            parameters = unfitted(classifier, self._parameters(classifier)).get_params()
            key |= {"n_train": n_train, "parameters": {k: v for k, v in parameters.items() if k != "progress"}}
            victim = Trained(self.store, f"{self.name}-{classifier}", key, partial(self._train, classifier), self._read)
        attacks: list[AttackNumbers] = []
        found: dict[str, Any] = {}
        for kind in self.plan.attacks(classifier):
            tell(f"{self.name} {LABELS[classifier]}: {kind}")
            attack_key = {**key, "n": self.plan.n, "attack": kind, "steps": (STEP_SIZE, MAX_STEPS)}
            arrays, found = self.store.part(
                f"{self.name}-{classifier}-{kind.replace(' ', '-')}", attack_key, partial(self._attack, kind, victim)
            )
            attacks.append(_count(arrays, found, self.test_samples[0], radii))
            self.points.setdefault(classifier, arrays)
        return UnitNumbers(classifier, n_train, found["accuracy"], victim.seconds, found["training"], attacks)

    def _parameters(self, classifier: str) -> dict[str, Any]:
        usual: dict[str, dict[str, Any]] = {
            "cnn": {"device": self.plan.device, "random_state": self.plan.seed},
            "rbf-svm": {"gamma": "largest-accurate", "random_state": self.plan.seed},
        }
        return {**usual.get(classifier, {}), **self.plan.parameters.get(classifier, {})}

    def _train(self, classifier: str) -> Any:
        X, y = (values[: self.plan.n_train[classifier]] for values in self.training_samples)
        parameters = self._parameters(classifier)
        if classifier != "linear-svm":
            parameters = {"progress": self.progress, **parameters}
        return unfitted(classifier, parameters).fit(X, y)

    def _read(self, path: Path) -> Any:
        from ... import classifiers

        clf = classifiers.load(path)
        if hasattr(clf, "module_"):  # files do not say where a network is to run
            from ...classifiers.networks.network import as_device

            clf.set_params(device=self.plan.device)
            clf.module_.to(as_device(self.plan.device))
        return clf

    def _attack(self, kind: str, victim: _Given | Trained) -> Part:
        clf = victim.classifier
        start = time.perf_counter()
        X, y = self.test_samples
        r = self._attacked(kind, clf, X, y)
        seconds, righted = time.perf_counter() - start, np.zeros(len(y), bool)
        # The paper's attacks have no labels, and change the decisions on samples that were wrong as well.
        wrong = np.flatnonzero(r.already_wrong)
        if len(wrong):
            again = self._attacked(kind, clf, X[wrong], None)
            righted[wrong] = again.success & (again.y_adv == y[wrong])
        label = "closed form" if r.settings.get("path") == "closed-form" else kind
        numbers = {
            "attack": label, "accuracy": r.accuracy, "endings": dict(Counter(r.reason.tolist())),
            "seconds": seconds, "settings": r.settings, "training": self._learned(clf),
        }  # fmt: skip
        arrays = {"x_adv": r.x_adv, "success": r.success, "already_wrong": r.already_wrong, "righted": righted}
        return arrays, numbers

    def _learned(self, clf: Any) -> dict[str, Any]:
        """What training found; of an RBF machine that searched for γ also how robust each γ is."""
        found = _learned(clf)
        if "gamma_path" in found:
            found["gamma_path"] |= self._robustness(found["gamma_path"]["gammas"].tolist(), clf.C)
        return found

    def _robustness(self, gammas: Sequence[float], C: float) -> dict[str, Array]:
        """By γ, mean ℓ2 of the gradient attack on a few test samples, and the share that was not fooled."""
        key = (tuple(gammas), C)
        if key not in self._robust:
            X, y = (values[:PATH_TRAINING] for values in self.training_samples)
            few, labels = (values[:PATH_SAMPLES] for values in self.test_samples)
            results = []
            for gamma in gammas:
                svm = unfitted("rbf-svm", {"gamma": gamma, "C": C}).fit(X, y)
                results.append(
                    gradient_attack(svm, few, labels, step_size=PATH_STEP, max_steps=PATH_STEPS, polish=True)
                )
            self._robust[key] = {
                "mean_l2": np.array([r.mean_l2 for r in results]),
                "adversarial_accuracy": np.array([r.adversarial_accuracy for r in results]),
            }
        return self._robust[key]

    def _attacked(self, kind: str, clf: Any, X: Array, y: Array | None) -> AttackResult:
        bounds, progress = self.plan.bounds, self.progress
        if kind in (CW, CW_AUTO):
            preset = "paper" if kind == CW else None
            return carlini_wagner_l2(clf, X, y, preset=preset, bounds=bounds, learning_rate=CW_RATE, progress=progress)
        direction = LOG_RATIO if kind == LOG_RATIO else GRADIENT
        return gradient_attack(
            clf, X, y, step_size=STEP_SIZE, max_steps=MAX_STEPS, polish=True, direction=direction, bounds=bounds,
            progress=progress,
        )  # fmt: skip


def unfitted(classifier: str, parameters: Mapping[str, Any]) -> Any:
    """One of the classifiers that are trained, with these arguments of its constructor."""
    from ... import classifiers

    names = {"cnn": "CNN", "linear-svm": "LinearSVM", "rbf-svm": "RBFSVM"}
    return getattr(classifiers, names[classifier])(**parameters)


class _Given:
    """The Bayes classifier, which nobody trains."""

    seconds = 0.0

    def __init__(self, clf: BayesClassifier) -> None:
        self.classifier = clf


def _learned(clf: Any) -> dict[str, Any]:
    """What training found: γ and its path, support vectors, the network's size."""
    found: dict[str, Any] = {}
    if hasattr(clf, "support_"):
        found["n_support"] = len(clf.support_)
    if hasattr(clf, "gamma_path_"):
        path = clf.gamma_path_
        found["gamma_path"] = {name: getattr(path, name) for name in ("gammas", "accuracy", "n_support")}
    if hasattr(clf, "gamma_"):
        found["gamma"] = clf.gamma_
    if hasattr(clf, "module_"):
        found["n_weights"] = sum(p.numel() for p in clf.module_.parameters())
        found |= {name: getattr(clf, name) for name in ("width", "depth", "epochs", "label_smoothing")}
    return found


def _count(arrays: dict[str, Array], found: dict[str, Any], X: Array, radii: tuple[Array, Array]) -> AttackNumbers:
    """What Table 1 says of an attack; from its arrays, so that a part that was read gives the same numbers."""
    success, wrong = arrays["success"], arrays["already_wrong"]
    change = arrays["x_adv"][success].astype(np.float64) - X[success]
    l2 = np.linalg.norm(change, axis=1)
    lower, upper = (values[success] for values in radii)
    graded = np.isfinite(upper) & (upper > 0)
    ratio = l2[graded] / upper[graded]
    return AttackNumbers(
        attack=found["attack"],
        adversarial_accuracy=float((~wrong & ~success).mean()),
        adversarial_accuracy_paper=float(((~wrong & ~success) | arrays["righted"]).mean()),
        mean_l2=_mean(l2),
        median_ratio=float(np.median(ratio)) if ratio.size else float("nan"),
        mean_ratio=_mean(ratio),
        n_below_radius=int((l2[graded] < lower[graded]).sum()),
        within=_mean(np.abs(change) <= PIXEL_THRESHOLD),
        endings=found["endings"],
        seconds=found["seconds"],
        settings=found["settings"],
    )


def _mean(values: Array) -> float:
    """The mean, NaN of none."""
    return float(values.mean()) if values.size else float("nan")
