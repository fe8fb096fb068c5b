"""The CUDA backend against limits measured on the spot, and against torch.distributions on the same device.

Goals on an H100 or H200: at n = 65,536, d = 12,288, k = 200, l = 10 log_prob at 85% of the measured float32 product
rate, three times that with precision="fast", its gradient at 70%; at n = 10^6, d = 784, k = 50, l = 6 log_prob at 60%
of its own limit; 2,000 x 2,000 subspaces at 60% of the float64 product rate; streaming at 80% of the bandwidth to the
device; 100 times torch.distributions where that fits. Without a device the result file says that nothing was measured.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import mfakit
from benchmarks.common import save
from mfakit import bench
from mfakit._io.report import jsonable
from mfakit.backends import why_missing

SIZES = ("digits-gpu", "faces-gpu")
# Samples that torch.distributions is given: it makes [n, k, d] arrays, several at a time.
TORCH_BYTES = 4 * 2**30


def _median_seconds(action: Any) -> float:
    import cupy
    import torch

    def settle() -> None:
        torch.cuda.synchronize()
        cupy.cuda.Device().synchronize()

    action()
    settle()
    found = []
    for _ in range(5):
        start = time.perf_counter()
        action()
        settle()
        found.append(time.perf_counter() - start)
    return float(np.median(found))


def _of_torch(size: bench.Size, mfa: mfakit.MFA) -> dict[str, Any]:
    """Samples/s of torch's MixtureSameFamily of LowRankMultivariateNormal; what it allocates goes with this frame."""
    import torch

    n = int(max(1, min(size.n, TORCH_BYTES // (4 * size.k * size.d))))
    X = torch.from_numpy(mfa.sample(n, rng=1)[0]).cuda()
    means, loadings = (torch.from_numpy(np.array(a, np.float32)).cuda() for a in (mfa.means, mfa.loadings))
    diagonal = torch.full_like(means, 1e-4)
    components = torch.distributions.LowRankMultivariateNormal(means, loadings, diagonal, validate_args=False)
    weights = torch.distributions.Categorical(torch.full((size.k,), 1 / size.k, device="cuda"))
    mixture = torch.distributions.MixtureSameFamily(weights, components, validate_args=False)
    difference = float((mixture.log_prob(X) - mfa.log_prob(X)).abs().max())
    rate = n / _median_seconds(lambda: mixture.log_prob(X))
    return {"n": n, "torch_samples_per_second": rate, "difference_nats": difference}


def against_torch(size: bench.Size) -> dict[str, Any]:
    """Torch's samples/s and ours, ours at the whole size."""
    import gc

    import torch

    mfa = bench._model(size, 0)
    found = _of_torch(size, mfa)
    gc.collect()
    torch.cuda.empty_cache()  # its temporaries are l copies of TORCH_BYTES, which it keeps; ours must not be crowded
    X = mfa.to("cuda").sample(size.n, rng=2)[0]
    ours = size.n / _median_seconds(lambda: mfa.log_prob(X))
    ratio = ours / found["torch_samples_per_second"]
    return {**found, "mfakit_samples_per_second": ours, "ratio": ratio, "torch": torch.__version__}


def device_facts() -> dict[str, Any]:
    """Device, driver and versions."""
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(0)
    return {
        "device": properties["name"].decode(), "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(), "cupy": cupy.__version__, "memory": properties["totalGlobalMem"],
    }  # fmt: skip


def attacks_agree() -> dict[str, Any]:
    """The gradient attack on the host and on the device: success and mean ℓ2 of 200 samples of a shipped pair."""
    clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    X, y = clf.sample(200, rng=0, balanced=True)
    found = {b: mfakit.attacks.gradient_attack(clf, X, y, backend=b) for b in ("auto", "cuda")}
    result = {b: {"success_rate": r.success_rate, "mean_l2": r.mean_l2} for b, r in found.items()}
    host, device = result["auto"], result["cuda"]
    if host["success_rate"] != device["success_rate"] or abs(host["mean_l2"] - device["mean_l2"]) > 1e-3:
        raise AssertionError(f"the attacks differ: {result}")
    return result


def main() -> None:
    reason = why_missing("cuda")
    if reason is not None:
        print(f"gpu: not measured here, {reason}")
        return
    import cupy

    results: dict[str, Any] = {"status": "measured", **device_facts(), "attacks": attacks_agree(), "sizes": {}}
    for name in SIZES:
        report = bench.run("cuda", name, rounds=7)
        print(report.table().terminal(), report.notes, sep="\n\n")
        shares = {m.name: m.share for m in report.measurements}
        results["sizes"][name] = {"report": jsonable(report), "of_limit": shares}
        save("gpu", results)  # what is measured is kept, whatever comes after it
    for name in SIZES:
        cupy.get_default_memory_pool().free_all_blocks()
        results["sizes"][name]["torch"] = against_torch(bench.SIZES[name])
        print(f"{name} against torch.distributions: {results['sizes'][name]['torch']['ratio']:.0f} times\n")
        save("gpu", results)


if __name__ == "__main__":
    main()
