"""What holds for every test: which package is met, and what a missing data set, device or extra means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import mfakit
from mfakit.backends import why_missing


def pytest_report_header() -> list[str]:
    """Say which mfakit is tested, because a checkout beside the tests is easily taken for the installed package."""
    native = why_missing("native")
    data = os.environ.get("MFAKIT_DATA")
    return [
        f"mfakit {mfakit.__version__} from {Path(mfakit.__file__).parent}",
        "native backend: " + (f"missing: {native}" if native else "yes"),
        f"MFAKIT_DATA: {data if data else 'not set, tests marked data are skipped'}",
    ]


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
