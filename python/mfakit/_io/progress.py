"""Progress bars: on standard error, and silent where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["open_bar"]


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
        Whether it is shown; None shows it on a terminal only. Without standard error (pythonw, some daemons) there is
        nothing to show it on.
    steps : iterable, optional
    **settings
        Of :class:`tqdm.tqdm`, such as ``total``, ``unit`` and ``desc``.
    """
    absent = sys.stderr is None or getattr(sys.stderr, "closed", False)
    if absent or not (sys.stderr.isatty() if progress is None else progress):
        return _HiddenBar(steps, settings.get("total"))
    from tqdm import tqdm

    return tqdm(steps, **settings)
