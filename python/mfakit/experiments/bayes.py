"""The main job: the same optimal classifier is robust when its classes are symmetric and brittle when they are not.

For each pair and both variants: accuracy, the polished gradient attack, the certified minimum, and what the theory
predicts from distances alone (Theorem 2: half the distance to the other class's subspaces; Theorem 3: the closed form
of :func:`mfakit.theory.asymmetric_radius`). Figures 5, 14 and 15.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import theory
from .._checks import check_integers, check_numbers
from .._io import report
from .._io.arguments import sigma_type, whole
from .._io.progress import open_bar
from ..attacks import AttackResult, gradient_attack, minimal_perturbation
from ..attacks.result import PIXEL_THRESHOLD
from ..backends import why_missing
from ..bayes.classifier import BayesClassifier
from ..plots.histograms import PixelChanges
from .outcome import Context, Outcome, Picture
from .pairs import captions_of, open_pairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Config", "PairResult", "Result", "run"]

Array = NDArray[Any]

EXAMPLE = "--pair mnist-06 --samples 100"
QUICK, FULL = {"n": 100}, {"n": 1000}
SHOWN_PER_CLASS = 4


# Histograms of pairs beside each other.
IN_A_ROW = 4


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    pairs : tuple of str
        Shipped pairs by name, others by file; none: all that are shipped.
    n : int
        Samples per class.
    sigma : float
        Noise of the symmetric variant.
    step_size : float
        Of the gradient attack.
    seed : int
    """

    pairs: tuple[str, ...] = ()
    n: int = 500
    sigma: float = 0.01
    step_size: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers({"n": self.n}, 1)
        check_integers({"seed": self.seed}, 0)
        check_numbers({"sigma": self.sigma, "step_size": self.step_size}, positive=True)


@dataclass(frozen=True, eq=False)
class PairResult:
    """One pair in one variant; lengths are ℓ2 in data units, shares are of 1.

    Attributes
    ----------
    accuracy : float
        On fresh samples of the model itself.
    outlier_accuracy : float or None
        On samples of the outlier components alone (asymmetric).
    success_rate, mean_l2 : float
        Of the polished gradient attack on samples of the main components.
    certified_lower, certified_upper : float or None
        Means of the certified bracket on the same samples; None without the compiled extension.
    half_distance : float
        Half of the samples' mean distance D to the nearest subspace of the other class (Figure 14).
    below_bound : int
        Successful attacks shorter than (D - ε)/2, ε the distance to the own subspace; Theorem 2 allows none when
        symmetric.
    half_min_distance : float
        min d_ij / 2 over pairs of subspaces.
    predicted : float or None
        The closed form of the asymmetric case, mean.
    within : float
        Share of pixels that changed by at most 5/255.
    per_class : list of dict
        Mean ℓ2 of the attack and mean D, by true class.
    D, l2 : array, [n]
        By sample, the distance to the nearest subspace of the other class, and the attack's ℓ2 (NaN where it failed).
    shown : array, [2, m, d]
        Some samples that both variants' attacks move, and where this one moved them.
    captions : list of str
        What is shown, as "0 → 6".
    changes : PixelChanges
        Of all pixels of the samples that were fooled.
    """

    pair: str
    variant: str
    n: int
    accuracy: float
    outlier_accuracy: float | None
    success_rate: float
    mean_l2: float
    certified_lower: float | None
    certified_upper: float | None
    half_distance: float
    below_bound: int
    half_min_distance: float
    predicted: float | None
    within: float
    per_class: list[dict[str, float]]
    seconds: float
    D: Array
    l2: Array
    shown: Array
    captions: list[str]
    changes: PixelChanges


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    """All pairs in both variants."""

    title: ClassVar[str] = "The optimal classifier, symmetric and asymmetric"

    config: Config
    results: list[PairResult]

    def tables(self) -> dict[str, report.Table]:
        """The results beside what the paper reports."""
        columns = (
            "pair", "variant", "accuracy\n(%)", "fooled\n(%)", "attack\nℓ2", "certified\nmin. ℓ2", "theory\nℓ2",
            "half D\nℓ2", "min d/2\nℓ2", "pixels ≤\n5/255 (%)",
        )  # fmt: skip
        rows: list[tuple[str, ...]] = []
        for r in self.results:
            predicted = r.half_distance if r.predicted is None else r.predicted
            rows.append(
                (
                    r.pair, r.variant, report.percent(r.accuracy), report.percent(r.success_rate),
                    report.number(r.mean_l2), report.number(r.certified_lower), report.number(predicted),
                    report.number(r.half_distance), report.number(r.half_min_distance), report.percent(r.within, 0),
                )
            )  # fmt: skip
        rows.append(("",) * len(columns))
        dash = report.NOT_KNOWN
        rows.append(("paper: digits", "symmetric", "100", "100", *[dash] * 6))
        rows.append(("paper: faces", "symmetric", "100", "100", "3", dash, "3.1", "3.1", dash, dash))
        return {"": report.Table(columns, tuple(rows), labels=2)}

    @property
    def notes(self) -> str:
        """What the columns mean, in a few sentences."""
        contradictions = sum(r.below_bound for r in self.results if r.variant == "symmetric")
        return (
            "ℓ2 are means over samples, in pixel units of [0, 1]. Attack: polished gradient attack on noisy, unclipped "
            "samples of the main components; certified minimum: no smaller perturbation changes the decision. "
            "Theory: half D for symmetric pairs (Theorem 2), the closed form √(ρ² + 2σ²Δ) - ρ for asymmetric ones "
            "(Theorem 3). D: distance of a sample to the nearest subspace of the other class; d: of two subspaces. "
            f"Symmetric samples fooled below (D - ε)/2: {contradictions}. "
            "The paper's faces are Male/Female; for digits it prints accuracies only (Table 1)."
        )

    def pictures(self) -> dict[str, Picture]:
        """Perturbations of each pair (Figures 5 and 15), and distances to subspaces (Figure 14)."""
        pairs: dict[str, list[PairResult]] = {}
        for r in self.results:
            pairs.setdefault(r.pair, []).append(r)
        drawn: dict[str, Picture] = {
            f"{name}-perturbations": partial(_panel, variants)
            for name, variants in pairs.items()
            if variants[0].shown.size
        }
        return {**drawn, "distances": partial(_distances, [variants[0] for variants in pairs.values()])}

    def alt_texts(self) -> dict[str, str]:
        """What the pictures show."""
        panel = (
            "samples, what fools the optimal classifier, and the difference magnified, symmetric and asymmetric, with "
            "histograms of pixel changes"
        )
        distances = "distances to the nearest subspace of the other class, and twice the attack's ℓ2, as histograms"
        found = {f"{r.pair}-perturbations": f"{r.pair}: {panel}" for r in self.results}
        return {**found, "distances": distances}


def run(config: Config, context: Context) -> Result:
    """Attack the optimal classifier of each pair, symmetric and asymmetric."""
    bases = open_pairs(config.pairs)
    results: list[PairResult] = []
    with open_bar(context.progress, total=2 * len(bases), unit="variant") as bar:
        for name, base in bases.items():
            sym = base.symmetric(config.sigma)
            units = []
            for variant, clf in (("symmetric", sym), ("asymmetric", sym.asymmetric())):
                bar.set_description(f"{name} {variant}")
                # Both variants attack the same samples, and a pair's do not depend on which others are run.
                rng = np.random.default_rng([config.seed, *name.encode()])
                units.append(_Unit(name, variant, sym, clf, config, rng))
                bar.update()
            counts = [min(len(u.fooled(c)) for u in units) for c in (0, 1)]
            results += [u.result(counts) for u in units]
    return Result(config=config, results=results)


class _Unit:
    """One pair in one variant: what was sampled, attacked and measured."""

    def __init__(
        self, pair: str, variant: str, sym: BayesClassifier, clf: BayesClassifier, config: Config,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        start, n = time.perf_counter(), config.n
        asymmetric = variant == "asymmetric"
        # The symmetric model is the asymmetric one without its outliers: the main components of both.
        self.X, self.y = sym.sample(2 * n, rng=rng, balanced=True)
        self.attack: AttackResult = gradient_attack(clf, self.X, self.y, step_size=config.step_size, polish=True)
        self.own, self.other = theory.own_and_other_distances(sym, self.X, self.y)
        minimal = None if why_missing("native") else minimal_perturbation(clf, self.X, self.y)
        bound = (self.other - self.own) / 2
        ok = self.attack.success
        self.changes = (self.attack.x_adv - self.X)[ok]
        self.numbers: dict[str, Any] = dict(
            pair=pair,
            variant=variant,
            n=2 * n,
            accuracy=clf.score(*clf.sample(2 * n, rng=rng)),
            outlier_accuracy=_outlier_accuracy(clf, n, rng) if asymmetric else None,
            success_rate=self.attack.success_rate,
            mean_l2=self.attack.mean_l2,
            certified_lower=None if minimal is None else _mean(minimal.lower[ok]),
            certified_upper=None if minimal is None else _mean(minimal.upper[ok]),
            half_distance=float(self.other.mean()) / 2,
            below_bound=int((self.attack.l2[ok] < bound[ok]).sum()),
            half_min_distance=theory.theorem2_radius(sym).radius,
            predicted=float(theory.asymmetric_radius(clf, self.X, self.y).mean()) if asymmetric else None,
            within=_mean(np.abs(self.changes) <= PIXEL_THRESHOLD),
            per_class=[
                {
                    "mean_l2": _mean(self.attack.l2[ok & (self.y == c)]),
                    "mean_D": _mean(self.other[self.y == c]),
                }
                for c in (0, 1)
            ],
            seconds=time.perf_counter() - start,
        )

    def fooled(self, c: int) -> Array:
        """The first rows of class c that were fooled, for the picture."""
        return np.flatnonzero(self.attack.success & (self.y == c))[:SHOWN_PER_CLASS]

    def result(self, counts: list[int]) -> PairResult:
        """With so many samples of each class to show; none where one class has none."""
        shown = counts if all(counts) else [0, 0]
        rows = np.concatenate([self.fooled(c)[:count] for c, count in enumerate(shown)]).astype(np.int64)
        first, second = captions_of(self.numbers["pair"])
        return PairResult(
            **self.numbers,
            D=self.other,
            l2=self.attack.l2,
            shown=np.stack([self.X[rows], self.attack.x_adv[rows]]),
            captions=[f"{first} → {second}"] * shown[0] + [f"{second} → {first}"] * shown[1],
            changes=PixelChanges.of(self.changes),
        )


def _mean(values: Array) -> float:
    """The mean, NaN of none."""
    return float(values.mean()) if values.size else float("nan")


def _outlier_accuracy(clf: BayesClassifier, n: int, rng: np.random.Generator) -> float:
    """Accuracy on n samples of each class's outlier, the last component."""
    right = []
    for c, m in enumerate(clf.mixtures):
        only = m.replace(weights=np.eye(m.n_components)[-1])
        right.append(clf.predict(only.sample(n, rng=rng)[0]) == c)
    return float(np.concatenate(right).mean())


def _panel(variants: list[PairResult]) -> Figure:
    from ..plots import Perturbations, perturbation_panel

    attacks = [Perturbations(r.variant, r.shown[0], r.shown[1], r.changes) for r in variants]
    title = f"{variants[0].pair}: fooling the optimal classifier"
    return perturbation_panel(attacks, captions=variants[0].captions, title=title)


def _distances(results: list[PairResult]) -> Figure:
    from ..plots import distance_histogram
    from ..plots.common import new_figure

    columns = min(len(results), IN_A_ROW)
    rows = -(-len(results) // columns)
    figure = new_figure(4.2 * columns, 3.4 * rows)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in cells[len(results) :]:
        ax.set_axis_off()
    for ax, r in zip(cells, results, strict=False):
        values = {"D": r.D, "2 × attack ℓ2": 2 * r.l2}
        distance_histogram(values, marks={"min d": 2 * r.half_min_distance}, title=f"{r.pair}, symmetric", ax=ax)
    return figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument(
        "--samples", dest="n", type=whole(), metavar="N", help=f"samples per class (default: {Config.n})"
    )
    parser.add_argument("--sigma", type=sigma_type, help=f"noise of the symmetric pairs (default: {Config.sigma})")
    parser.add_argument("--step-size", type=float, help=f"of the gradient attack (default: {Config.step_size})")
