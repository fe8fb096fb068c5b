"""Where the real data sets are, for the tests marked data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def real_root() -> Callable[[str], Path]:
    """A function that returns MFAKIT_DATA, or skips the test if that has no folder of the given name."""

    def get(name: str) -> Path:
        root = Path(os.environ.get("MFAKIT_DATA", ""))
        if not os.environ.get("MFAKIT_DATA") or not (root / name).is_dir():
            pytest.skip(f"needs the real data sets: MFAKIT_DATA has no folder {name}")
        return root

    return get
