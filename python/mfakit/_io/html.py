"""How objects show in notebooks: a heading and a table of two columns, without style sheets or scripts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bars", "card", "number_range"]

# At most this many bars are drawn; more would be thinner than a pixel.
MOST_BARS = 120


def card(title: str, rows: Iterable[tuple[str, str]], picture: str = "") -> str:
    """HTML of a title and of (name, value) rows, all escaped; `picture` is HTML that goes below as it is."""
    from html import escape

    cells = "".join(
        f'<tr><th scope="row" style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in rows
    )
    return f"<div><strong>{escape(title)}</strong><table>{cells}</table>{picture}</div>"


def number_range(values: NDArray[Any]) -> str:
    """The least and the largest number, or the only one."""
    low, high = (f"{value:.4g}" for value in (np.min(values), np.max(values)))
    return low if low == high else f"{low} to {high}"


def bars(values: NDArray[Any], label: str) -> str:
    """An SVG of one bar for each non-negative value [k], in their order; empty for more than can be told apart."""
    from html import escape

    top = float(values.max(initial=0.0))
    if not 1 < len(values) <= MOST_BARS or top <= 0:
        return ""
    width = max(2, 240 // len(values))
    drawn = "".join(
        f'<rect x="{i * width}" y="{40 - 40 * v / top:.1f}" width="{width - 1}" height="{40 * v / top:.1f}"/>'
        for i, v in enumerate(values)
    )
    return (
        f'<svg width="{width * len(values)}" height="40" role="img" aria-label="{escape(label)}" '
        f'fill="currentColor" opacity="0.6"><title>{escape(label)}</title>{drawn}</svg>'
    )
