"""The CUDA backend against limits measured on the spot, and against torch.distributions on the same device.

Goals on an H100 or H200: at n = 65,536, d = 12,288, k = 200, l = 10 log_prob in 20 ms, at n = 10^6, d = 784, k = 50,
l = 6 in 10 ms, gradients within twice that; 2,000 x 2,000 subspaces at 60% of the float64 product rate; streaming at
80% of the bandwidth to the device; 100 times torch.distributions.
"""

from __future__ import annotations

import numpy as np

import mfakit
from mfakit.bench import SIZES, Case, Machine, Size, Timed, Work, core_cases
from mfakit.bench.core import random_mixture

from .peers.density import torch_mixture

BACKEND = "cuda"
# Of the [n, k, d] arrays that torch.distributions makes, several at a time, which its pool then keeps.
TORCH_BYTES = 2**30


def against_torch(case: Case, machine: Machine) -> Work:
    """Torch is given as many samples as fit; ours at the whole size."""
    import torch

    size = Size(**case.size)
    mfa = random_mixture(size, 0)
    X = mfa.to("cuda").sample(size.n, rng=2)[0]
    n = int(max(1, min(size.n, TORCH_BYTES // (4 * size.k * size.d))))
    part = torch.from_dlpack(X[:n])
    mixture = torch_mixture(mfa, device="cuda")
    expected = machine.arrays.to_host(mfa.log_prob(X[:n], precision="float64"))
    error = np.abs(machine.arrays.to_host(mfa.log_prob(X[:n])) - expected).max()
    theirs = np.abs(mixture.log_prob(part).cpu().numpy() - expected).max()

    def of_torch() -> None:
        mixture.log_prob(part)
        torch.cuda.synchronize()

    return Work(
        Timed(lambda: mfa.log_prob(X)), float(error), size.n, "samples",
        beside={"torch.distributions": Timed(of_torch, work=n / size.n)}, facts={"torch_error_nats": float(theirs)},
    )  # fmt: skip


def attacks_agree(case: Case, machine: Machine) -> Work:
    """The gradient attack on the host and on the device, samples of a shipped pair."""
    import torch

    torch.cuda.empty_cache()
    clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    X, y = clf.sample(case.size["n"], rng=0, balanced=True)
    host, device = (mfakit.attacks.gradient_attack(clf, X, y, backend=backend) for backend in ("auto", "cuda"))
    if host.success_rate != device.success_rate:
        raise AssertionError(f"the attacks fool {host.success_rate} on the host, {device.success_rate} on the device")
    run = Timed(lambda: mfakit.attacks.gradient_attack(clf, X, y, backend="cuda"))
    return Work(run, abs(host.mean_l2 - device.mean_l2), len(X), "samples")


CASES = (
    Case("gradient attack on mnist-06", attacks_agree, {"n": 200}, against="mean ℓ2 on the host", allowed=1e-3),
    *[case for name in ("digits-gpu", "faces-gpu") for case in core_cases(SIZES[name])],
    *[
        Case("log_prob beside torch", against_torch, {letter: getattr(SIZES[name], letter) for letter in "ndkl"},
             against="a float64 product, nats", allowed=0.05)
        for name in ("digits-gpu", "faces-gpu")
    ],
)  # fmt: skip
