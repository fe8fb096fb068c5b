"""Progress bars: on standard error, and silent where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

__all__ = ["open_bar"]


def open_bar(progress: bool | None, steps: Iterable[Any] | None = None, **settings: Any) -> Any:
    """A tqdm bar, over `steps` where they are given.

    Parameters
    ----------
    progress : bool or None
        Whether it is shown; None shows it on a terminal only. Without standard error (pythonw, some daemons) there is
        nothing to show it on.
    steps : iterable, optional
    **settings
        Of :class:`tqdm.tqdm`, such as ``total``, ``unit`` and ``desc``.
    """
    from tqdm import tqdm

    absent = sys.stderr is None or getattr(sys.stderr, "closed", False)
    hidden = True if absent else None if progress is None else not progress
    return tqdm(steps, disable=hidden, **settings)
