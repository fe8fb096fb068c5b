"""The path of X through a density: down the layers and never up, few drivers, few closures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from support import random_mfa

import mfakit
from mfakit.mixture.evaluator import Evaluator

PACKAGE = Path(mfakit.__file__).parent
# Who may call whom: a file calls itself, or one further down. What is handed down, a step and what fills a block, is of
# the density's file.
LAYERS = ("mixture/mfa.py", "mixture/density.py", "_threads/rows.py", "backends/host_arrays.py", "mixture/evaluator.py")
# The decorator of what also takes files and iterators of blocks, which arrays go straight through.
DECORATOR = "_arrays/streams.py"
HANDED_DOWN = {"step", "__call__", "fill", "<lambda>"}
DRIVERS = {"each_block", "in_order"}
# The decorator of what also takes arrays of dask, which others go straight through.
LAZY = "_arrays/lazy_rows.py"


def stack_at(target: str, call: Callable[[], Any]) -> list[tuple[str, str, bool]]:
    """The package's frames, the public one first, when `target` of the evaluator begins: file, function, closure."""
    found: list[list[tuple[str, str, bool]]] = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or frame.f_code is not getattr(Evaluator, target).__code__ or found:
            return
        stack, at = [], frame.f_back
        while at is not None:
            path = Path(at.f_code.co_filename)
            if PACKAGE in path.parents:
                name = path.relative_to(PACKAGE).as_posix()
                stack.append((name, at.f_code.co_name, bool(at.f_code.co_freevars)))
            at = at.f_back
        found.append(stack[::-1])

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found[0]


@pytest.mark.parametrize("name", ["log_prob", "grad_log_prob", "responsibilities", "component_log_prob"])
def test_a_density_goes_down(name: str) -> None:
    mfa = random_mfa()
    X = mfa.sample(20, rng=0, dtype=np.float64)[0]
    target = "log_prob" if name == "log_prob" else "__call__"
    stack = stack_at(target, lambda: getattr(mfa, name)(X, n_threads=1))
    assert [file for file, _, _ in stack].count(LAZY) == 1
    stack = [frame for frame in stack if frame[0] != LAZY]
    assert stack[0][:2] == ("mixture/mfa.py", name)
    assert [file for file, _, _ in stack].count(DECORATOR) == 1
    stack = [frame for frame in stack if frame[0] != DECORATOR]
    assert sum(function in DRIVERS for _, function, _ in stack) <= 3
    assert sum(closure for _, _, closure in stack) <= 2
    assert len(stack) <= 9
    own = [LAYERS.index(file) for file, function, _ in stack if function not in HANDED_DOWN]
    assert own == sorted(own)
    assert {file for file, function, _ in stack if function in HANDED_DOWN} <= {"mixture/density.py"}
