"""The main job: the same optimal classifier is robust when its classes are symmetric and brittle when they are not.

For each shipped pair and both variants: accuracy, the polished gradient attack, the certified minimum, and what the
theory predicts from distances alone (Theorem 2: half the distance to the other class's subspaces; Theorem 3: the closed
form of :func:`mfakit.theory.asymmetric_radius`).
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import theory
from .._io import report
from .._io.arguments import seed_type, sigma_type, whole
from .._io.outputs import recorded_outputs
from .._io.progress import open_bar
from ..attacks import AttackResult, gradient_attack, minimal_perturbation
from ..attacks.result import PIXEL_THRESHOLD
from ..backends import why_missing
from ..bayes.classifier import BayesClassifier
from .shipped import have_matplotlib, prepare, written_to

__all__ = ["BayesReport", "PairResult", "run"]

Array = NDArray[Any]

SHOWN_PER_CLASS = 4


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


@dataclass(frozen=True, eq=False)
class BayesReport:
    """All results, their settings, and where they were computed."""

    results: list[PairResult]
    settings: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=report.environment)

    def table(self) -> report.Table:
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
        return report.Table(columns, tuple(rows), labels=2)

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

    def markdown(self) -> str:
        """Table, notes and settings."""
        s = self.settings
        where = ", ".join(f"{k} {v}" for k, v in self.environment.items())
        return (
            f"# The optimal classifier, symmetric and asymmetric\n\n{self.table().markdown()}\n\n{self.notes}\n\n"
            f"{s['n']} samples per class, σ = {s['sigma']}, attack step {s['step_size']}, seed {s['seed']}; {where}.\n"
        )


def run(
    pairs: Sequence[str] | None = None,
    *,
    n: int = 500,
    sigma: float = 0.01,
    step_size: float = 0.05,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool | None = None,
) -> BayesReport:
    """Attack the optimal classifier of each pair, symmetric and asymmetric.

    Parameters
    ----------
    pairs : sequence of str, optional
        Names of shipped pairs; None takes all.
    n : int
        Samples per class.
    sigma : float
        Noise of the symmetric variant.
    step_size : float
        Of the gradient attack.
    seed : int
        The same seed gives the same numbers.
    out : path, optional
        Folder for bayes.json, bayes.md and, with matplotlib, pictures; None writes nothing.
    progress : bool or None
        A progress bar; None shows it on a terminal.

    Returns
    -------
    BayesReport

    Raises
    ------
    ValueError
        For a pair that is not shipped, n < 1 or σ ≤ 0.
    """
    names, bases, folder = prepare(pairs, n, seed, out)
    results: list[PairResult] = []
    distances: dict[str, dict[str, Array]] = {}
    with open_bar(progress, total=2 * len(names), unit="variant") as bar:
        for name, base in bases.items():
            sym = base.symmetric(sigma)
            shown = []
            for variant, clf in (("symmetric", sym), ("asymmetric", sym.asymmetric())):
                bar.set_description(f"{name} {variant}")
                # Both variants attack the same samples, and a pair's do not depend on which others are run.
                rng = np.random.default_rng([seed, *name.encode()])
                unit = _Unit(name, variant, sym, clf, n, step_size, rng)
                results.append(unit.result)
                shown.append(unit)
                bar.update()
            distances[name] = {"D": shown[0].other, "2 × attack ℓ2": 2 * shown[0].attack.l2}
            if folder is not None:
                _draw_panel(shown, folder / f"{name}-perturbations.png")
    settings = {"pairs": names, "n": n, "sigma": sigma, "step_size": step_size, "seed": seed}
    found = BayesReport(results, settings)
    if folder is not None:
        _draw_distances(distances, {r.pair: r.half_min_distance for r in results}, folder / "distances.png")
        report.write_text(folder / "bayes.md", found.markdown())
        report.write_json(folder / "bayes.json", found)
    return found


class _Unit:
    """One pair in one variant: what was sampled, attacked and measured."""

    def __init__(
        self, pair: str, variant: str, sym: BayesClassifier, clf: BayesClassifier, n: int, step_size: float,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        start = time.perf_counter()
        asymmetric = variant == "asymmetric"
        # The symmetric model is the asymmetric one without its outliers: the main components of both.
        self.X, self.y = sym.sample(2 * n, rng=rng, balanced=True)
        self.clf, self.variant = clf, variant
        self.attack: AttackResult = gradient_attack(clf, self.X, self.y, step_size=step_size, polish=True)
        self.own, self.other = theory.own_and_other_distances(sym, self.X, self.y)
        minimal = None if why_missing("native") else minimal_perturbation(clf, self.X, self.y)
        bound = (self.other - self.own) / 2
        ok = self.attack.success
        self.changes = (self.attack.x_adv - self.X)[ok]
        self.result = PairResult(
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


def _draw_panel(units: list[_Unit], path: Path) -> None:
    if not have_matplotlib():
        return
    from ..plots import Perturbations, perturbation_panel

    counts = [min(len(u.fooled(c)) for u in units) for c in (0, 1)]
    if not all(counts):
        return
    attacks = []
    for u in units:
        rows = np.concatenate([u.fooled(c)[:count] for c, count in enumerate(counts)])
        attacks.append(Perturbations(u.variant, u.X[rows], u.attack.x_adv[rows], u.changes))
    name = units[0].result.pair
    first, second = list(name[-2:] if re.fullmatch(r"mnist-\d\d", name) else "01")
    labels = [f"{first} → {second}"] * counts[0] + [f"{second} → {first}"] * counts[1]
    with report.replacing(path) as temporary:
        title = f"{name}: fooling the optimal classifier"
        perturbation_panel(attacks, captions=labels, title=title).savefig(temporary, dpi=160)


def _draw_distances(distances: dict[str, dict[str, Array]], smallest: dict[str, float], path: Path) -> None:
    if not have_matplotlib():
        return
    from matplotlib.figure import Figure

    from ..plots import distance_histogram

    figure = Figure(figsize=(4.2 * len(distances), 3.4), layout="constrained")
    for ax, (name, values) in zip(np.atleast_1d(figure.subplots(1, len(distances))), distances.items(), strict=True):
        distance_histogram(values, marks={"min d": 2 * smallest[name]}, title=f"{name}, symmetric", ax=ax)
    with report.replacing(path) as temporary:
        figure.savefig(temporary, dpi=160)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mfakit reproduce bayes``."""
    parser.add_argument("--pairs", nargs="+", metavar="PAIR", help="shipped pairs (default: all)")
    parser.add_argument(
        "--samples", type=whole(), default=500, metavar="N", help="samples per class (default: %(default)s)"
    )
    parser.add_argument(
        "--sigma", type=sigma_type, default=0.01, help="noise of the symmetric pairs (default: %(default)s)"
    )
    parser.add_argument("--step-size", type=float, default=0.05, help="of the gradient attack (default: %(default)s)")
    parser.add_argument("--seed", type=seed_type, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results/bayes"), help="folder (default: %(default)s)")


def run_command(args: argparse.Namespace) -> int:
    """Run and print; returns the exit status."""
    with recorded_outputs() as written:
        found = run(
            args.pairs, n=args.samples, sigma=args.sigma, step_size=args.step_size, seed=args.seed, out=args.out,
            progress=args.progress,
        )  # fmt: skip
    print(found.table().terminal())
    print()
    import textwrap

    print(textwrap.fill(found.notes, 100))
    print(f"\n{written_to(args.out, written)}")
    if not have_matplotlib():
        print("pictures need matplotlib: pip install mfakit[plots]")
    return 0
