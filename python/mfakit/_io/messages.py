"""Parts of error messages: excerpts of bounded length, other libraries' reasons in one line, and the nearest names."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["excerpt", "meant", "near", "one_line"]


def excerpt(value: object, most: int = 40) -> str:
    """``repr(value)`` of a text or of bytes, cut to `most` characters: what stands in a file may have any length."""
    if isinstance(value, str | bytes) and len(value) > most:
        return f"{value[: most - 3]!r}..."
    text = repr(value)
    return text if len(text) <= most + 10 else f"{text[: most - 3]}..."


def one_line(error: object, most: int = 200) -> str:
    """An error's text as one printable line of at most `most` characters; its type's name where it has none."""
    # Cut first: the rest costs time, and a hostile message may have megabytes.
    text = str(error)[: 4 * most]
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    text = text if len(text) <= most else f"{text[: most - 3]}..."
    return text or type(error).__name__


def near(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The names most like `name`, capitals aside: close in spelling, or with `name` in them; best first."""
    import difflib

    folded = {k.casefold(): k for k in known}
    wanted = name[:100].casefold()
    # "hat" is far from "wearing_hat" as strings go.
    within = [f for f in folded if len(wanted) > 2 and wanted in f]
    return [folded[f] for f in dict.fromkeys(difflib.get_close_matches(wanted, list(folded), n=most) + within)]


def meant(name: str, known: Iterable[str]) -> str:
    """The words "(did you mean A or B?)" after a blank, with the nearest names; nothing where none is near."""
    close = near(name, known)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
