"""How much memory a call takes."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["extra_memory"]

PROCESS = Path("/proc/self")


def extra_memory(run: Callable[[], Any]) -> int | None:
    """Bytes by which the process's resident memory rises at most during ``run()``.

    Exact, from the kernel's own high-water mark; None where that cannot be reset (beyond Linux). ``run`` is called in
    any case.
    """
    gc.collect()
    _give_back()
    try:
        (PROCESS / "clear_refs").write_text("5")  # the mark becomes what is resident now
        before = _marks()["VmRSS"]
    except (OSError, KeyError):
        run()
        return None
    run()
    return max(0, _marks()["VmHWM"] - before)


def _marks() -> dict[str, int]:
    lines = (line.split() for line in (PROCESS / "status").read_text().splitlines() if line.endswith(" kB"))
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in lines}


def _give_back() -> None:
    """What glibc keeps of freed memory, so that it does not hide what a call takes."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return  # another C library
