"""One data set: certified radii, trainings and attacks, each a part that is kept; and what is counted of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..._io.progress import open_bar
from ..._lazy import lazy
from ...attacks import AttackResult, carlini_wagner_l2, gradient_attack, minimal_perturbation
from ...attacks.result import PIXEL_THRESHOLD
from ...bayes.classifier import BayesClassifier
from ...plots.histograms import PixelChanges
from ..outcome import Context
from ..resumable import Part, Trained
from .data import BOX, DataSet
from .learners import CW, CW_AUTO, LOG_RATIO, Learner, unfitted
from .numbers import AttackNumbers, LearnerNumbers, SetNumbers, mean

__all__ = ["Study", "device_for", "run_studies"]

Array = NDArray[Any]
Radii = tuple[Array, Array] | None

# 20 in ℓ2, twice the typical distance between two samples: an attack that has not succeeded by then never will.
STEP_SIZE, MAX_STEPS = 0.05, 400
# Adam's step in CW-L2, with the paper's preset and with our defaults, in units of a pixel.
CW_RATE = 0.01
SHOWN_PER_CLASS = 4


def run_studies(
    sets: Sequence[DataSet], learners: Sequence[Learner], context: Context, *, clip: bool = False,
    step_size: float = STEP_SIZE, desc: str,
) -> list[SetNumbers]:  # fmt: skip
    """Every data set with every learner; finished parts are kept in the context's store. `clip` keeps every attack in
    [0, 1], and `step_size` is that of the gradient attack.

    Raises
    ------
    ValueError
        For parameters of a learner out of range.
    ImportError
        Without torch, for networks and CW-L2.
    """
    for learner in learners:
        learner.check()
    device = device_for(context.device, learners)
    steps = sum(2 + len(learner.attacks) for learner in learners) * len(sets)
    found = []
    with open_bar(context.progress, total=steps, unit="part", desc=desc) as bar:

        def tell(what: str) -> None:
            bar.set_description(f"{desc}: {what}")
            bar.update()

        for data in sets:
            found.append(Study(data, context, device, clip=clip, step_size=step_size).run(learners, tell))
    return found


def device_for(name: str, learners: Sequence[Learner]) -> str:
    """What "auto" is here, since parts of another device are others; "" where no network is run."""
    if not any(learner.kind in ("cnn", "trades") or {CW, CW_AUTO} & set(learner.attacks) for learner in learners):
        return ""
    try:
        from ...classifiers.networks.network import as_device
    except ImportError as error:
        raise ImportError("networks and CW-L2 need torch: pip install 'mfakit[torch]', or leave them out") from error
    return str(as_device(name))


class Study:
    """A data set, and the parts that are computed on it."""

    def __init__(
        self, data: DataSet, context: Context, device: str, *, clip: bool = False, step_size: float = STEP_SIZE
    ) -> None:
        self.data, self.store, self.progress, self.device = data, context.store, context.progress, device
        self.bounds, self.step_size = BOX if clip else None, step_size

    def run(self, learners: Sequence[Learner], tell: Callable[[str], None]) -> SetNumbers:
        """All parts; `tell` is called with what was done last."""
        radii = self._radii
        tell(f"{self.data.name} certified radii")
        points = {learner.name: self._parts_of(learner, tell) for learner in learners}
        (X, y), rows = self.data.test_samples, self._shown([attacks[0][0] for _, attacks in points.values()])
        numbers = []
        for learner in learners:
            seconds, attacks = points[learner.name]
            first = attacks[0][1]
            numbers.append(
                LearnerNumbers(
                    learner.name, learner.label, learner.kind, learner.n_train, first["accuracy"], seconds,
                    first["training"], [self._count(*part, X, radii, rows) for part in attacks],
                )
            )  # fmt: skip
        lower, upper = (None, None) if radii is None else radii
        outside = float(((X < 0) | (X > 1)).mean())
        return SetNumbers(self.data.name, len(X), self.data.classes, outside, lower, upper, X[rows], y[rows], numbers)

    @lazy
    def _radii(self) -> Radii:
        """Certified bounds on the smallest perturbation of each test sample, [n] each; 0 where already wrong."""
        model = self.data.model
        if model is None:
            return None

        def make() -> Part:
            r = minimal_perturbation(model, *self.data.test_samples, progress=self.progress)
            return {"lower": r.lower, "upper": r.upper}, {}

        arrays, _ = self.store.part(f"{self.data.name}-radii", self.data.test_key, make)
        return arrays["lower"], arrays["upper"]

    def trained(self, learner: Learner) -> Trained | _Given:
        """The classifier: read, or trained when it is first asked for."""
        if learner.kind == "bayes":
            if self.data.model is None:
                raise ValueError(f"{self.data.name} are real images, whose optimal classifier nobody knows")
            return _Given(self.data.model)
        return Trained(
            self.store, f"{self.data.name}-{learner.kind}", self._training_key(learner),
            partial(self._train, learner), self._read,
        )  # fmt: skip

    def _training_key(self, learner: Learner) -> dict[str, Any]:
        if learner.kind == "bayes":
            return {"kind": "bayes"}
        # All of them: a part that was made with other defaults is another part.
        parameters = unfitted(learner.kind, self._parameters(learner)).get_params()
        kept = {k: v for k, v in parameters.items() if k not in ("progress", "n_threads")}
        samples = {**self.data.training_key, "n_train": learner.n_train, "n_steps": learner.n_steps}
        return {**samples, "kind": learner.kind, "parameters": kept}

    def _parameters(self, learner: Learner) -> dict[str, Any]:
        usual: dict[str, Any] = {} if learner.kind == "linear-svm" else {"random_state": 0}
        if learner.kind in ("cnn", "trades"):
            usual["device"] = self.device
        return {**usual, **learner.parameters}

    def _train(self, learner: Learner) -> Any:
        parameters = self._parameters(learner)
        if learner.kind != "linear-svm":
            parameters = {"progress": self.progress, **parameters}
        clf = unfitted(learner.kind, parameters)
        if learner.n_steps is not None:
            return clf.fit_stream(self.data.model, learner.n_steps)
        X, y = (values[: learner.n_train] for values in self.data.training_samples)
        return clf.fit(X, y)

    def _read(self, path: Path) -> Any:
        from ... import classifiers

        clf = classifiers.load(path)
        if hasattr(clf, "module_"):  # files do not say where a network is to run
            from ...classifiers.networks.network import as_device

            clf.set_params(device=self.device)
            clf.module_.to(as_device(self.device))
        return clf

    def _parts_of(self, learner: Learner, tell: Callable[[str], None]) -> tuple[float, list[Part]]:
        """Seconds of training, and what each attack found."""
        victim = self.trained(learner)
        tell(f"{self.data.name} {learner.label}: training")
        attacks = []
        for kind in learner.attacks:
            key = {
                **self.data.test_key, "trained": self._training_key(learner), "attack": kind, "bounds": self.bounds,
                "steps": (self.step_size, MAX_STEPS, CW_RATE),
            }  # fmt: skip
            name = f"{self.data.name}-{learner.kind}-{kind.replace(' ', '-')}"
            attacks.append(self.store.part(name, key, partial(self._attack, kind, victim)))
            tell(f"{self.data.name} {learner.label}: {kind}")
        return victim.seconds, attacks

    def _attack(self, kind: str, victim: _Given | Trained) -> Part:
        clf = victim.classifier
        start = time.perf_counter()
        X, y = self.data.test_samples
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
            "seconds": seconds, "settings": r.settings, "training": _learned(clf),
        }  # fmt: skip
        arrays = {"x_adv": r.x_adv, "success": r.success, "already_wrong": r.already_wrong, "righted": righted}
        return arrays, numbers

    def _attacked(self, kind: str, clf: Any, X: Array, y: Array | None) -> AttackResult:
        bounds, progress = self.bounds, self.progress
        if kind in (CW, CW_AUTO):
            preset: Literal["paper"] | None = "paper" if kind == CW else None
            return carlini_wagner_l2(clf, X, y, preset=preset, bounds=bounds, learning_rate=CW_RATE, progress=progress)
        return gradient_attack(
            clf, X, y, step_size=self.step_size, max_steps=MAX_STEPS, polish=True,
            direction="log-ratio" if kind == LOG_RATIO else "gradient", bounds=bounds, progress=progress,
        )  # fmt: skip

    def _shown(self, attacks: Sequence[dict[str, Array]]) -> Array:
        """Rows to show: of each class a few that most attacks have moved."""
        y = self.data.test_samples[1]
        fooled = np.sum([found["success"] for found in attacks], axis=0)
        each = [sorted(np.flatnonzero(y == c), key=lambda i: -fooled[i])[:SHOWN_PER_CLASS] for c in (0, 1)]
        return np.concatenate(each).astype(np.int64)

    @lazy
    def _tangents(self) -> list[Array] | None:
        """By test sample an orthonormal basis [d, r] of the subspace of its own component."""
        model = self.data.model
        return None if model is None else _own_subspaces(model, *self.data.test_samples)

    def _count(
        self, arrays: dict[str, Array], found: dict[str, Any], X: Array, radii: Radii, rows: Array
    ) -> AttackNumbers:  # fmt: skip
        """What is said of an attack; from its arrays, so that a part that was read gives the same numbers."""
        success, wrong = arrays["success"], arrays["already_wrong"]
        moved = np.where(success[:, None], arrays["x_adv"].astype(np.float64), np.nan)
        change = moved[success] - X[success]
        l2 = np.full(len(X), np.nan)
        l2[success] = np.linalg.norm(change, axis=1)
        ratio, below = np.zeros(0), 0
        if radii is not None:
            lower, upper = radii
            graded = success & np.isfinite(upper) & (upper > 0)
            ratio, below = l2[graded] / upper[graded], int((l2[graded] < lower[graded]).sum())
        on_manifold = float("nan")
        if self._tangents is not None:
            along = [self._tangents[i].T @ c for i, c in zip(np.flatnonzero(success), change, strict=True)]
            on_manifold = mean(np.array([a @ a for a in along]) / np.square(l2[success]))
        return AttackNumbers(
            attack=found["attack"],
            adversarial_accuracy=float((~wrong & ~success).mean()),
            adversarial_accuracy_paper=float(((~wrong & ~success) | arrays["righted"]).mean()),
            mean_l2=mean(l2[success]),
            median_ratio=float(np.median(ratio)) if ratio.size else float("nan"),
            mean_ratio=mean(ratio),
            n_below_radius=below,
            within=mean(np.abs(change) <= PIXEL_THRESHOLD),
            on_manifold=on_manifold,
            endings=found["endings"],
            seconds=found["seconds"],
            settings=found["settings"],
            l2=l2,
            already_wrong=wrong,
            moved=moved[rows].astype(np.float32),
            changes=PixelChanges.of(change),
        )


def _own_subspaces(model: BayesClassifier, X: Array, y: Array) -> list[Array]:
    """By sample an orthonormal basis [d, r] of the likeliest component of its own class; r counts the loadings'
    independent directions.
    """
    bases: dict[tuple[int, int], Array] = {}
    found = []
    labels = [model.mixtures[c].responsibilities(X).argmax(axis=1) for c in range(len(model.mixtures))]
    for i, c in enumerate(np.asarray(y)):
        j = int(labels[c][i])
        if (int(c), j) not in bases:
            u, s, _ = np.linalg.svd(model.mixtures[c].loadings[j], full_matrices=False)
            bases[int(c), j] = u[:, s > s.max(initial=0.0) * 1e-10]
        found.append(bases[int(c), j])
    return found


class _Given:
    """The Bayes classifier, which is not trained."""

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
        found["gamma_path"] = {name: getattr(path, name).tolist() for name in ("gammas", "accuracy", "n_support")}
    if hasattr(clf, "gamma_"):
        found["gamma"] = clf.gamma_
    if hasattr(clf, "module_"):
        found["n_weights"] = sum(p.numel() for p in clf.module_.parameters())
        found |= {name: getattr(clf, name) for name in ("width", "depth", "epochs", "label_smoothing")}
    return found
