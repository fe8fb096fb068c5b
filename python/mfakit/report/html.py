"""Pieces of the page: every text is escaped here, and nowhere else is HTML made of what results hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from html import escape

from .._io.report import Table

__all__ = ["anchor", "chip", "definitions", "element", "items", "link", "table"]

# How a verdict looks, beside its word.
CHIPS = {"holds": "yes", "fails": "no", "not measured": "open"}


def element(tag: str, text: str, **attributes: str) -> str:
    """An element with escaped text and attributes; ``class_`` stands for class."""
    given = "".join(f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return f"<{tag}{given}>{escape(text)}</{tag}>"


def anchor(*words: str) -> str:
    """An id of some words; a digest is added where they have letters that an id does not keep."""
    text = "-".join(words)
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def link(text: str, target: str) -> str:
    """A link within the page."""
    return element("a", text, href=f"#{target}")


def chip(verdict: str) -> str:
    """A verdict as a coloured word."""
    return element("span", verdict, class_=f"chip {CHIPS[verdict]}")


def items(rows: Iterable[str]) -> str:
    """A list of pieces that are HTML already."""
    return "<ul>" + "".join(f"<li>{row}</li>" for row in rows) + "</ul>"


def definitions(rows: Mapping[str, str]) -> str:
    """Names and values."""
    pairs = "".join(f"<div>{element('dt', name)}{element('dd', value)}</div>" for name, value in rows.items())
    return f"<dl>{pairs}</dl>"


def table(found: Table, label: str) -> str:
    """A table in a box that scrolls by itself; rows of empty cells part groups."""
    head = "".join(f"<th scope=col{_side(i, found)}>{_lines(title)}</th>" for i, title in enumerate(found.columns))
    groups: list[str] = [""]
    for row in found.rows:
        if any(row):
            cells = "".join(f"<td{_side(i, found)}>{escape(cell)}</td>" for i, cell in enumerate(row))
            groups[-1] += f"<tr>{cells}</tr>"
        elif groups[-1]:
            groups.append("")
    body = "".join(f"<tbody>{group}</tbody>" for group in groups if group)
    return (
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead>{body}</table></div>"
    )


def _side(i: int, found: Table) -> str:
    return "" if i < found.labels else ' class="number"'


def _lines(title: str) -> str:
    return "<br>".join(escape(line) for line in title.split("\n"))
