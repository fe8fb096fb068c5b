"""Tables, notes and pictures of data sets whose classifiers were attacked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..._io.report import NOT_KNOWN, Table, number, percent
from ..outcome import Outcome, Picture
from ..paper import Accuracies
from .learners import LEARNERS
from .numbers import AttackNumbers, LearnerNumbers, SetNumbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["StudyOutcome", "classifier_colors"]

Array = NDArray[Any]

COLUMNS = (
    "data", "classifier", "attack", "acc.\n(%)", "not\nfooled", "adv.\n(%)", "mean\nℓ2", "ratio", "along\n(%)",
    "paper\nacc. (adv.)", "adv.\n- paper",
)  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class StudyOutcome(Outcome):
    """Every learner on every data set, beside what the paper prints of them."""

    paper: ClassVar[Accuracies] = {}

    sets: list[SetNumbers]

    def tables(self) -> dict[str, Table]:
        """Each classifier under each of its attacks, beside the paper's; and the paths of γ."""
        rows: list[tuple[str, ...]] = []
        for found in self.sets:
            rows += [("",) * len(COLUMNS)] if rows else []
            for learner in found.learners:
                rows += self._rows(found.name, learner)
            if found.upper is not None:
                rows.append((found.name, "", "certified", "", "", "", number(found.mean_radius), "1.00", "", "", ""))
        return {"": Table(COLUMNS, tuple(rows), labels=3), **self.gamma_paths()}

    def _rows(self, name: str, learner: LearnerNumbers) -> list[tuple[str, ...]]:
        """One row per attack; what they share is said once."""
        paper = self.paper.get(name, {}).get(learner.kind)
        rows: list[tuple[str, ...]] = []
        for i, attack in enumerate(learner.attacks):
            first, printed, difference = i == 0, NOT_KNOWN, NOT_KNOWN
            if paper is not None and first:  # the paper's own attack
                printed = f"{paper[0]:g} ({paper[1]:g})"
                difference = f"{100 * attack.adversarial_accuracy_paper - paper[1]:+.1f}"
            rows.append(
                (
                    name, learner.label if first else "", attack.attack, percent(learner.accuracy) if first else "",
                    percent(attack.adversarial_accuracy), percent(attack.adversarial_accuracy_paper),
                    number(attack.mean_l2), number(attack.median_ratio), percent(attack.on_manifold, 0),
                    printed if first else "", difference if first else "",
                )
            )  # fmt: skip
        return rows

    def gamma_paths(self) -> dict[str, Table]:
        """By data set, what each γ gave on the samples that the RBF machine's search held out."""
        tables = {}
        for found in self.sets:
            for learner in found.learners:
                path = learner.training.get("gamma_path")
                if path is not None:
                    chosen = ["chosen" if gamma == learner.training["gamma"] else "" for gamma in path["gammas"]]
                    rows = zip(path["gammas"], path["accuracy"], path["n_support"], chosen, strict=True)
                    tables[f"γ of the RBF SVM on {found.name}"] = Table(
                        ("γ", "held-out\naccuracy (%)", "support\nvectors", ""),
                        tuple((f"{gamma:.4f}", percent(share), str(m), here) for gamma, share, m, here in rows),
                    )
        return tables

    @property
    def notes(self) -> str:
        """What the columns mean, in a few sentences."""
        below = [
            learner.attacks[0].n_below_radius for s in self.sets for learner in s.learners if learner.kind == "bayes"
        ]
        certified = f" Bayes samples fooled by less than their certified radius: {sum(below)}." if below else ""
        known = (
            " Ratio: median of a sample's ℓ2 over its certified Bayes radius, the smallest perturbation that changes "
            "the Bayes decision. Along: share of the squared ℓ2 that lies in the subspace of the sample's own "
            "component."
        )
        return (
            "ℓ2: mean over samples that were right and were fooled, in pixel units of [0, 1]. Not fooled: % of all "
            "samples that were right and stayed so. Adv. (adversarial accuracy): % of all samples that are right after "
            "the attack, as the paper counts; it adds those that were wrong and that the attack, which changes the "
            "predicted class, makes right. Adv. - paper: difference in that count, percentage points."
            f"{known if any(s.upper is not None for s in self.sets) else ''} Pictures of samples show each "
            f"classifier's first attack, bars and curves the one that fools most samples.{certified} {self._orders}"
        )

    @property
    def _orders(self) -> str:
        """By data set, the classifiers in the order of their mean ℓ2, each under the attack that fools most samples."""
        lines = []
        for s in self.sets:
            found = sorted((learner.strongest.mean_l2, learner.label) for learner in s.learners)
            lines.append(f"{s.name}: " + " < ".join(f"{label} {number(l2)}" for l2, label in found))
        return f"In order of mean ℓ2 under the attack that fools most samples: {'; '.join(lines)}."

    def pictures(self) -> dict[str, Picture]:
        """Samples and perturbations of each data set, mean norms of all, and robust accuracy of each."""
        panels: dict[str, Picture] = {f"{s.name}-samples": partial(_panel, s) for s in self.sets if len(s.shown)}
        curves: dict[str, Picture] = {f"{s.name}-curves": partial(_curves, s) for s in self.sets}
        return {"norms": partial(_bars, self.sets), **panels, **curves}

    def alt_texts(self) -> dict[str, str]:
        """What the pictures show."""
        found = {"norms": "Bars of the mean ℓ2 that fools each classifier, by data set"}
        for s in self.sets:
            order = "; ".join(f"{learner.label} {number(learner.strongest.mean_l2)}" for learner in s.learners)
            found[f"{s.name}-samples"] = f"{s.name}: samples and what fools each classifier, mean ℓ2 {order}"
            found[f"{s.name}-curves"] = f"{s.name}: share of samples that stay right, against the ℓ2 allowed"
        return found


def _panel(s: SetNumbers) -> Figure:
    """Where each classifier's first attack moved a few samples (Figures 8, 11, 16 to 19)."""
    from ...plots import Perturbations, comparison_panel

    attacks = []
    for learner in s.learners:
        first = learner.attacks[0]
        moved = np.where(np.isnan(first.moved), s.shown, first.moved)
        attacks.append(Perturbations(learner.label, s.shown, moved, first.changes))
    arrow = " → " if max(map(len, s.classes)) < 4 else "\n→ "
    captions = [f"{s.classes[c]}{arrow}{s.classes[1 - c]}" for c in s.shown_y]
    title = f"{s.name}: what fools each classifier (its first attack)"
    return comparison_panel(attacks, captions=captions, colors=classifier_colors(), title=title)


def classifier_colors() -> dict[str, str]:
    """By label: a classifier has its colour in all pictures."""
    from ...plots.robustness import SERIES

    return {learner.label: SERIES[i] for learner, i in zip(LEARNERS.values(), (0, 1, 5, 2, 3, 4, 6), strict=True)}


def _bars(sets: list[SetNumbers]) -> Figure:
    from ...plots import norm_bars

    labels = list(dict.fromkeys(learner.label for s in sets for learner in s.learners))
    norms = {label: [_norm(s, label) for s in sets] for label in labels}
    return norm_bars(
        norms, [s.name for s in sets], colors=classifier_colors(), ylabel="mean ℓ2 that fools (data units)"
    )


def _norm(s: SetNumbers, label: str) -> float:
    found = [learner.strongest.mean_l2 for learner in s.learners if learner.label == label]
    return found[0] if found else float("nan")


def _curves(s: SetNumbers) -> Figure:
    """Robust accuracy against ℓ2, the optimal classifier's as a certified band."""
    from ...plots import robustness_curves

    strongest: list[tuple[str, AttackNumbers]] = [(learner.label, learner.strongest) for learner in s.learners]
    ends = [float(np.nanmax(attack.l2)) for _, attack in strongest if np.isfinite(attack.l2).any()]
    radii = [] if s.upper is None else [float(s.upper[np.isfinite(s.upper)].max(initial=0.0))]
    eps = np.linspace(0, max([*ends, *radii, 1e-12]), 201)
    band = None
    if s.lower is not None and s.upper is not None:
        # A sample is robust to every perturbation shorter than the lower end, and to none of the upper end's length.
        low = [float(((s.lower >= e) & (s.upper > 0)).mean()) for e in eps]
        band = (low, [float((s.upper > e).mean()) for e in eps])
    return robustness_curves(
        {label: attack.curve(eps) for label, attack in strongest},
        eps,
        band=band,
        colors=classifier_colors(),
        title=f"{s.name}: robust accuracy",
    )
