"""The next part of something, read in a thread while the one before it is in use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from .process import Guard, finish_start, forked

__all__ = ["ahead"]

T = TypeVar("T")

Read = Callable[[T, threading.Event], None]


def ahead(parts: Sequence[T], read: Read[T]) -> Iterator[T]:
    """The parts; while one is in use, ``read(part, unwanted)`` is called with the next one in a thread of its own. It
    should end soon when `unwanted` is set, and its result and errors are nobody's: it saves time, and no more.

    A thread for each part, and not one that waits for them: whatever ends the loop, each ends by itself. A child after
    a fork reads nothing ahead.
    """
    unwanted: list[threading.Event] = []

    def end() -> None:
        for event in unwanted:
            event.set()

    alone = forked()
    with Guard(lambda: None, end):
        for i, part in enumerate(parts):
            if not alone and i + 1 < len(parts):
                unwanted.append(threading.Event())
                _start(read, parts[i + 1], unwanted[-1])
            yield part
            if i and unwanted:
                unwanted.pop(0).set()


def _start(read: Read[Any], part: Any, unwanted: threading.Event) -> None:
    thread = threading.Thread(target=read, args=(part, unwanted), name="mfakit-read", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread can be started, under a limit of memory or of threads
        return
    except BaseException:
        unwanted.set()
        finish_start(thread)
        raise
