"""Every operation of the table in every backend, by value, against the readable one."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from backend_cases import (
    CASES,
    SIZES,
    Case,
    Model,
    arrays_of,
    assert_contract,
    assert_equal,
    combinations,
    run,
)
from numpy.typing import NDArray
from support import close, random_mfa
from threadpoolctl import threadpool_limits

import mfakit
from mfakit.backends import BACKENDS, available, get_backend, numpy_ops, operations, why_missing
from mfakit.backends.binding import written
from mfakit.backends.operands import Subspaces, WalkSettings
from mfakit.backends.walk_ends import ENDS
from mfakit.mixture import density
from mfakit.mixture.subspaces import distances, tiles

Array = NDArray[Any]


def _backend(name: str) -> ModuleType:
    reason = why_missing(name)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    return get_backend(name)


@pytest.fixture(params=BACKENDS)
def ops(request: pytest.FixtureRequest) -> ModuleType:
    return _backend(request.param)


@pytest.fixture(params=[name for name in BACKENDS if name != "numpy"])
def compiled(request: pytest.FixtureRequest) -> ModuleType:
    """The backends that are not the reference itself."""
    return _backend(request.param)


def _skip_what_it_lacks(ops: ModuleType, operation: str) -> None:
    if operation not in ops.__all__:
        pytest.skip(f"{operation} is of one backend only, and the readable one")


@pytest.mark.parametrize("operation", numpy_ops.__all__)
def test_signatures_agree(ops: ModuleType, operation: str) -> None:
    described = inspect.signature(getattr(numpy_ops, operation))
    assert list(described.parameters)[-1] == "n_threads"
    assert len(described.parameters) <= 8
    if operation in ops.__all__:
        assert inspect.signature(getattr(ops, operation)) == described


def test_a_backend_is_the_table_and_nothing_else(ops: ModuleType) -> None:
    name = ops.__name__.rpartition(".")[2].removesuffix("_ops")
    assert set(ops.__all__) == set(operations(name))
    assert set(operations(name)) | set(numpy_ops.ONLY) == set(numpy_ops.__all__)
    public = {name for name, value in vars(ops).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert public - {"bind", "operations", "written", "run_together", "forked"} == set(ops.__all__)


def test_every_operation_says_what_it_writes() -> None:
    for operation in numpy_ops.__all__:
        assert written(operation) or operation in numpy_ops.ONLY
    assert written("refine") == ["log_prob", "whitened_latent"]
    assert written("factor_walk") == ["points", "reports"]


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("operation", "dtype", "noise"), combinations("native"))
def test_values(compiled: ModuleType, operation: str, dtype: str, noise: str, size: tuple[int, int, int, int]) -> None:
    _skip_what_it_lacks(compiled, operation)
    model = Model(size, dtype, noise, seed=3)
    case = CASES[operation](model)
    expected = run(numpy_ops, operation, model, case)
    got = run(compiled, operation, model, case)
    assert_equal(operation, got, expected, case, d=size[2])


@pytest.mark.parametrize(("operation", "dtype", "noise"), combinations("native"))
def test_equal_bits_for_any_number_of_threads(
    compiled: ModuleType, operation: str, dtype: str, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _skip_what_it_lacks(compiled, operation)
    if compiled.__name__.endswith("numba_ops"):
        monkeypatch.setattr(compiled, "WORTH_A_THREAD", 1)
    # Wide enough that the native backend, too, deals out several pieces (see row_grain in csrc/cpu/parallel.hpp).
    model = Model((600, 24, 700, 5), dtype, noise, seed=5)
    case = CASES[operation](model)
    one = run(compiled, operation, model, case, n_threads=1)
    for n_threads in (2, 16):
        many = run(compiled, operation, model, case, n_threads=n_threads)
        for name, value in one.items():
            assert many[name].tobytes() == value.tobytes(), f"{name} with {n_threads} threads"


@pytest.mark.parametrize("operation", ["refine", "accumulate_gradient", "accumulate_statistics"])
@pytest.mark.parametrize("d", [2048, 4400])
def test_panels_of_many_features(compiled: ModuleType, operation: str, d: int) -> None:
    """Whole panels of features, and several with a rest: each feature is met once."""
    model = Model((23, 3, d, 2), "float32", "diagonal", seed=5)
    case = CASES[operation](model)
    expected = run(numpy_ops, operation, model, case)
    one = run(compiled, operation, model, case)
    assert_equal(operation, one, expected, case, d)
    for n_threads in (2, 3):
        many = run(compiled, operation, model, case, n_threads=n_threads)
        for name, value in one.items():
            assert many[name].tobytes() == value.tobytes(), f"{name} with {n_threads} threads"


@pytest.mark.parametrize("bisections", [0, 1, 40])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("max_steps", [0, 5, 300])
def test_walks(compiled: ModuleType, max_steps: int, frozen: bool, bisections: int) -> None:
    model = Model((60, 3, 30, 2), "float64", "isotropic", seed=3)
    case = CASES["factor_walk"](model)
    case.arguments["settings"] = WalkSettings(0.05, max_steps, frozen, bisections)
    expected = run(numpy_ops, "factor_walk", model, case)
    got = run(compiled, "factor_walk", model, case)
    np.testing.assert_array_equal(got["reports"], expected["reports"])
    ends = [ENDS[end] for end in expected["reports"][:, 0]]
    assert set(ends) >= {"already wrong", "flipped" if max_steps == 300 else "max_steps"}
    for name in ("points.a", "points.w", "points.alpha", "points.sq"):
        # Some tens of steps on a curved path amplify the rounding of the first ones.
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-8, atol=1e-8, err_msg=name)


@pytest.mark.parametrize(
    ("sine", "distance", "suspect"),
    [(1.1e-2, 1.0, False), (0.9e-2, 1.0, True), (0.0, 1.0, True), (0.5, 2e-3, False), (0.5, 0.9e-3, True)],
)
def test_pairs_that_the_product_cannot_decide(ops: ModuleType, sine: float, distance: float, suspect: bool) -> None:
    # Two planes in R^5 at `distance` along the last axis: one common right angle, and one angle of the given sine.
    Q0, Q1, mean = np.eye(5)[:2], np.zeros((2, 5)), np.zeros(5)
    Q1[0, [0, 2]] = np.sqrt(1 - sine**2), sine
    Q1[1, 3] = 1.0
    mean[[3, 4]] = 0.5, distance
    rows0, rows1 = np.vstack([Q0, np.zeros(5)]), np.vstack([Q1, mean])
    # ‖μ‖² of both sides is what `distance` is measured by: 1e-3 of 1.
    far = np.zeros(5)
    far[0] = np.sqrt(0.5)
    rows0[2], rows1[2] = far, far + mean
    products = (rows0 @ rows1.T).reshape(1, 3, 1, 3)
    sq, marked = np.empty((1, 1)), np.empty((1, 1), np.uint8)
    side0, side1 = (Subspaces((Q @ mu)[None], np.array([mu @ mu])) for Q, mu in ((Q0, rows0[2]), (Q1, rows1[2])))
    ops.pair_distances(products, side0, side1, sq, marked)
    assert bool(marked[0, 0]) == suspect
    if not suspect:
        np.testing.assert_allclose(sq, distance**2, rtol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_stays_in_its_row(ops: ModuleType, dtype: str) -> None:
    model = Model((70, 3, 130, 4), dtype, "diagonal", seed=7)
    model.X = model.X.copy()
    model.X[5, 100] = np.nan
    with np.errstate(invalid="ignore"):
        numpy_ops.center_rows(model.X, model.factors.center, model.centered, model.norms)
    others = np.arange(70) != 5
    for operation in ("center_rows", "mixture_epilogue", "refine"):
        case = CASES[operation](model)
        with np.errstate(invalid="ignore"):
            got = run(ops, operation, model, case)
        rows = arrays_of(case.arguments).get("pairs.rows")
        for name, value in got.items():
            spoiled = rows == 5 if rows is not None else ~others
            if value.dtype == np.uint8:
                assert not value[spoiled].any(), name
            else:
                assert np.isnan(value[spoiled]).reshape(int(spoiled.sum()), -1).any(axis=1).all(), name
                assert np.isfinite(value[~spoiled]).all(), name


def test_infinite_log_norm_is_a_component_that_is_never_kept(ops: ModuleType) -> None:
    model = Model((20, 4, 12, 2), "float64", "isotropic", seed=2)
    case = CASES["mixture_epilogue"](model)
    mixture = case.arguments["mixture"]
    log_norm = np.where(np.arange(4) == 1, -np.inf, mixture.log_norm)
    changed = {**case.arguments, "mixture": mixture._replace(log_norm=log_norm)}
    got = run(ops, "mixture_epilogue", model, Case(changed, case.scale))
    assert np.isneginf(got["log_prob"][:, 1]).all()
    assert not got["keep"][:, 1].any()
    assert got["keep"].any(axis=1).all()


def test_unknown_backends_say_what_there_is() -> None:
    for name in ("cuda", "fortran"):
        with pytest.raises(mfakit.BackendUnavailable, match=f"^{name}: .*available: .*numba, numpy"):
            get_backend(name)
        with pytest.raises(mfakit.BackendUnavailable, match=name):
            random_mfa().log_prob(np.zeros((0, 12)), backend=name)
    assert why_missing("numpy") is None
    assert available()[-1] == "numpy"


def test_auto_is_native_or_numba(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mfakit.backends, "_announced", set())
    expected = next(name for name in ("native", "numba") if why_missing(name) is None)
    with caplog.at_level("INFO", logger="mfakit"):
        assert get_backend("auto") is get_backend(expected)
        get_backend("auto")
    assert [record.getMessage() for record in caplog.records] == [f"backend auto: {expected}"]


def _score(mfa: mfakit.MFA, X: Array, backend: str) -> list[Array]:
    options: dict[str, Any] = {"backend": backend, "n_threads": 2}
    return [
        mfa.log_prob(X, **options),
        mfa.grad_log_prob(X, **options),
        mfakit.point_subspace_distances(X, mfa, **options),
        mfakit.subspace_distances(mfa, mfa, **options),
    ]


def _scored(backend: str) -> tuple[mfakit.MFA, Array, list[Array]]:
    """A model, samples of it and their scores in this thread; skips where the backend is missing."""
    _backend(backend)
    mfa = random_mfa(6, 300, 4, sigma=0.1, seed=1)
    X = mfa.sample(500, rng=0)[0]
    return mfa, X, _score(mfa, X, backend)


@pytest.mark.parametrize("product_threads", [1, None])
@pytest.mark.parametrize("backend", BACKENDS)
def test_many_python_threads_on_one_model(backend: str, product_threads: int | None) -> None:
    """Equal bits where products have one thread anyway; else equal to rounding, because a thread computing factors
    holds the whole process's products at one thread meanwhile.
    """
    with threadpool_limits(product_threads, user_api="blas"):
        _compare_threads(backend, exact=product_threads == 1)


def _compare_threads(backend: str, exact: bool) -> None:
    mfa, X, expected = _scored(backend)
    shared = mfa.replace()  # its factors are not computed yet: the threads meet there, too
    barrier = threading.Barrier(8)

    def work(_: int) -> list[Array]:
        barrier.wait()
        return _score(shared, X, backend)

    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(work, range(8)):
            for got, value in zip(result, expected, strict=True):
                if exact:
                    np.testing.assert_array_equal(got, value)
                else:
                    close(got, value, value.dtype)


def _send_score(connection: Any, mfa: mfakit.MFA, X: Array, backend: str) -> None:
    connection.send(_score(mfa, X, backend))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_fork_after_use_does_not_hang(backend: str) -> None:
    mfa, X, expected = _scored(backend)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_score, args=(sender, mfa, X, backend))
    child.start()
    try:
        assert receiver.poll(60), f"the forked child did not answer (exit code {child.exitcode})"
        for got, value in zip(receiver.recv(), expected, strict=True):
            np.testing.assert_array_equal(got, value)
        child.join(10)
        assert child.exitcode == 0
    finally:
        child.kill()
        child.join()


def _checking(ops: ModuleType, called: set[str]) -> SimpleNamespace:
    """A backend that refuses what the contract in numpy_ops does not promise, and else does what `ops` does."""

    def checked(operation: str) -> Callable[..., Any]:
        function = getattr(ops, operation)

        def call(*arguments: Any, **options: Any) -> Any:
            called.add(operation)
            bound = inspect.signature(function).bind(*arguments, **options).arguments
            assert_contract(operation, bound)
            return function(*arguments, **options)

        return call

    return SimpleNamespace(__name__="checking", **{name: checked(name) for name in operations("native")})


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_driver_keeps_the_contract(monkeypatch: pytest.MonkeyPatch, noise: str, dtype: Any) -> None:
    called: set[str] = set()
    checking = _checking(numpy_ops, called)
    for module in (density, distances):
        monkeypatch.setattr(module, "get_backend", lambda *_: checking)
    monkeypatch.setattr(tiles, "FEW_FEATURES", 1)
    mfa = random_mfa(5, 40, 3, noise=noise)
    X = mfa.sample(30, rng=0, dtype=dtype)[0]
    for layout in (X, np.asfortranarray(X), X[::-2], X.astype(X.dtype.newbyteorder())):
        for precision in (None, "float32", "float64"):
            mfa.log_prob(layout, precision=precision)
            mfa.responsibilities(layout, precision=precision, block_rows=7)
            mfa.component_log_prob(layout, precision=precision, method="residual")
            for method in ("auto", "dense", "pruned")[: 3 if noise == "isotropic" else 2]:
                mfa.grad_log_prob(layout, precision=precision, method=method)
            mfakit.point_subspace_distances(layout, mfa, precision=precision)
    mfakit.subspace_distances(mfa, mfa)
    mfakit.subspace_distances(mfa, mfa, reduce="histogram")
    # What is left belongs to fitting and to the attacks.
    others = {"attack_step", "factor_walk", "accumulate_statistics"}
    bounds = {"bound_components", "survivors"} if noise == "diagonal" else set()
    assert called == set(operations("native")) - others - bounds


CACHELESS = """
import numpy as np
from mfakit.backends import numba_ops
from mfakit.backends._numba import kernels as _numba_kernels
out = np.empty(2)
numba_ops.log_sum_exp(np.zeros((2, 4)), out)
print(type(_numba_kernels.log_sum_exp._cache).__name__, np.allclose(out, np.log(4)))
"""


def test_numba_works_without_a_cache_directory(tmp_path: Path) -> None:
    # Plain files where the directories should be: that stops root, too.
    package = tmp_path / "site" / "mfakit"
    shutil.copytree(Path(mfakit.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "_native*"))
    (package / "backends" / "_numba" / "__pycache__").write_text("")
    blocker = tmp_path / "blocker"
    blocker.write_text("")
    homes = {name: str(blocker) for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "LOCALAPPDATA")}
    environment = {**os.environ, **homes, "PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, "-c", CACHELESS], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.split() == ["NullCache", "True"], done.stderr


def _double(start: int, stop: int, values: Array, out: Array) -> None:
    for i in range(start, stop):
        out[i] = 2 * values[i]


def test_numba_works_when_the_cache_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    from mfakit.backends import numba_ops
    from mfakit.backends._numba import kernels as _numba_kernels

    attempts = []

    def full(*_: Any) -> None:
        attempts.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    out = np.empty(3)
    numba_ops._run(_numba_kernels.kernel(_double), 3, 3, 1, numba_ops._frozen(np.arange(3.0)), out)
    np.testing.assert_array_equal(out, [0.0, 2.0, 4.0])
    assert attempts


def test_numba_kernels_cannot_write_to_inputs() -> None:
    import numba

    from mfakit.backends import numba_ops
    from mfakit.backends._numba import kernels as _numba_kernels

    frozen = numba_ops._frozen(np.zeros(3))
    assert not frozen.flags.writeable
    with pytest.raises(numba.TypingError, match="readonly"):
        _numba_kernels.inlined(_double)(0, 3, frozen, frozen)
