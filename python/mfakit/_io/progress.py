"""Progress bars: on standard error or as a notebook's widget, and silent where nobody would see them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

__all__ = ["is_watched", "open_bar"]


class _HiddenBar:
    """What the package uses of a tqdm bar, without showing anything.

    Not a tqdm that is disabled: that has a finalizer and stands in a weak set, and a KeyboardInterrupt that comes while
    Python runs those is lost.
    """

    def __init__(self, steps: Iterable[Any] | None, total: int | None) -> None:
        self.steps, self.total, self.n = steps, total, 0

    def __iter__(self) -> Iterator[Any]:
        return iter(() if self.steps is None else self.steps)

    def __enter__(self) -> _HiddenBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        """Count on."""
        self.n += n

    def set_description(self, desc: str) -> None:
        """Shown nowhere."""

    def set_postfix_str(self, s: str, refresh: bool = True) -> None:
        """Shown nowhere."""

    def close(self) -> None:
        """Nothing to close."""


def open_bar(progress: bool | None, steps: Iterable[Any] | None = None, **settings: Any) -> Any:
    """A tqdm bar, or one that shows nothing; over `steps` where they are given.

    Parameters
    ----------
    progress : bool or None
        Whether it is shown; None shows it on a terminal and in notebooks. Without standard error (pythonw, some
        daemons) there is nothing to show it on.
    steps : iterable, optional
    **settings
        Of :class:`tqdm.tqdm`, such as ``total``, ``unit`` and ``desc``.
    """
    if not is_watched(progress):
        return _HiddenBar(steps, settings.get("total"))
    if _in_notebook() and find_spec("ipywidgets") is not None:  # without it tqdm.auto would warn, and draw as tqdm does
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return tqdm(steps, **settings)


def is_watched(progress: bool | None = None) -> bool:
    """Whether progress is shown: if asked for, and for None on a terminal and in notebooks."""
    if sys.stderr is None or getattr(sys.stderr, "closed", False):
        return False
    return sys.stderr.isatty() or _in_notebook() if progress is None else progress


def _in_notebook() -> bool:
    """Whether a kernel runs this, whose standard error is no terminal although it is read as it is written."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
