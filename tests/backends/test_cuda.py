"""Every operation of the table by its CUDA kernel, by value, against the readable backend: on a device where there is
one, and on the CPU by the emulator, which runs the real kernels with threads in three orders.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backend_cases import CASES, SIZES, Model, assert_equal, combinations, run

from mfakit.backends import cuda_ops, numpy_ops
from mfakit.backends.cuda_arrays import current
from mfakit.backends.host import HOST

# The emulator switches fibers at every barrier; the cases' own sizes are small enough, but for this one.
SMALL = {**SIZES, "usual": (21, 3, 70, 5)}


@pytest.mark.parametrize("size", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize(("operation", "dtype", "noise"), combinations())
def test_values(cuda: Any, operation: str, dtype: str, noise: str, size: tuple[int, int, int, int]) -> None:
    model = Model(size, dtype, noise, seed=3)
    case = CASES[operation](model)
    if operation == "factor_walk":
        case.arguments.update(max_steps=12, bisections=6)
    expected = run(numpy_ops, operation, model, case)
    got = run(cuda_ops, operation, model, case, engine=cuda)
    assert_equal(operation, got, expected, case, d=size[2])


@pytest.mark.parametrize(("operation", "dtype", "noise"), combinations())
def test_equal_bits_twice(cuda: Any, operation: str, dtype: str, noise: str) -> None:
    """Sums have a fixed order: not even the order of the threads changes a bit."""
    model = Model((14, 3, 40, 4), dtype, noise, seed=5)
    case = CASES[operation](model)
    if operation == "factor_walk":
        case.arguments.update(max_steps=6, bisections=3)
    first, second = (run(cuda_ops, operation, model, case, engine=cuda) for _ in range(2))
    for name, value in first.items():
        assert value.tobytes() == second[name].tobytes(), name


def test_more_candidates_of_a_row_than_a_tile(cuda: Any) -> None:
    model = Model((6, 9, 30, 2), "float64", "diagonal", seed=8)
    case = CASES["accumulate_gradient"](model)
    rows, components = np.repeat(np.arange(6), 9), np.tile(np.arange(9), 6)
    order = np.argsort(components, kind="stable")
    y = np.einsum(
        "mld,md->ml", model.factors.whitened[components[order]],
        model.X[rows[order]] - model.factors.means[components[order]],
    )  # fmt: skip
    case.arguments.update(
        rows=rows[order], components=components[order], weights=model.rng.uniform(size=54), whitened_latent=y
    )
    expected = run(numpy_ops, "accumulate_gradient", model, case)
    got = run(cuda_ops, "accumulate_gradient", model, case, engine=cuda)
    assert_equal("accumulate_gradient", got, expected, case, d=30)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_candidates(cuda: Any, dtype: str, noise: str) -> None:
    """The list of candidates is what mixture_epilogue keeps, and their sums are the rows'."""
    model = Model((17, 40, 12, 2), dtype, noise, seed=6)
    case = CASES["mixture_epilogue"](model)
    case.arguments["slack"] = 0.02
    arguments = tuple(case.arguments.values())
    expected = HOST.candidates(arguments, 17, 40, 2)
    assert 17 < len(expected[0]) < 17 * 40
    there = tuple(cuda.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments)
    arrays = current()
    found = arrays.candidates(there, 17, 40, 2)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(cuda.to_host(got), wanted)
    values = model.rng.normal(size=len(expected[0]))
    totals, out = np.empty(17), cuda.asarray(np.empty(17))
    HOST.log_sum_exp_candidates(values, expected[2], totals)
    arrays.log_sum_exp_candidates(cuda.asarray(values), found[2], out)
    np.testing.assert_allclose(cuda.to_host(out), totals, rtol=1e-12)


def test_walks_with_little_shared_memory(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model((5, 3, 30, 2), "float64", "isotropic", seed=3)
    case = CASES["factor_walk"](model)
    case.arguments.update(max_steps=10, bisections=5)
    expected = run(numpy_ops, "factor_walk", model, case)
    monkeypatch.setattr(cuda, "shared_bytes", 1024)
    got = run(cuda_ops, "factor_walk", model, case, engine=cuda)
    assert_equal("factor_walk", got, expected, case, d=30)


def test_pairs_with_many_factors_work_in_global_memory(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model((4, 3, 40, 5), "float64", "isotropic", seed=3)
    case = CASES["pair_distances"](model)
    expected = run(numpy_ops, "pair_distances", model, case)
    monkeypatch.setattr(cuda_ops, "MOST_LOCAL_VALUES", 8)
    monkeypatch.setattr(cuda_ops, "GLOBAL_WORKERS", 64)
    got = run(cuda_ops, "pair_distances", model, case, engine=cuda)
    assert_equal("pair_distances", got, expected, case, d=40)
