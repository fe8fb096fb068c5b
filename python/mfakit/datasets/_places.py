"""Which files under a root hold a data set: spelling and depth vary with where people got them.

What is taken is logged. What several places hold is taken only where they agree, which the loaders check.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["entries", "files_called", "folders_under", "log_taken", "missing_data", "one_of", "require_folder"]

logger = logging.getLogger("mfakit")


def require_folder(root: Path, dataset: str) -> None:
    """Raise for a root that is something other than a folder."""
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"{dataset}: root= must be a folder that holds the data, got {root}")


def entries(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files; nothing where there is no folder."""
    if not folder.is_dir():
        return []
    return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]


def folders_under(root: Path, patterns: Iterable[str]) -> list[Path]:
    """The folders ``root/a/b`` of patterns such as "a/b", whatever their capitals, each once, in this order."""
    found: list[Path] = []
    for pattern in patterns:
        level = [root] if root.is_dir() else []
        for part in filter(None, pattern.split("/")):
            level = [path for folder in level for path in entries(folder) if path.name.casefold() == part.casefold()]
            level = [path for path in level if path.is_dir()]
        found += [path for path in level if not any(path.samefile(other) for other in found)]
    return found


def files_called(
    folders: Iterable[Path], names: Iterable[str], spell: Callable[[str], str] = str.casefold
) -> tuple[list[Path], list[Path]]:
    """The regular files of these names in the folders, and what else is called so.

    Some archives unpack to folders that are called like the one file in each; the file in it counts.

    Parameters
    ----------
    folders : iterable of Path
    names : iterable of str
        As `spell` gives them.
    spell : callable
        What is the same in all spellings of a name.
    """
    wanted = set(names)

    def called(folder: Path) -> list[Path]:
        return [path for path in entries(folder) if spell(path.name) in wanted]

    named = [path for folder in folders for path in called(folder)]
    files = [path for path in named if path.is_file()]
    inner = [path for folder in named for path in called(folder) if path.is_file()]
    odd = [path for path in named if path not in files and path not in [file.parent for file in inner]]
    return files + inner, odd


def one_of(paths: list[Path], what: str, agree: Callable[[Path, Path], bool]) -> Path:
    """The first of several places, if all others agree with it.

    Raises
    ------
    ValueError
        If two differ; both are named.
    """
    first = paths[0]
    for other in paths[1:]:
        if not first.samefile(other) and not agree(first, other):
            raise ValueError(
                f"{what} are in {first} and, with another content, in {other}; move one of them out of the root folder"
            )
    return first


def log_taken(what: str, taken: Path, others: Iterable[Path] = ()) -> None:
    """Say in the log what is read, and what is there as well."""
    rest = ", ".join(map(str, others))
    logger.info("%s: %s%s", what, taken, f" (also there: {rest})" if rest else "")


def missing_data(
    dataset: str, names: Iterable[str], root: Path, folders: Iterable[str], remedy: str, odd: Iterable[Path] = ()
) -> OSError:
    """The error for absent data: what is missing, every place looked, what is there but no regular file, what to do."""
    places = ", ".join(str(root / folder) for folder in folders)
    strange = "".join(f" ({path} is there, but is no regular file)" for path in list(odd)[:3])
    return FileNotFoundError(f"{dataset}: no {' and no '.join(names)} in {places}{strange}; {remedy}")
