"""The devices that the CUDA backend is tested on: a real one where there is one, and the emulator everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator.engine import ORDERS, EmulatedEngine

from mfakit.backends import _cuda_engine


@pytest.fixture(scope="session")
def kernel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the emulator's libraries are compiled to."""
    return tmp_path_factory.mktemp("emulator")


@pytest.fixture(params=[*ORDERS, pytest.param("device", marks=pytest.mark.gpu)])
def cuda(request: pytest.FixtureRequest, kernel_folder: Path) -> Iterator[Any]:
    """The engine of the CUDA backend, put in place for one test."""
    if request.param == "device":
        yield _cuda_engine.engine()
        return
    emulated = EmulatedEngine(kernel_folder, request.param)
    _cuda_engine.install(emulated)
    yield emulated
    _cuda_engine.install(None)
