"""What the machine can do at best, measured on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .cases import Case, Timed, Work

if TYPE_CHECKING:
    from .runner import Machine

__all__ = ["Limits", "least_seconds", "measure_limits"]

# Products are measured at this many rows, columns and terms, copies at this many bytes; less for small cases.
PRODUCT_EDGE = {"host": 2048, "device": 8192}
COPY_BYTES = {"host": 2**28, "device": 2**31}


@dataclass(frozen=True)
class Limits:
    """Products in FLOP/s, copies in bytes/s (a byte copied within memory is read and written); None where there is no
    such thing.
    """

    float32: float
    tf32: float | None
    float64: float
    memory: float
    host_to_device: float | None

    @property
    def coarse(self) -> float:
        """Of the products that choose candidates: on tensor cores where there are any."""
        return self.float32 if self.tf32 is None else self.tf32

    @property
    def sentence(self) -> str:
        """To be read."""
        tf32 = "" if self.tf32 is None else f", TF32 {self.tf32 / 1e12:.1f}"
        way = "" if self.host_to_device is None else f", host to device {self.host_to_device / 1e9:.0f} GB/s"
        return (
            f"Measured limits: products float32 {self.float32 / 1e12:.2f} TFLOP/s{tf32}, "
            f"float64 {self.float64 / 1e12:.2f}; memory {self.memory / 1e9:.0f} GB/s{way}."
        )


def measure_limits(machine: Machine, rounds: int, small: bool = False) -> Limits:
    """Square products and copies, the best of some rounds; `small` measures in milliseconds, and roughly."""
    kind = "device" if machine.arrays.is_device else "host"
    edge, n_bytes = (64, 2**16) if small else (PRODUCT_EDGE[kind], COPY_BYTES[kind])
    way = tf32 = None
    if machine.arrays.is_device:
        way = float(n_bytes / min(machine.arrays.engine.upload_seconds(n_bytes, rounds)))
        tf32 = _product_rate(machine, rounds, edge, np.float32, True)
    memory = 2.0 * n_bytes / _copy_seconds(machine, rounds, n_bytes)
    float32, float64 = (_product_rate(machine, rounds, edge, dtype, False) for dtype in (np.float32, np.float64))
    return Limits(float32, tf32, float64, memory, way)


def _product_rate(machine: Machine, rounds: int, edge: int, dtype: Any, tf32: bool) -> float:
    arrays, rng = machine.arrays, np.random.default_rng(0)
    A, B = (arrays.asarray(rng.random((edge, edge)).astype(dtype)) for _ in range(2))
    out = arrays.xp.empty((edge, edge), dtype)
    seconds = machine.interleaved({"product": Timed(lambda: arrays.matmul(A, B, out, tf32=tf32))}, rounds)
    return float(2.0 * edge**3 / seconds["product"].best)


def _copy_seconds(machine: Machine, rounds: int, n_bytes: int) -> float:
    source, target = (machine.arrays.xp.zeros(n_bytes, np.uint8) for _ in range(2))

    def copy() -> None:
        target[:] = source

    return machine.interleaved({"copy": Timed(copy)}, rounds)["copy"].best


def least_seconds(limits: Limits | None, case: Case, work: Work) -> float | None:
    """The larger of a case's operations over the product rate and its bytes over the bandwidth; None without limits."""
    if limits is None:
        return None
    parts = ((case.limit, work.flops), (case.bandwidth, work.n_bytes))
    rates = [(amount, getattr(limits, name)) for name, amount in parts if name is not None and amount > 0]
    known = [amount / rate for amount, rate in rates if rate is not None]
    return max(known) if known else None
