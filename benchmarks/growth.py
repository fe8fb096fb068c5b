"""log_prob against the numbers of components, samples, features and factors: components that are bounded first
(``method="pruned"``, docs/pruning.md), the dense product with all of them, that product alone, and torch.distributions.

Cold calls are of a model that was never asked before: they compute its factors, and the bounds' tables. Goal: ten times
the components cost a bounded call at most 2.5 times the time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mfakit.bench import Case, Machine, Report, Size, Timed, Work
from mfakit.bench.core import random_mixture

from .peers.density import samples_of_a_call, torch_mixture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What grows, the rest being as in BASE.
BASE = Size(4096, 784, 400, 6)
SWEEPS: dict[str, tuple[Size, tuple[int, ...]]] = {
    "k": (BASE, (25, 100, 400, 1600)),
    "n": (BASE, (256, 1024, 4096, 16_384)),
    "d": (Size(1024, 784, 100, 6), (196, 784, 3072, 12_288)),
    "l": (BASE, (1, 2, 6, 20)),
}
# Samples that are compared with their residuals in float64.
CHECKED = 16
STYLES = {
    "bounded": ("BLUE", "-", "bounded first"),
    "bounded, cold": ("BLUE", ":", None),
    "dense": ("VERMILION", "-", "dense"),
    "dense, cold": ("VERMILION", ":", None),
    "product": ("BLACK", "-", "the product X · P alone"),
    "torch.distributions": ("PURPLE", "-", "torch.distributions"),
}


def grown(case: Case, machine: Machine) -> Work:
    """One size of a sweep."""
    n, d, k, l = (case.size[letter] for letter in "ndkl")
    mfa = random_mixture(Size(n, d, k, l), 0)
    X = mfa.sample(n, rng=1, dtype=np.float32)[0]
    few = X[:: max(n // CHECKED, 1)][:CHECKED]
    expected = mfa.log_prob(few.astype(np.float64), method="residual")
    error = float((np.abs(mfa.log_prob(few, method="pruned") - expected) / np.abs(expected)).max())
    P = mfa.factors.panel(np.float32)
    out = np.empty((n, P.shape[1]), np.float32)

    def cold(method: str) -> Any:
        return mfa.replace(weights=mfa.weights).log_prob(X, method=method)

    beside = {
        "bounded, cold": Timed(partial(cold, "pruned")),
        "dense": Timed(lambda: mfa.log_prob(X, method="dense")),
        "dense, cold": Timed(partial(cold, "dense")),
        "product": Timed(lambda: np.matmul(X, P, out=out)),
    }
    torch = of_torch(mfa, X)
    if torch is not None:
        beside["torch.distributions"] = torch
    return Work(
        Timed(lambda: mfa.log_prob(X, method="pruned")),
        error,
        n,
        "samples",
        2.0 * n * d * k * (l + 1),
        X.nbytes,
        beside,
    )


def of_torch(mfa: Any, X: np.ndarray) -> Timed | None:
    """The same log-densities by torch.distributions, of some of the samples; None without torch."""
    try:
        import torch
    except ImportError:
        return None
    mixture, count = torch_mixture(mfa), samples_of_a_call(mfa, len(X))
    some = torch.from_numpy(X[:count])
    return Timed(lambda: mixture.log_prob(some), work=count / len(X))


def cases() -> tuple[Case, ...]:
    """All sizes of all sweeps."""
    return tuple(
        Case(f"bounded, {letter} grows", grown, {**dict(zip("ndkl", base, strict=False)), letter: value},
             against="the residuals in float64, relative", allowed=1e-4, where="host")
        for letter, (base, values) in SWEEPS.items() for value in values
    )  # fmt: skip


CASES = cases()


def draw(report: Report, folder: Path) -> None:
    """The picture beside the JSON: seconds against each of the four, and what a call's memory rises by (that of
    torch.distributions for the few samples that it is timed on).
    """
    from mfakit.plots import common

    figure = common.new_figure(9.6, 4.8)
    with common.styled():
        panels = figure.subplots(2, len(SWEEPS), sharey="row", sharex="col")
        for column, letter in enumerate(SWEEPS):
            found = [m for m in report.cases if m.name == f"bounded, {letter} grows" and m.skipped is None]
            _lines(panels[0, column], letter, found, lambda m, name: m.timings[name].best)
            _lines(panels[1, column], letter, found, _megabytes)
            base = SWEEPS[letter][0]._asdict()
            rest = ", ".join(f"{name} = {base[name]:,}" for name in "kndl" if name != letter)
            panels[0, column].set_title(rest, fontsize=7.5)
            panels[1, column].set_xlabel(letter)
        panels[0, 0].set_ylabel("log_prob, seconds")
        panels[1, 0].set_ylabel("memory of a call, MB")
        panels[0, 0].plot([], [], ":", color=common.BLACK, label="dotted: a model's first call")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        figure.savefig(folder / f"{report.benchmark}.png")


def _megabytes(measured: Any, name: str) -> float:
    """0 for the product, whose result is allocated before."""
    return 0.0 if name == "product" else (measured.extra_bytes.get(name) or 0) / 2**20


def _lines(axes: Axes, letter: str, found: list[Any], value: Callable[[Any, str], float]) -> None:
    from mfakit.plots import common

    for name, (color, line, label) in STYLES.items():
        keys = [m.name if name == "bounded" else name for m in found]
        points = [(m.size[letter], value(m, key)) for m, key in zip(found, keys, strict=True) if key in m.timings]
        sizes, values = ([point[i] for point in points if point[1] > 0] for i in (0, 1))
        axes.plot(sizes, values, line, color=getattr(common, color), marker="o", markersize=2.5, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
