"""What the experiments on shipped pairs share: what they are given, and the pictures that they leave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from .._checks import check_integers
from .._io.outputs import output_folder
from ..bayes.classifier import BayesClassifier
from ..datasets import available_bayes_pairs, load_bayes_pair

__all__ = ["have_matplotlib", "prepare", "written_to"]


def prepare(
    pairs: Sequence[str] | None, n: int, seed: int, out: str | Path | None
) -> tuple[list[str], dict[str, BayesClassifier], Path | None]:
    """The pairs' names (None: all that are shipped), the pairs, and the folder to write to, made if need be."""
    check_integers({"n": n}, 1)
    check_integers({"seed": seed}, 0)
    names = list(pairs) if pairs else available_bayes_pairs()
    bases = {name: load_bayes_pair(name) for name in names}
    return names, bases, None if out is None else output_folder(out)


def have_matplotlib() -> bool:
    """Whether pictures can be drawn; without matplotlib an experiment leaves them out."""
    try:
        import matplotlib  # noqa: F401 (asked only whether it is there)
    except ImportError:
        return False
    return True


def written_to(folder: Path, written: Iterable[Path]) -> str:
    """A line that names what a run has written to `folder`; what was there before is no result of it."""
    names = sorted({path.name for path in written if path.parent.resolve() == folder.resolve()})
    return f"written to {folder}: {', '.join(names)}"
