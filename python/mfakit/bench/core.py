"""The cases of ``mfakit bench``: each operation beside its bare product, and as a share of what the machine allows.

To add one, write a function ``(case, machine) -> Work`` and a line in :data:`CORE`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .._checks import check_integers
from .._lazy import lazy
from ..backends import Backend
from ..bayes.classifier import BayesClassifier
from ..mixture.mfa import MFA
from .cases import SIZES, Case, Size, Timed, Work
from .limits import measure_limits
from .results import Report
from .runner import Machine, run_cases

__all__ = ["CORE", "core_cases", "random_mixture", "run"]

# Samples that are compared with float64, and samples and steps of the walk.
CHECKED, WALKED, STEPS = 16, 512, 50


def random_mixture(size: Size, seed: int) -> MFA:
    """Equal weights, means in the unit cube, loadings of 0.1, isotropic σ = 0.01."""
    rng = np.random.default_rng(seed)
    means = rng.random((size.k, size.d), dtype=np.float32)
    loadings = rng.standard_normal((size.k, size.d, size.l), dtype=np.float32) / 10
    return MFA(np.full(size.k, 1 / size.k), means, loadings, 1e-4)


class _Inputs:
    """Two mixtures and samples of the first, shared by the cases of a size."""

    def __init__(self, size: Size, dtype: Any, machine: Machine) -> None:
        self.mfa, self.other = random_mixture(size, 0), random_mixture(size, 1)
        where = self.mfa.to("cuda") if machine.arrays.is_device else self.mfa
        self.X = where.sample(size.n, rng=1, dtype=dtype)[0]
        self.machine = machine

    @lazy
    def product(self) -> dict[bool, Timed]:
        """The product with the panel alone; True: in TF32 where there is such a thing."""
        arrays, X = self.machine.arrays, self.X
        P = arrays.asarray(self.mfa.factors.panel(np.dtype(str(X.dtype))))
        out = arrays.xp.empty((len(X), P.shape[1]), X.dtype)
        return {tf32: Timed(partial(arrays.matmul, X, P, out, tf32=tf32)) for tf32 in (False, True)}


def _inputs(case: Case, machine: Machine) -> tuple[Size, _Inputs]:
    size = Size(*(case.size[letter] for letter in "ndkl"))
    made: _Inputs = machine.kept(("core", size, case.dtype), lambda: _Inputs(size, case.dtype, machine))
    return size, made


def _density(
    case: Case, machine: Machine, name: str, passes: float = 1.0, streamed: str | None = None, **options: Any
) -> Work:
    """A method of the mixture; `passes` counts the readings and writings of X, `streamed` takes X from the host, as it
    is or as "bytes".
    """
    size, inputs = _inputs(case, machine)
    n, d, k, l = size[:4]
    to_host, mfa = machine.arrays.to_host, inputs.mfa
    X = to_host(inputs.X) if streamed else inputs.X
    if streamed == "bytes":
        X, mfa = np.clip(np.rint(X * 255), 0, 255).astype(np.uint8), mfa.rescaled(0, 1 / 255)
    few = X[:: max(n // CHECKED, 1)][:CHECKED]
    call = partial(getattr(mfa, name), backend=machine.backend, **options)
    expected = getattr(mfa, name)(to_host(few).astype(np.float64))
    error = np.abs(to_host(call(few)) - expected).max() / np.abs(expected).max()
    written = 4.0 * n * k if name == "responsibilities" else 0.0
    tf32 = options.get("precision") is None and machine.arrays.has_tf32
    beside = {} if streamed else {"product": inputs.product[tf32]}
    return Work(
        Timed(lambda: call(X)), float(error), n, "samples", 2.0 * n * d * k * (l + 1), passes * X.nbytes + written,
        beside,
    )  # fmt: skip


def _subspaces(case: Case, machine: Machine) -> Work:
    """All pairs of subspaces of two mixtures; the bases are computed once per model and not counted."""
    from .. import _reference
    from ..mixture.subspaces import subspace_distances

    arrays, (k, d, l) = machine.arrays, (case.size[letter] for letter in "kdl")
    sides = [random_mixture(Size(0, d, k, l), seed) for seed in (0, 1)]
    few = [mfa.replace(weights=np.full(2, 0.5), **_first(mfa, 2)) for mfa in sides]
    first, second = few
    expected = [
        [_reference.subspace_distance(m0, A0, m1, A1) for m1, A1 in zip(few[1].means, few[1].loadings, strict=True)]
        for m0, A0 in zip(few[0].means, few[0].loadings, strict=True)
    ]
    error = np.abs(subspace_distances(first, second, backend=machine.backend) / np.array(expected) - 1).max()
    columns = k * (l + 1)
    rng = np.random.default_rng(2)
    left, right = (arrays.asarray(rng.standard_normal((columns, d))) for _ in range(2))
    out = arrays.xp.empty((columns, columns))
    return Work(
        Timed(lambda: subspace_distances(sides[0], sides[1], reduce="row_min", backend=machine.backend)), float(error),
        k**2, "pairs", 2.0 * columns * columns * d, 16.0 * columns * d,
        {"product": Timed(lambda: arrays.matmul(left, right.T, out))},
    )  # fmt: skip


def _first(mfa: MFA, count: int) -> dict[str, Any]:
    return {name: getattr(mfa, name)[:count] for name in ("means", "loadings", "noise_variance")}


def _walk(case: Case, machine: Machine, path: Any = "factor") -> Work:
    """Fifty steps of the gradient attack on a path, for as many samples as a block has."""
    from ..attacks import gradient_attack

    size, inputs = _inputs(case, machine)
    n, k, l = min(size.n, WALKED), size.k, size.l
    clf = BayesClassifier([inputs.mfa, inputs.other])
    X, y = clf.sample(n, rng=3)
    attack = partial(gradient_attack, clf, step_size=1e-3, max_steps=STEPS, path=path)
    got, expected = attack(X[:4], y[:4], backend=machine.backend), attack(X[:4], y[:4])
    columns = (2 * k) * (l + 1)
    flops = columns * (2 * l + 2 if path == "factor" else size.d)
    X_there = machine.arrays.asarray(X)
    return Work(
        Timed(lambda: attack(X_there, y, backend=machine.backend)), float((got.n_steps != expected.n_steps).sum()),
        STEPS * n, "steps", 2.0 * STEPS * n * flops, 8.0 * n * size.d,
    )  # fmt: skip


def _density_case(name: str, of: str, limit: str = "coarse", bandwidth: str = "memory", **how: Any) -> Case:
    where = how.pop("where", "anywhere")
    against = "float64 on the host, relative to the largest value"
    return Case(name, partial(_density, name=of, **how), against=against, limit=limit, bandwidth=bandwidth, where=where)


CORE: tuple[Case, ...] = (
    _density_case("log_prob", "log_prob"),
    _density_case("log_prob, float32", "log_prob", "float32", precision="float32", where="device"),
    _density_case("grad_log_prob", "grad_log_prob", passes=2.0),
    _density_case("responsibilities", "responsibilities"),
    _density_case("log_prob, pruned", "log_prob", method="pruned", where="device"),
    _density_case("log_prob, streamed", "log_prob", bandwidth="host_to_device", streamed="as it is", where="device"),
    _density_case("log_prob, streamed bytes", "log_prob", bandwidth="host_to_device", streamed="bytes", where="device"),
    Case("subspace_distances", _subspaces, against="the dense definition, relative", allowed=1e-9, limit="float64",
         bandwidth="memory"),
    *[
        Case(name, partial(_walk, path=path), against="the same on the host, samples whose steps differ", allowed=0.0,
             limit=limit, bandwidth="memory", where=where)
        for name, path, limit, where in (
            ("gradient_attack", "factor", "float64", "anywhere"),
            ("gradient_attack in the features", "features", "coarse", "device"),
        )
    ],
)  # fmt: skip


def core_cases(size: Size) -> tuple[Case, ...]:
    """:data:`CORE` at a size."""
    samples = {letter: getattr(size, letter) for letter in "ndkl"}
    subspaces = {"k": size.subspaces, "d": size.d, "l": size.l}
    return tuple(replace(case, size=subspaces if case.make is _subspaces else samples) for case in CORE)


def run(
    backend: Backend = "auto", size: str | Size = "digits", rounds: int = 5, progress: bool | None = None
) -> Report:
    """Measure the limits and every operation.

    Parameters
    ----------
    backend : str
        As in :class:`mfakit._arrays.options.Options`.
    size : str or Size
        One of :data:`mfakit.bench.SIZES`.
    rounds : int
        Timed calls of each operation, after one that is not counted.
    progress : bool or None
        A progress bar; None shows it on a terminal and in notebooks.

    Raises
    ------
    ValueError
        For an unknown size, or no rounds.
    AssertionError
        An operation whose result is wrong.
    """
    if isinstance(size, str):
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
        size = SIZES[size]
    check_integers({"rounds": rounds}, 1)
    machine = Machine(backend)
    with machine.arrays.active():
        limits = measure_limits(machine, rounds, small=size.n <= 1000)
    return run_cases("core", core_cases(size), machine, rounds=rounds, limits=limits, progress=progress)
