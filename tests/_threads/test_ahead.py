"""What is read ahead: the next part alone, by a thread that ends when nobody wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from mfakit._threads import ahead as module
from mfakit._threads.ahead import ahead


def wait(condition: Callable[[], bool]) -> None:
    """Until it holds, for five seconds."""
    for _ in range(5000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it did not come to hold")


def test_the_next_part_is_read_while_one_is_in_use() -> None:
    read: list[int] = []
    for i, part in enumerate(ahead([10, 11, 12], lambda part, _: read.append(part))):
        assert part == 10 + i
        expected = [11, 12][: i + 1]
        wait(lambda expected=expected: read == expected)  # type: ignore[misc]


@pytest.mark.parametrize("parts", [[], [1]])
def test_where_nothing_follows_nothing_is_read(parts: list[int]) -> None:
    assert list(ahead(parts, lambda *_: pytest.fail("read"))) == parts


def test_whatever_ends_the_loop_ends_the_threads() -> None:
    events: list[threading.Event] = []

    def slow(_: int, unwanted: threading.Event) -> None:
        events.append(unwanted)
        unwanted.wait(5)

    def use(parts: list[int]) -> None:
        for part in ahead(parts, slow):
            wait(lambda part=part: len(events) > part)  # type: ignore[misc]
            if part == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use([0, 1, 2, 3])
    assert [event.is_set() for event in events] == [True, True]
    wait(lambda: not any(one.name == "mfakit-read" for one in threading.enumerate()))


def test_a_slow_reader_is_not_waited_for() -> None:
    release = threading.Event()
    assert list(ahead([0, 1, 2], lambda *_: release.wait(5))) == [0, 1, 2]
    release.set()


def test_without_a_thread_all_parts_come(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none)
        assert list(ahead([0, 1, 2], lambda *_: None)) == [0, 1, 2]
    monkeypatch.setattr(module, "forked", lambda: True)
    assert list(ahead([0, 1, 2], lambda *_: pytest.fail("read in a child"))) == [0, 1, 2]
