"""``python -m benchmarks.profile OPERATION``: what a call on a CUDA device spends its time on.

Warm, it prints the time of a call, the host's share of it until it waits, and of each kernel the time by CUDA events.
With ``--once`` it makes a single call between the marks that nsys and ncu can be told to record (tools/profile_gpu.sh).
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from typing import Any

from mfakit.bench import Machine, Size

from .device import OPERATIONS, Inputs, kernels_timed

SIZES = {"digits": Size(n=2**17, d=784, k=50, l=6), "faces": Size(n=8192, d=12_288, k=200, l=10)}


def profile(name: str, size: Size, machine: Any, rounds: int = 5) -> dict[str, Any]:
    """Milliseconds of a call, of the host until it waits for what is left of it, and of each kernel."""
    run = partial(OPERATIONS[name], Inputs(size))
    run()
    machine.engine.synchronize()
    calls, launches = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        launches.append(time.perf_counter() - start)
        machine.engine.synchronize()
        calls.append(time.perf_counter() - start)
    with kernels_timed(machine) as found:
        run()
    kernels = {kernel: (round(1e3 * sum(times), 4), len(times)) for kernel, times in found.items()}
    return {"call": round(1e3 * min(calls), 3), "host": round(1e3 * min(launches), 3), "kernels": kernels}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__.partition("\n")[0])
    parser.add_argument("operation", choices=list(OPERATIONS))
    parser.add_argument("--size", choices=list(SIZES), help="default: both, of --once faces")
    parser.add_argument("--once", action="store_true", help="one call between the profiler's marks")
    args = parser.parse_args(arguments)
    machine = Machine("cuda")
    if args.once:
        run = partial(OPERATIONS[args.operation], Inputs(SIZES[args.size or "faces"]))
        run()
        with machine.engine.recorded():
            run()
        return 0
    for name in [args.size] if args.size else SIZES:
        found = profile(args.operation, SIZES[name], machine)
        print(f"{args.operation}, {name}: {found['call']} ms a call, {found['host']} ms until the host waits")
        for kernel, (ms, count) in sorted(found["kernels"].items(), key=lambda item: -item[1][0]):
            print(f"  {kernel:32} {ms:10.4f} ms in {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
