"""What holds for every test: which package is met, and what a missing data set, device or extra means.

Tests that take `backend` run on the CUDA backend, too, where there is a device. MFAKIT_EMULATE=1 runs these on the
emulator instead, on any machine and slowly:
``MFAKIT_EMULATE=1 python -m pytest tests/mixture/subspaces/test_subspaces.py -k cuda``.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator.engine import ORDERS, EmulatedEngine
from support import EMULATE

import mfakit
from mfakit.backends import BACKENDS, why_missing
from mfakit.backends._cuda import engine as _cuda_engine


def pytest_report_header() -> list[str]:
    """Say which mfakit is tested, because a checkout beside the tests is easily taken for the installed package."""
    native = why_missing("native")
    data = os.environ.get("MFAKIT_DATA")
    return [
        f"mfakit {mfakit.__version__} from {Path(mfakit.__file__).parent}",
        "native backend: " + (f"missing: {native}" if native else "yes"),
        f"MFAKIT_DATA: {data if data else 'not set, tests marked data are skipped'}",
    ]


def pytest_configure() -> None:
    """What runs in a shell's background ignores Ctrl-C, and so would the processes that tests start to interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _missing_data() -> str | None:
    root = os.environ.get("MFAKIT_DATA")
    if not root:
        return "needs the real data sets: set MFAKIT_DATA to their folder"
    return None if Path(root).is_dir() else f"needs the real data sets: MFAKIT_DATA={root} is not a folder"


def _missing_gpu() -> str | None:
    try:
        import cupy
    except ImportError as error:
        return f"needs CuPy: {error}"
    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "needs a CUDA device: there is none"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"needs a CUDA device: {error}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with its reason, what cannot run here."""
    for name, missing in (("data", _missing_data), ("gpu", _missing_gpu)):
        marked = [item for item in items if item.get_closest_marker(name)]
        reason = missing() if marked else None
        if reason is not None:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(params=[*BACKENDS, pytest.param("cuda", marks=[] if EMULATE else [pytest.mark.gpu])])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend by name; one that is missing here skips its tests."""
    name: str = request.param
    if name == "cuda" and EMULATE:
        engine = _engine("permuted", request.getfixturevalue("kernel_folder"))
        next(engine)
        yield name
        next(engine, None)
        return
    reason = why_missing(name)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    yield name


@pytest.fixture(params=["isotropic", "diagonal"])
def noise(request: pytest.FixtureRequest) -> str:
    """Each kind of noise."""
    kind: str = request.param
    return kind


@pytest.fixture
def quiet(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command line in this process, in an empty folder; returns (exit status, stdout, stderr)."""
    from mfakit.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(list(arguments))
        except SystemExit as stop:  # argparse
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def kernel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the emulator's libraries are compiled to: one folder for all processes that share the tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "emulator"
    folder.mkdir(exist_ok=True)
    return folder


def _engine(kind: str, folder: Path) -> Iterator[Any]:
    if kind == "device":
        if "MFAKIT_NO_POOL" in os.environ:  # under compute-sanitizer: each array an allocation of its own
            import cupy

            cupy.cuda.set_allocator(None)
        yield _cuda_engine.engine()
        return
    emulated = EmulatedEngine(folder, kind, sanitize="MFAKIT_SANITIZE" in os.environ)
    _cuda_engine.install(emulated)
    yield emulated
    _cuda_engine.install(None)


_device = pytest.param("device", marks=pytest.mark.gpu)


@pytest.fixture(params=[*ORDERS, _device])
def cuda(request: pytest.FixtureRequest, kernel_folder: Path) -> Iterator[Any]:
    """The engine of the CUDA backend in place for one test: a device's where there is one, and the emulator's with
    threads in three orders.
    """
    yield from _engine(request.param, kernel_folder)


@pytest.fixture(params=["permuted", _device])
def device(request: pytest.FixtureRequest, kernel_folder: Path) -> Iterator[Any]:
    """As `cuda`, with one order of threads: for tests of what stands above the kernels."""
    yield from _engine(request.param, kernel_folder)


def pytest_collection_finish() -> None:
    """What the collection left stays: Python's collector need not look at it again and again (a second each time)."""
    gc.collect()
    gc.freeze()
