"""How fast this machine does it, and how near its own limit: what ``mfakit bench`` prints.

First the limits, measured on the spot: the rates of the matrix product in each precision, and the bandwidths of memory
and, for a device, of the way to it. Then each operation: the time that these limits would allow for the operations and
bytes it cannot avoid, over the time it takes. Every operation is checked against float64 before it is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ._io import report
from ._io.progress import open_bar
from .backends import get_arrays, get_backend
from .backends.host_arrays import Host
from .bayes.classifier import BayesClassifier
from .mixture.mfa import MFA

__all__ = ["SIZES", "BenchReport", "Limits", "Measurement", "Size", "run"]


class Size(NamedTuple):
    """Samples, features, components, factors."""

    n: int
    d: int
    k: int
    l: int


SIZES = {
    "tiny": Size(64, 40, 4, 2),
    "digits": Size(20_000, 784, 50, 6),
    "faces": Size(4096, 12_288, 100, 10),
    "digits-gpu": Size(1_000_000, 784, 50, 6),
    "faces-gpu": Size(65_536, 12_288, 200, 10),
}
# Products are measured at this many rows, columns and terms, or at the operation's own where that is smaller.
PRODUCT_EDGE = {"host": 2048, "device": 8192}
COPY_BYTES = {"host": 2**28, "device": 2**31}


@dataclass(frozen=True)
class Limits:
    """What the machine can do at best: products in FLOP/s, copies in bytes/s (a byte copied is read and written)."""

    float32: float
    tf32: float | None
    float64: float
    memory: float
    host_to_device: float | None


@dataclass(frozen=True)
class Measurement:
    """One operation.

    Attributes
    ----------
    name : str
    items, unit : int, str
        What is counted, such as samples or pairs.
    flops, n_bytes : float
        What it cannot avoid: operations of the products, and bytes read and written once.
    seconds : list of float
        Each round.
    limit_seconds : float
        The larger of flops over the product rate and bytes over the bandwidth.
    peak_bytes : int or None
        Device memory in use at most, arguments included.
    error : float
        Largest difference from float64 on some samples, relative to the largest value.
    """

    name: str
    items: int
    unit: str
    flops: float
    n_bytes: float
    seconds: list[float]
    limit_seconds: float
    peak_bytes: int | None
    error: float

    @property
    def median(self) -> float:
        """Median over the rounds, s."""
        return statistics.median(self.seconds)

    @property
    def share(self) -> float:
        """Of the limit, 1 at best."""
        return self.limit_seconds / self.median


@dataclass(frozen=True)
class BenchReport:
    """All measurements at one size, and where they were made."""

    backend: str
    device: str
    size: Size
    limits: Limits
    measurements: list[Measurement]
    environment: dict[str, Any] = field(default_factory=report.environment)

    def table(self) -> report.Table:
        """A row per operation."""
        columns = ("operation", "rate\n(1/s)", "TFLOP/s", "of its limit\n(%)", "median\n(ms)", "peak memory\n(MiB)")
        rows = [
            (
                m.name, f"{m.items / m.median:,.0f} {m.unit}", report.number(m.flops / m.median / 1e12),
                report.percent(m.share), report.number(1e3 * m.median),
                report.NOT_KNOWN if m.peak_bytes is None else f"{m.peak_bytes / 2**20:,.0f}",
            )
            for m in self.measurements
        ]  # fmt: skip
        return report.Table(columns, tuple(rows))

    @property
    def notes(self) -> str:
        """The limits in a sentence."""
        limits, n = self.limits, self.size
        tf32 = "" if limits.tf32 is None else f", TF32 {limits.tf32 / 1e12:.1f}"
        way = "" if limits.host_to_device is None else f", host to device {limits.host_to_device / 1e9:.0f} GB/s"
        return (
            f"{self.device}, backend {self.backend}; n={n.n}, d={n.d}, k={n.k}, l={n.l}. Measured limits: products "
            f"float32 {limits.float32 / 1e12:.2f} TFLOP/s{tf32}, float64 {limits.float64 / 1e12:.2f}; memory "
            f"{limits.memory / 1e9:.0f} GB/s{way}."
        )


class _Bench:
    def __init__(self, backend: str, size: Size, rounds: int) -> None:
        self.backend, self.size, self.rounds = backend, size, rounds
        self.ops = get_backend(backend)
        self.arrays: Host = get_arrays(self.ops)
        self.xp = self.arrays.xp
        self.kind = "device" if self.arrays.is_device else "host"

    def seconds(self, action: Callable[[], Any]) -> list[float]:
        """Of each round, after one warm-up; the device is waited for."""
        action()
        engine = getattr(self.arrays, "engine", None)
        if engine is not None:
            engine.synchronize()
            if hasattr(engine, "event_seconds"):
                return [float(engine.event_seconds(action)) for _ in range(self.rounds)]
        found = []
        for _ in range(self.rounds):
            start = time.perf_counter()
            action()
            if engine is not None:
                engine.synchronize()
            found.append(time.perf_counter() - start)
        return found

    def product_rate(self, dtype: Any, fast: bool = False) -> float:
        """FLOP/s of the square product."""
        edge = min(PRODUCT_EDGE[self.kind], max(64, self.size.n))
        rng = np.random.default_rng(0)
        A, B = (self.arrays.asarray(rng.random((edge, edge)).astype(dtype)) for _ in range(2))
        out = self.xp.empty((edge, edge), dtype)
        return float(2.0 * edge**3 / min(self.seconds(lambda: self.arrays.matmul(A, B, out, fast=fast))))

    def limits(self) -> Limits:
        """Products and copies."""
        n_bytes = COPY_BYTES[self.kind] if self.size.n > 1000 else 2**16
        source, target = self.xp.zeros(n_bytes, np.uint8), self.xp.zeros(n_bytes, np.uint8)

        def copy() -> None:
            target[:] = source

        memory = 2.0 * n_bytes / min(self.seconds(copy))
        way = None
        if self.arrays.is_device:
            engine: Any = self.arrays.engine  # type: ignore[attr-defined]
            way = float(n_bytes / min(engine.upload_seconds(n_bytes, self.rounds)))
        return Limits(
            self.product_rate(np.float32), self.product_rate(np.float32, True) if self.arrays.is_device else None,
            self.product_rate(np.float64), memory, way,
        )  # fmt: skip


def _model(size: Size, seed: int) -> MFA:
    rng = np.random.default_rng(seed)
    _, d, k, l = size
    means = rng.random((k, d), dtype=np.float32)
    return MFA(np.full(k, 1 / k), means, rng.standard_normal((k, d, l), dtype=np.float32) / 10, 1e-4)


def run(
    backend: str = "auto", size: str | Size = "digits", rounds: int = 5, progress: bool | None = None
) -> BenchReport:
    """Measure the limits and every operation.

    Parameters
    ----------
    backend : str
        As in :class:`mfakit._arrays.options.Options`.
    size : str or Size
        One of :data:`SIZES`.
    rounds : int
        Timed calls of each operation, after one that is not counted.
    progress : bool or None
        A progress bar; None shows it on a terminal.

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
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        raise ValueError(f"rounds must be a positive integer, got {rounds!r}")
    bench = _Bench(backend, size, rounds)
    with bench.arrays.active():
        limits = bench.limits()
        found = []
        for case in open_bar(progress, _cases(bench), desc="bench"):
            found.append(_measure(bench, limits, *case))
    name = bench.ops.__name__.rsplit(".", 1)[-1].removesuffix("_ops")
    device = getattr(getattr(bench.arrays, "engine", None), "name", None) or _processor()
    return BenchReport(name, device, size, limits, found)


Case = tuple[str, int, str, float, float, str, Callable[[], Any], Callable[[], float]]


def _cases(bench: _Bench) -> list[Case]:
    """(name, items, unit, flops, bytes, which limit, what is timed, its error)."""
    n, d, k, l = bench.size
    mfa, other = _model(bench.size, 0), _model(bench.size, 1)
    X = (mfa.to("cuda") if bench.arrays.is_device else mfa).sample(n, rng=1)[0]
    X_host = bench.arrays.to_host(X)
    few = X_host[:: max(n // 16, 1)][:16]
    there, how = bench.arrays.asarray(few), {"backend": bench.backend}
    columns, x_bytes = k * (l + 1), X_host.nbytes
    product = 2.0 * n * d * columns

    def error(method: str, **options: Any) -> Callable[[], float]:
        def measure() -> float:
            expected = getattr(mfa, method)(few.astype(np.float64), backend="auto")
            got = bench.arrays.to_host(getattr(mfa, method)(there, **how, **options))
            return float(np.abs(got - expected).max() / np.abs(expected).max())

        return measure

    cases: list[Case] = [
        ("log_prob", n, "samples", product, x_bytes, "float32", lambda: mfa.log_prob(X, **how), error("log_prob")),
        (
            "grad_log_prob", n, "samples", product, 2 * x_bytes, "float32", lambda: mfa.grad_log_prob(X, **how),
            error("grad_log_prob"),
        ),
        (
            "responsibilities", n, "samples", product, x_bytes + 4.0 * n * k, "float32",
            lambda: mfa.responsibilities(X, **how), error("responsibilities"),
        ),
    ]  # fmt: skip
    if bench.arrays.is_device:
        fast = {"precision": "fast"}
        cases.insert(1, (
            "log_prob, fast", n, "samples", product, x_bytes, "tf32", lambda: mfa.log_prob(X, **how, **fast),
            error("log_prob", **fast),
        ))  # fmt: skip
        cases.append((
            "log_prob, streamed", n, "samples", product, x_bytes, "host_to_device",
            lambda: mfa.log_prob(X_host, backend="cuda"), error("log_prob"),
        ))  # fmt: skip
    return [*cases, *_subspace_cases(bench, mfa, other), _walk_case(bench, mfa, other)]


def _subspace_cases(bench: _Bench, mfa: MFA, other: MFA) -> list[Case]:
    from .mixture.subspaces import subspace_distances

    _, d, k, l = bench.size
    repeats = 10 if bench.arrays.is_device and k >= 100 else 1
    sides = [
        MFA(np.full(k * repeats, 1 / (k * repeats)), np.concatenate([m.means + 0.01 * i for i in range(repeats)]),
            np.concatenate([m.loadings] * repeats), 1e-4)
        for m in (mfa, other)
    ]  # fmt: skip
    pairs, columns = (k * repeats) ** 2, k * repeats * (l + 1)

    def error() -> float:
        few = [MFA(np.full(3, 1 / 3), m.means[:3], m.loadings[:3], 1e-4) for m in (mfa, other)]
        expected = subspace_distances(*few)
        return float(np.abs(subspace_distances(*few, backend=bench.backend) / expected - 1).max())

    return [(
        "subspace_distances", pairs, "pairs", 2.0 * columns * columns * d, 16.0 * columns * d, "float64",
        lambda: subspace_distances(*sides, backend=bench.backend), error,
    )]  # fmt: skip


def _walk_case(bench: _Bench, mfa: MFA, other: MFA) -> Case:
    """Fifty steps of the gradient attack in factor coordinates, for as many samples as a block has."""
    from .attacks import gradient_attack

    n, (_, d, k, l) = min(bench.size.n, 512), bench.size
    clf = BayesClassifier([mfa, other])
    X, y = clf.sample(n, rng=3)
    step_flops = 2.0 * (2 * k) * (l + 1) * (2 * l + 2)
    how: dict[str, Any] = {"step_size": 1e-3, "max_steps": 50, "backend": bench.backend}

    def error() -> float:
        got, expected = (gradient_attack(clf, X[:4], y[:4], **{**how, "backend": b}) for b in (bench.backend, "auto"))
        return float((got.n_steps != expected.n_steps).sum())

    X_there = bench.arrays.asarray(X)
    return (
        "gradient_attack", 50 * n, "steps", 50 * n * step_flops, 8.0 * n * d, "float64",
        lambda: gradient_attack(clf, X_there, y, **how), error,
    )  # fmt: skip


# Relative to the largest value; float32 results of σ = 0.01 models lose a few digits in the gradient.
ALLOWED = 1e-4


def _measure(
    bench: _Bench, limits: Limits, name: str, items: int, unit: str, flops: float, n_bytes: float, limit: str,
    action: Callable[[], Any], error: Callable[[], float],
) -> Measurement:  # fmt: skip
    found = error()
    if not found <= ALLOWED:
        raise AssertionError(f"{name} is off by {found:.2g} relative")
    bench.arrays.release()
    seconds = bench.seconds(action)
    engine = getattr(bench.arrays, "engine", None)
    rate = {"host_to_device": limits.float32}.get(limit) or getattr(limits, limit)
    bandwidth = limits.host_to_device if limit == "host_to_device" else limits.memory
    least = max(flops / rate, n_bytes / (bandwidth or limits.memory))
    return Measurement(
        name, items, unit, flops, n_bytes, seconds, least, None if engine is None else engine.used_bytes(), found
    )


def _processor() -> str:
    import platform

    return platform.processor() or platform.machine()
