"""Theorem 2 at scale: half the distances of k × k subspaces, beside the radii of samples that are certified.

For the limit σ → 0 on the shipped pairs see ``mfakit reproduce theorems``; here the number of subspaces and of features
grows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._checks import check_integers, check_numbers
from .._io.arguments import sigma_type, whole
from .._io.report import NOT_KNOWN, Table, number
from ..attacks import minimal_perturbation
from ..bayes.classifier import BayesClassifier
from ..mixture.mfa import MFA
from ..mixture.subspaces import subspace_distances
from ..theory import own_and_other_distances
from .outcome import Context, Outcome, Picture
from .resumable import Part, digest_of_model
from .subspaces import DIGITS, RANDOM, first_of, most_components, open_sides

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Config", "Pairs", "Result", "by_data_set", "run"]

Array = NDArray[Any]

EXAMPLE = "--models random-784 mnist-06 --components 1 10 100"
QUICK: dict[str, Any] = {"models": ("random-784", "random-12288", "mnist-06"), "ks": (1, 10, 100), "n": 10}
FULL: dict[str, Any] = {
    "models": ("random-784", "random-12288", "random-49152", "mnist-06", "digits"),
    "ks": (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000), "n": 200,
}  # fmt: skip
# Of the histogram of all distances, which the picture and the median are made of.
BINS = 400
# Of drawn pairs.
FACTORS = 6


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    models : tuple of str
        "random-D", drawn in D features; "digits", neighbourhoods of MNIST's even and odd digits; shipped pairs by name,
        others by file.
    ks : tuple of int
        Subspaces a side, rising; those that a model does not have are left out, and a fitted pair ends with its own.
    n : int
        Samples whose radii are certified, half of them of either class.
    certified : int
        The most subspaces a side that radii are certified for.
    sigma : float
        Noise of the certified models.
    seed : int
    """

    models: tuple[str, ...] = ("random-784", "random-12288", "random-49152", "mnist-06")
    ks: tuple[int, ...] = (1, 3, 10, 30, 100)
    n: int = 50
    certified: int = 30
    sigma: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError(f"models must name at least one model, such as {RANDOM}784 or mnist-06")
        check_integers({f"ks[{i}]": k for i, k in enumerate(self.ks)}, 1)
        if not self.ks or any(a >= b for a, b in zip(self.ks, self.ks[1:], strict=False)):
            raise ValueError(f"ks must rise, got {self.ks}")
        check_integers({"n": self.n, "certified": self.certified}, 1)
        check_integers({"seed": self.seed}, 0)
        check_numbers({"sigma": self.sigma}, positive=True)


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs of subspaces of a model with k a side, ℓ2 in data units.

    Attributes
    ----------
    model : str
    d, k : int
    least : float
        The smallest distance.
    nearest : float64 [k]
        Of each subspace of side 0 to the nearest of side 1.
    counts, edges : int64 [b], float64 [b + 1]
        Of all distances.
    radii, half_distances : float64 [n]
        Of samples that are right: the certified radius, and half the distance to the other class's nearest subspace;
        none where k is beyond what is certified.
    """

    model: str
    d: int
    k: int
    least: float
    nearest: Array
    counts: Array
    edges: Array
    radii: Array
    half_distances: Array

    @property
    def median(self) -> float:
        """Of all distances, to half a bin."""
        bin_ = int(np.searchsorted(np.cumsum(self.counts), self.counts.sum() / 2))
        return float(self.edges[bin_ : bin_ + 2].mean())


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    """Every model at every k."""

    title: ClassVar[str] = "Theorem 2 at scale"

    config: Config
    found: list[Pairs]

    def tables(self) -> dict[str, Table]:
        """A row for every model and k."""
        columns = (
            "model", "d", "k", "least\nd/2", "nearest\nd/2, mean", "all\nd/2, median", "certified\nleast",
            "certified\nmean", "sample's\nD/2, mean", "certified\n≥ least d/2",
        )  # fmt: skip
        return {"": Table(columns, tuple(map(_row, self.found)))}

    @property
    def notes(self) -> str:
        """What the columns mean."""
        return (
            "Lengths are ℓ2 in data units. d/2: half the distance between subspaces of different classes, of all k × k "
            "pairs: the least, the mean over one side's nearest, the median. Certified: no smaller perturbation of a "
            f"sample that is right changes the decision, at σ = {self.config.sigma:g}. D: a sample's distance to the "
            "other class's nearest subspace. Theorem 2 promises the least d/2 as σ → 0; samples have the radius of the "
            f"subspace that they are on. {NOT_KNOWN}: more than {self.config.certified} subspaces a side."
        )

    def pictures(self) -> dict[str, Picture]:
        """One of all models."""
        return {"theorem2": partial(_draw, self.found)}

    def alt_texts(self) -> dict[str, str]:
        """What it shows."""
        return {
            "theorem2": "left: least and nearest half distances fall as the number of subspaces grows, certified radii "
            "beside them; right: the distribution of the half distances of all pairs"
        }


def _row(p: Pairs) -> tuple[str, ...]:
    some = len(p.radii) > 0
    certified = (p.radii.min(), p.radii.mean(), p.half_distances.mean()) if some else (None, None, None)
    share = f"{100 * np.mean(p.radii >= p.least / 2):.0f}%" if some else NOT_KNOWN
    values = (p.least / 2, p.nearest.mean() / 2, p.median / 2, *certified)
    return (p.model, str(p.d), str(p.k), *(number(v if v is None else float(v), 3) for v in values), share)


def _draw(found: list[Pairs]) -> Figure:
    from ..plots.common import COLORS, new_figure, styled

    figure = new_figure(8.0, 3.4)
    with styled():
        growth, spread = figure.subplots(1, 2)
        for m, name in enumerate(dict.fromkeys(p.model for p in found)):
            own, color = [p for p in found if p.model == name], COLORS[m % len(COLORS)]
            line = {"color": color, "linewidth": 1.2 if m < len(COLORS) else 0.6}
            ks = [p.k for p in own]
            growth.plot(ks, [p.least / 2 for p in own], "-", label=name, **line)
            growth.plot(ks, [p.nearest.mean() / 2 for p in own], ":", **line)
            sure = [p for p in own if len(p.radii)]
            growth.plot([p.k for p in sure], [p.radii.mean() for p in sure], "o", color=color, markersize=4)
            growth.plot([p.k for p in sure], [p.radii.min() for p in sure], "_", color=color, markersize=7)
            last = own[-1]
            density = last.counts / max(1, last.counts.max())
            spread.stairs(density, last.edges / 2, label=f"{name}, k = {last.k}", **line)
            if sure:
                spread.plot(sure[-1].radii.mean(), 0.0, "o", color=color, markersize=4, clip_on=False)
        growth.set(xscale="log", xlabel="subspaces a side, k", ylabel="ℓ2 in data units")
        growth.set_ylim(bottom=0)
        growth.set_title("lines: least d/2, dotted: nearest; o, _: certified")
        growth.legend()
        spread.set(xlabel="d/2 of all pairs (o: certified, mean)", yticks=[])
        spread.set_xlim(left=0)
        spread.legend()
    return figure


def run(config: Config, context: Context) -> Result:
    """Measure and certify, model by model."""
    found = []
    for name in config.models:
        most = most_components(name)
        ks = [k for k in config.ks if k <= most]
        if name != DIGITS and not name.startswith(RANDOM) and most < config.ks[-1] and most not in ks:
            ks.append(most)
        sides = cache(partial(open_sides, name, max(ks, default=1), FACTORS, config.seed, context.data))
        found += [_pairs(name, k, sides, config, context) for k in ks]
    return Result(config=config, found=found)


def by_data_set(config: Config) -> list[Config]:
    """Configurations of single models, whose parts are those of all."""
    return [replace(config, models=(name,)) for name in config.models]


def _pairs(name: str, k: int, sides: Callable[[], list[MFA]], config: Config, context: Context) -> Pairs:
    key: dict[str, Any] = {"model": name, "k": k, "seed": config.seed, "bins": BINS}
    if name != DIGITS and not name.startswith(RANDOM):
        key["digest"] = digest_of_model(BayesClassifier(sides()))
    arrays, numbers = context.store.part(
        "theorem2-distances", key, lambda: _measure([first_of(m, k) for m in sides()], context.progress)
    )
    samples = {"radii": np.zeros(0), "half_distances": np.zeros(0)}
    if k <= config.certified:
        key |= {"n": config.n, "sigma": config.sigma}
        samples, _ = context.store.part(
            "theorem2-certified", key, lambda: _certify([first_of(m, k) for m in sides()], config, context.progress)
        )
    return Pairs(name, int(numbers["d"]), k, float(numbers["least"]), **arrays, **samples)


def _measure(sides: list[MFA], progress: bool | None) -> Part:
    nearest, _ = subspace_distances(*sides, reduce="row_min", progress=progress)
    counts, edges = subspace_distances(*sides, reduce="histogram", bins=BINS, progress=progress)
    return (
        {"nearest": nearest, "counts": counts, "edges": edges},
        {"d": sides[0].n_features, "least": float(nearest.min())},
    )


def _certify(sides: list[MFA], config: Config, progress: bool | None) -> Part:
    clf = BayesClassifier(sides).symmetric(config.sigma)
    X, y = clf.sample(config.n, rng=config.seed, balanced=True)
    found = minimal_perturbation(clf, X, y, progress=progress)
    right = ~found.already_wrong
    other = own_and_other_distances(clf, X, y)[1]
    return {"radii": found.lower[right], "half_distances": other[right] / 2}, {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument(
        "--models", nargs="+", metavar="MODEL", help="random-D, digits, shipped pairs or .safetensors files of pairs"
    )
    parser.add_argument(
        "--components", dest="ks", type=whole(), nargs="+", metavar="K", help="subspaces a side, rising"
    )
    parser.add_argument(
        "--samples", dest="n", type=whole(), metavar="N", help=f"certified samples (default: {Config.n})"
    )
    parser.add_argument(
        "--certified", type=whole(), metavar="K", help=f"most subspaces with certificates (default: {Config.certified})"
    )
    parser.add_argument("--sigma", type=sigma_type, help=f"noise of certified models (default: {Config.sigma})")
