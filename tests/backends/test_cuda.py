"""Every operation of the table by its CUDA kernel, by value, against the readable backend: on a device where there is
one, and on the CPU by the emulator, which runs the real kernels with threads in three orders.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backend_cases import CASES, SIZES, Case, Model, assert_equal, combinations, run
from support import close

from mfakit.backends import cuda_ops, numpy_ops
from mfakit.backends.cuda_arrays import current
from mfakit.backends.operands import Subspaces, WalkSettings, WeightedPairs

# The emulator switches fibers at every barrier; the cases' own sizes are small enough, but for this one.
SMALL = {**SIZES, "usual": (21, 3, 70, 5)}


@pytest.mark.parametrize("size", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize(("operation", "dtype", "noise"), combinations("cuda"))
def test_values(cuda: Any, operation: str, dtype: str, noise: str, size: tuple[int, int, int, int]) -> None:
    model = Model(size, dtype, noise, seed=3)
    case = CASES[operation](model)
    if operation == "factor_walk":
        case.arguments["settings"] = WalkSettings(0.3, 12, False, 6)
    expected = run(numpy_ops, operation, model, case)
    got = run(cuda_ops, operation, model, case, engine=cuda)
    assert_equal(operation, got, expected, case, d=size[2])


@pytest.mark.parametrize(("operation", "dtype", "noise"), combinations("cuda"))
def test_equal_bits_twice(cuda: Any, operation: str, dtype: str, noise: str) -> None:
    """Sums have a fixed order: not even the order of the threads changes a bit."""
    model = Model((14, 3, 40, 4), dtype, noise, seed=5)
    case = CASES[operation](model)
    if operation == "factor_walk":
        case.arguments["settings"] = WalkSettings(0.3, 6, False, 3)
    first, second = (run(cuda_ops, operation, model, case, engine=cuda) for _ in range(2))
    for name, value in first.items():
        assert value.tobytes() == second[name].tobytes(), name


@pytest.mark.parametrize("threads", [64, 256])
@pytest.mark.parametrize("l", [0, 1, 2, 3, 16, 25])
@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_refinement_of_few_and_many_factors(
    cuda: Any, dtype: str, noise: str, l: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums dealt out to warps: fewer than the warps, a remainder, and (16 by 2 warps, 25 by 8) more than one round."""
    monkeypatch.setattr(cuda, "most_threads", threads)
    model = Model((5, 2, 67, l), dtype, noise, seed=7)
    case = CASES["refine"](model)
    expected = run(numpy_ops, "refine", model, case)
    got = run(cuda_ops, "refine", model, case, engine=cuda)
    assert_equal("refine", got, expected, case, d=67)


def test_more_candidates_of_a_row_than_a_tile(cuda: Any) -> None:
    model = Model((6, 9, 30, 2), "float64", "diagonal", seed=8)
    case = CASES["accumulate_gradient"](model)
    rows, components = np.repeat(np.arange(6), 9), np.tile(np.arange(9), 6)
    order = np.argsort(components, kind="stable")
    y = np.einsum(
        "mld,md->ml", model.factors.whitened[components[order]],
        model.X[rows[order]] - model.factors.means[components[order]],
    )  # fmt: skip
    weights = model.rng.uniform(size=54)
    case.arguments["pairs"] = WeightedPairs(rows[order], components[order], weights, y)
    expected = run(numpy_ops, "accumulate_gradient", model, case)
    got = run(cuda_ops, "accumulate_gradient", model, case, engine=cuda)
    assert_equal("accumulate_gradient", got, expected, case, d=30)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("k", "slack"),
    [(1, 0.02), (31, 0.02), (32, 0.02), (33, 0.02), (40, 1e9), (70, 0.0), (256, 0.02), (257, 0.02), (600, 0.1)],
)  # a warp holds 256 components in registers
def test_candidates(cuda: Any, k: int, slack: float, dtype: str, noise: str) -> None:
    """The list of candidates is what mixture_epilogue keeps, and their sums are the rows'; a row of NaN has none."""
    model = Model((17, k, 12, 2), dtype, noise, seed=6)
    case = CASES["mixture_epilogue"](model)
    coarse = case.arguments["coarse"]._replace(slack=slack)
    coarse.products[5] = np.nan
    case.arguments["coarse"] = coarse
    expected = run(numpy_ops, "mark_candidates", model, case)
    marks, offsets = expected["0"], expected["1"]
    assert_equal("mark_candidates", run(cuda_ops, "mark_candidates", model, case, engine=cuda), expected, case, d=12)
    count = int(offsets[-1])
    listing = Case({"marks": marks, "offsets": offsets, "count": count, "k": k}, 1.0)
    listed = run(numpy_ops, "list_candidates", model, listing)
    assert 5 not in listed["0"]
    assert len(listed["0"]) == count
    assert count == 16 * k if slack > 1 else 16 <= count <= 16 * k
    assert_equal(
        "list_candidates", run(cuda_ops, "list_candidates", model, listing, engine=cuda), listed, listing, d=12
    )
    sums = Case({"values": model.rng.normal(size=count), "offsets": offsets}, 1.0)
    totals, found = (
        run(ops, "log_sum_exp_candidates", model, sums, engine=where)["out"]
        for ops, where in ((numpy_ops, None), (cuda_ops, cuda))
    )
    close(found, totals, rtol=1e-12)


def test_more_components_than_a_grid_is_wide(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model((20, 5, 30, 2), "float32", "isotropic", seed=3)
    case = CASES["accumulate_statistics"](model)
    expected = run(numpy_ops, "accumulate_statistics", model, case)
    monkeypatch.setattr(cuda_ops, "MOST_BLOCKS_ACROSS", 2)
    got = run(cuda_ops, "accumulate_statistics", model, case, engine=cuda)
    assert_equal("accumulate_statistics", got, expected, case, d=30)


@pytest.mark.parametrize("operation", ["mixture_epilogue", "point_distances"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_products_are_padded(cuda: Any, operation: str, dtype: str) -> None:
    """Whatever stands in the columns beyond k (l + 1)."""
    model = Model((7, 5, 12, 2), dtype, "isotropic", seed=6)
    case = CASES[operation](model)
    expected = run(numpy_ops, operation, model, case)
    assert current().factors(model.factors).panel(dtype).shape == (12, 16)
    wide = np.full((7, 18), np.nan, dtype)
    wide[:, :15] = case.arguments["coarse"].products
    case.arguments["coarse"] = case.arguments["coarse"]._replace(products=wide)
    got = run(cuda_ops, operation, model, case, engine=cuda)
    assert_equal(operation, got, expected, case, d=12)


def test_walks_with_little_shared_memory(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model((5, 3, 30, 2), "float64", "isotropic", seed=3)
    case = CASES["factor_walk"](model)
    case.arguments["settings"] = WalkSettings(0.3, 10, False, 5)
    expected = run(numpy_ops, "factor_walk", model, case)
    monkeypatch.setattr(cuda, "shared_bytes", 1024)
    got = run(cuda_ops, "factor_walk", model, case, engine=cuda)
    assert_equal("factor_walk", got, expected, case, d=30)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("shared_bytes", [96 * 1024, 1024])
def test_walks_go_on_from_launch_to_launch(cuda: Any, monkeypatch: Any, shared_bytes: int, frozen: bool) -> None:
    """Equal bits however many steps a launch takes, and no launch once every sample has ended."""
    monkeypatch.setattr(cuda, "shared_bytes", shared_bytes)
    model = Model((6, 3, 30, 2), "float64", "isotropic", seed=3)
    case = CASES["factor_walk"](model)
    case.arguments["settings"] = WalkSettings(0.3, 40, frozen, 5)
    whole = run(cuda_ops, "factor_walk", model, case, engine=cuda)
    steps = whole["reports"][:, 1]
    assert len(set(steps.tolist())) > 2
    monkeypatch.setattr(cuda_ops, "WALK_STEPS", 4)
    launched = len(getattr(cuda, "launches", ()))
    parts = run(cuda_ops, "factor_walk", model, case, engine=cuda)
    for name, value in whole.items():
        assert value.tobytes() == parts[name].tobytes(), name
    if hasattr(cuda, "launches"):
        assert len(cuda.launches) - launched == -(-min(int(steps.max()) + 1, 40) // 4)


def test_pairs_with_many_factors_work_in_global_memory(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model((4, 3, 40, 5), "float64", "isotropic", seed=3)
    case = CASES["pair_distances"](model)
    expected = run(numpy_ops, "pair_distances", model, case)
    monkeypatch.setattr(cuda_ops, "MOST_LOCAL_VALUES", 8)
    monkeypatch.setattr(cuda_ops, "GLOBAL_WORKERS", 64)
    for most in (cuda_ops.MOST_FACTORS_IN_REGISTERS, 3):  # with four factors, those or all pairs
        monkeypatch.setattr(cuda_ops, "MOST_FACTORS_IN_REGISTERS", most)
        got = run(cuda_ops, "pair_distances", model, case, engine=cuda)
        assert_equal("pair_distances", got, expected, case, d=40)


def _orthonormal(rng: np.random.Generator, d: int, l: int) -> Any:
    return np.linalg.qr(rng.normal(size=(d, l)))[0].T


def _special_pairs(l0: int, l1: int) -> tuple[Case, Any]:
    """Pairs [2, 8] of subspaces with l0 and l1 directions, and which of side 1 hold one that is (nearly) shared with
    the first of side 0. Its second has a zero row, as of dependent loadings.
    """
    rng, d = np.random.default_rng(10 * l0 + l1), 40
    Q0 = np.stack([_orthonormal(rng, d, l0) for _ in range(2)])
    Q0[1, -1:] = 0.0
    means0, m = rng.normal(size=(2, d)), min(l0, l1)
    Q1 = np.stack([_orthonormal(rng, d, l1) for _ in range(8)])
    means1 = rng.normal(size=(8, d))
    away = rng.normal(size=(l1 + 2, d))
    away = np.linalg.qr((away - away @ Q0[0].T @ Q0[0]).T)[0].T  # at right angles with the first of side 0
    # One direction at such a sine, or two; all that there are, on one spot or apart.
    for j, (n, sine) in enumerate([(1, 0.0), (1, 0.9e-2), (2, 1.1e-2), (m, 0.0), (m, 0.0)]):
        tilted = np.sqrt(1.0 - sine**2) * Q0[0, : min(n, m)] + sine * away[: min(n, m)]
        Q1[j] = np.linalg.qr(np.concatenate([tilted, away[2 : 2 + l1]])[:l1].T)[0].T
    means1[3] = means0[0]
    means1[5] = means0[0] + rng.normal(size=l0) @ Q0[0] + rng.normal(size=l1) @ Q1[5] + 1e-5 * away[1]  # nearly touches
    Q1[6, -2:] = 0.0
    Q1[7] = 0.0
    rows0, rows1 = (np.concatenate([Q, mean[:, None]], axis=1) for Q, mean in ((Q0, means0), (Q1, means1)))
    shift0, shift1 = np.einsum("kld,kd->kl", Q0, means0), np.einsum("kld,kd->kl", Q1, means1)
    norm0, norm1 = (means0**2).sum(axis=1), (means1**2).sum(axis=1)
    arguments = {
        "products": np.einsum("iad,jbd->iajb", rows0, rows1), "side0": Subspaces(shift0, norm0),
        "side1": Subspaces(shift1, norm1),
    }  # fmt: skip
    near = np.array([1, 1, 0, 1, 1, 0, 0, 0], bool) if m else np.zeros(8, bool)
    return Case(arguments, 1e4 * float(norm0.max() + norm1.max())), near


PAIR_FACTORS = [(l, l) for l in (0, 1, 6, 10, 12, 13)] + [(0, 3), (3, 0), (10, 6), (6, 10), (13, 12), (12, 13)]


@pytest.mark.parametrize(("l0", "l1"), PAIR_FACTORS)
def test_special_pairs(cuda: Any, l0: int, l1: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal subspaces, shared and nearly shared directions, near touches, dependent loadings, more factors than fit."""
    case, near = _special_pairs(l0, l1)
    model = Model((8, 2, 40, l0), "float64", "isotropic", seed=1)  # its shape alone counts
    expected = run(numpy_ops, "pair_distances", model, case)
    launched: list[str] = []
    launch = cuda.launch

    def noted(family: str, kernel: str, *args: Any, **values: Any) -> None:
        launched.append(kernel)
        launch(family, kernel, *args, **values)

    monkeypatch.setattr(cuda, "launch", noted)
    got = run(cuda_ops, "pair_distances", model, case, engine=cuda)
    assert_equal("pair_distances", got, expected, case, d=40)
    touching = np.isin(np.arange(8), (3, 5))
    np.testing.assert_array_equal(got["suspect"][0], near | touching)
    assert not got["suspect"][:, 6:].any()
    assert launched == ["pairs_in_registers"] * (l1 <= 12) + ["pair_distances"]


@pytest.mark.parametrize("l", [6, 12])
def test_few_pairs_are_left_to_eigenvectors(cuda: Any, l: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first launch alone settles what has no sine near zero, and marks the others for the second."""
    case, near = _special_pairs(l, l)
    model = Model((8, 2, 40, l), "float64", "isotropic", seed=1)
    expected = run(numpy_ops, "pair_distances", model, case)
    launch = cuda.launch

    def first_alone(family: str, kernel: str, *args: Any, **values: Any) -> None:
        if kernel == "pairs_in_registers":
            launch(family, kernel, *args, **values)

    monkeypatch.setattr(cuda, "launch", first_alone)
    got = run(cuda_ops, "pair_distances", model, case, engine=cuda)
    left = got["suspect"] == 2
    np.testing.assert_array_equal(left[0], near | (np.arange(8) == 2))  # two sines of 1.1e-2 are no proof
    assert not left[1].any()
    for name in ("suspect", "sq_distances"):
        np.testing.assert_allclose(got[name][~left], expected[name][~left], rtol=1e-9, atol=1e-9)
