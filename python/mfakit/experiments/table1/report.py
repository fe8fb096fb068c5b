"""What Table 1 hands out: the table beside the paper's values, what its columns mean, the paths of γ, and pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._io import report
from ..resumable import versions
from ..shipped import have_matplotlib
from .parts import CLASSIFIERS, CW_AUTO, LABELS, PairNumbers, UnitNumbers

__all__ = ["PAPER", "Table1Report", "draw_pair"]

Array = NDArray[Any]

# Table 1 of the paper: clean and adversarial accuracy in per cent.
PAPER = {
    pair: {"bayes": (100, 0), "cnn": (100, 0), "linear-svm": (100, 0), "rbf-svm": (100, rbf)}
    for pair, rbf in (("mnist-06", 4), ("mnist-27", 7), ("mnist-45", 8))
}
SHOWN_PER_CLASS = 4


def _environment() -> dict[str, Any]:
    extra = {name: value for name, value in versions().items() if name in ("scikit-learn", "torch")}
    return {**report.environment(), **extra}


@dataclass(frozen=True, eq=False)
class Table1Report:
    """All pairs, their settings, and where they were computed; `n_reused` parts were there from an earlier run."""

    results: list[PairNumbers]
    settings: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=_environment)
    n_reused: int = 0

    def table(self) -> report.Table:
        """Each classifier under each of its attacks, beside the paper's Table 1."""
        columns = (
            "pair", "classifier", "training\nsamples", "attack", "acc.\n(%)", "not\nfooled", "adv.\n(%)",
            "mean\nℓ2", "ratio\nmedian", "ratio\nmean", "paper\nacc. (adv.)",
        )  # fmt: skip
        rows: list[tuple[str, ...]] = []
        for r in self.results:
            rows += [("",) * len(columns)] if rows else []
            for unit in r.units:
                rows += _rows(r.pair, unit)
            radius = (report.number(r.mean_radius), "1.00", "1.00")
            rows.append((r.pair, "", "", "certified", "", "", "", *radius, ""))
        return report.Table(columns, tuple(rows), labels=4)

    def gamma_paths(self) -> dict[str, report.Table]:
        """By pair, what each γ gave on the samples that the RBF machine's search held out."""
        columns = ("γ", "accuracy\n(%)", "support\nvectors", "gradient attack\nmean ℓ2", "not fooled\n(%)", "")
        tables = {}
        for r in self.results:
            for unit in r.units:
                path = unit.training.get("gamma_path")
                if path is None:
                    continue
                chosen = [gamma == unit.training["gamma"] for gamma in path["gammas"]]
                columns_of = zip(*path.values(), chosen, strict=True)
                tables[r.pair] = report.Table(
                    columns,
                    tuple(
                        (f"{gamma:.4f}", report.percent(accuracy), str(m), report.number(l2), report.percent(left),
                         "chosen" if here else "")
                        for gamma, accuracy, m, l2, left, here in columns_of
                    ),
                )  # fmt: skip
        return tables

    @property
    def orders(self) -> list[str]:
        """By pair, the classifiers in the order of their mean ℓ2, each under the attack that fools most samples."""
        lines = []
        for r in self.results:
            best = {u.classifier: min(u.attacks, key=lambda a: a.adversarial_accuracy) for u in r.units}
            found = sorted((attack.mean_l2, LABELS[classifier]) for classifier, attack in best.items())
            lines.append(f"{r.pair}: " + " < ".join(f"{label} {report.number(l2)}" for l2, label in found))
        return lines

    @property
    def notes(self) -> str:
        """What the columns mean, in a few sentences."""
        s = self.settings
        outside = float(np.mean([r.outside for r in self.results]))
        data = (
            "clipped to [0, 1], and every attack stays there"
            if s["clip"]
            else f"with their noise and not clipped ({100 * outside:.0f}% of the pixels lie outside [0, 1]), and no "
            "attack is bounded"
        )
        below = sum(u.attacks[0].n_below_radius for r in self.results for u in r.units if u.classifier == "bayes")
        closed = "" if s["clip"] else " (closed form for the linear SVM)"
        notes = (
            f"Trained and attacked are fresh samples of the symmetric pairs (σ = {s['sigma']:g}) {data}. ℓ2: mean over "
            "samples that were right and were fooled, in pixel units of [0, 1]. Not fooled: % of all samples that "
            "were right and stayed so. Adv. (adversarial accuracy): % of all samples that are right after the attack, "
            "as the paper counts; it adds those that were wrong and that the attack, which changes the predicted "
            "class, makes right, so that it is 100 - acc. where every sample is fooled. Attacks: gradient, in steps "
            f"of 0.05 with the last one bisected{closed}; "
            f"CW-L2 with the paper's preset{self._about_cw()}. Ratio: a sample's ℓ2 over its certified Bayes radius, "
            "the smallest perturbation that changes the Bayes decision; Bayes samples fooled by less than that: "
            f"{below}. The paper prints accuracies only; its ℓ2 are bars in Figure 7."
        )
        for unit in (u for u in self.results[0].units if u.classifier == "cnn"):
            size = unit.training
            notes += (
                f" CNN: width {size['width']}, depth {size['depth']}, {size['epochs']} epochs, label smoothing "
                f"{size['label_smoothing']:g}."
            )
        if any(u.classifier == "rbf-svm" for r in self.results for u in r.units):
            notes += " " + self._about_rbf()
        return f"{notes} In order of mean ℓ2 under the attack that fools most samples: {'; '.join(self.orders)}."

    def _about_cw(self) -> str:
        """What the constants of the preset do to small logits."""
        if not any(a.attack == CW_AUTO for r in self.results for u in r.units for a in u.attacks):
            return ""
        return (
            ", whose constants end at 1, too small where ℓ2 squared exceeds half the margin of the logits, as it does "
            "for SVMs and some samples of the CNN; auto: the first constant by the scale of the logits, more searches "
            "where none has succeeded, a polished end"
        )

    def _about_rbf(self) -> str:
        """Where the samples come from that the RBF machine's attack does not fool."""
        parts = []
        for r in self.results:
            for unit in (u for u in r.units if u.classifier == "rbf-svm"):
                away = sum(unit.attacks[0].endings.get(end, 0) for end in ("max_steps", "no gradient"))
                parts.append(f"{r.pair} γ = {unit.training['gamma']:.3g}, {away} of {r.n}")
        threshold = self.settings["parameters"]["rbf-svm"]["accuracy_threshold"]
        share = "as many held-out samples right as any" if threshold == "best" else (
            f"{report.percent(threshold)}% of held-out samples right"
        )  # fmt: skip
        searched = any("gamma_path" in u.training for r in self.results for u in r.units)
        how = f"the largest γ with {share}" if searched else "γ as given"
        return (
            f"RBF SVM: {how}. Samples that the gradient attack does not fool ({'; '.join(parts)}) are led away from "
            "all support vectors, to where the decision is the intercept and the gradient vanishes: a failure of the "
            "attack, which the same attack along the log-ratio of the two kernel sums does not share."
            + self._nearest_to_paper()
        )

    def _nearest_to_paper(self) -> str:
        """Where on the paths of γ the paper's shares of samples that were not fooled are met best; the smallest such γ:
        its adversarial accuracy less the samples that it flips to right.
        """
        parts = []
        for r in self.results:
            for path in (u.training["gamma_path"] for u in r.units if "gamma_path" in u.training and r.pair in PAPER):
                left = np.array([np.nan if share is None else share for share in path["adversarial_accuracy"]])
                if np.isfinite(left).any():
                    clean, adversarial = PAPER[r.pair]["rbf-svm"]
                    i = int(np.nanargmin(np.abs(100 * left - (adversarial - (100 - clean)))))
                    shares = (report.percent(share, 0) for share in (left[i], path["accuracy"][i]))
                    parts.append("{} γ = {:.2g} ({}%, accuracy {}%)".format(r.pair, path["gammas"][i], *shares))
        return f" The paper's shares that are not fooled are met best by {'; '.join(parts)}." if parts else ""

    def markdown(self) -> str:
        """Table, notes, paths of γ, pictures and settings."""
        s = self.settings
        where = ", ".join(f"{k} {v}" for k, v in self.environment.items())
        parts = ["# Table 1: what learns a robust classifier from symmetric data", self.table().markdown(), self.notes]
        paths = self.gamma_paths()
        if paths:
            parts.append("## γ of the RBF SVM, on samples held out from training")
            parts += [f"{pair}\n\n{table.markdown()}" for pair, table in paths.items()]
        trained = ", ".join(f"{LABELS[name]} {n}" for name, n in s["n_train"].items())
        parts.append(
            f"{s['n']} test samples per pair; training samples: {trained or 'none'}; seed {s['seed']}; {where}."
        )
        return "\n\n".join(parts) + "\n"


def _rows(pair: str, unit: UnitNumbers) -> list[tuple[str, ...]]:
    """One row per attack; what they share is said once."""
    trained = "" if unit.n_train is None else str(unit.n_train)
    paper = PAPER.get(pair, {}).get(unit.classifier)
    rows: list[tuple[str, ...]] = []
    for i, attack in enumerate(unit.attacks):
        shared = (LABELS[unit.classifier], trained) if i == 0 else ("", "")
        beside = report.NOT_KNOWN if paper is None else f"{paper[0]} ({paper[1]})"
        rows.append(
            (
                pair, *shared, attack.attack, report.percent(unit.accuracy) if i == 0 else "",
                report.percent(attack.adversarial_accuracy), report.percent(attack.adversarial_accuracy_paper),
                report.number(attack.mean_l2), report.number(attack.median_ratio), report.number(attack.mean_ratio),
                beside if i == 0 else "",
            )
        )  # fmt: skip
    return rows


def draw_pair(name: str, X: Array, y: Array, points: dict[str, dict[str, Array]], path: Path) -> bool:
    """Draw some samples of a pair, where each classifier's attack of Table 1 moved them, and by how much (Figures 8
    and 18); False without matplotlib.
    """
    if not have_matplotlib():
        return False
    from ...plots import DPI, Perturbations, comparison_panel

    order = [c for c in CLASSIFIERS if c in points]
    fooled = np.sum([points[c]["success"] for c in order], axis=0)
    # Samples that everybody's attack has moved, where there are such.
    rows = np.concatenate(
        [sorted(np.flatnonzero(y == c), key=lambda i: -fooled[i])[:SHOWN_PER_CLASS] for c in (0, 1)]
    ).astype(np.int64)
    attacks = []
    for classifier in order:
        found = points[classifier]
        change = (found["x_adv"].astype(np.float64) - X)[found["success"]]
        attacks.append(Perturbations(LABELS[classifier], X[rows], found["x_adv"][rows], change))
    digits = list(name[-2:]) if re.fullmatch(r"mnist-\d\d", name) else ["0", "1"]
    captions = [f"{digits[c]} → {digits[1 - c]}" for c in y[rows]]
    figure = comparison_panel(attacks, captions=captions, title=f"{name}: fooling what was trained on its samples")
    with report.replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
    return True
