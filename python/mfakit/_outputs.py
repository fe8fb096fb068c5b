"""Where results go: files that are whole or absent, and files and folders that are checked before a long run."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PathLike", "output_file", "output_folder", "replacing"]

PathLike = str | os.PathLike[str]


def output_file(path: PathLike) -> Path:
    """The file that is written for `path`: itself, or what a symbolic link of that name leads to.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        No folder to write it to.
    PermissionError
        A folder that cannot be written to.
    IsADirectoryError
        A folder of this name.
    OSError
        A pipe, a device, or a circle of links: a file in its place would break whoever uses it.
    """
    target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    folder = target.parent
    if not folder.is_dir():
        what = NotADirectoryError if folder.exists() else FileNotFoundError
        raise what(f"no folder {folder} to write {target.name} to; make it first")
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; give the name of a file in it")
    if os.path.lexists(target) and not target.is_file():
        raise OSError(f"{target} is no regular file and will not be replaced; give the name of another file")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written to")
    return target


def output_folder(path: PathLike) -> Path:
    """The folder `path`, made if need be.

    Raises
    ------
    NotADirectoryError
        A file of this name, or of one of its parents'.
    PermissionError
        A folder that cannot be made or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"{folder} cannot be made, for there is a file in its place; give another") from None
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written to")
    return folder


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """A temporary path with the same suffix, which becomes `path` when the block ends well and is removed when it does
    not; errors as :func:`output_file`.
    """
    target = output_file(path)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{Path(path).suffix}")
    try:  # before there is a file: an interrupt may come as soon as there is
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        usual = temporary.stat().st_mode & 0o777
        yield temporary
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())  # a power cut must not leave the new name with half of its content
        temporary.chmod(usual)  # safetensors puts a private file in its place
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
