"""Where results go: files that are whole or absent, and files and folders that are checked before a long run."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .._threads.process import Guard

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["NO_ROOM", "PathLike", "output_file", "output_folder", "recorded_outputs", "replacing"]

PathLike = str | os.PathLike[str]

# Other errors of an allocation say that the file system cannot reserve.
NO_ROOM = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
# A writer's folder: .mfakit-HOST-RANDOM.tmp, locked while its writer lives.
_PREFIX, _SUFFIX = ".mfakit-", ".tmp"
# Locks say nothing about writers on other machines; those are given a day.
_ABANDONED_AFTER = 24 * 3600.0

_recorded: ContextVar[list[Path] | None] = ContextVar("recorded outputs", default=None)


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
        A pipe, a device, or a circle of links: a file in its place would break what uses it.
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
    not; errors as :func:`output_file`, and a full disk is one that names `path`.

    The temporary file has a folder of its own beside `path`, because libraries that write it may make further files.
    What writers that were killed left in that place is removed first.
    """
    target = output_file(path)
    _remove_abandoned(target.parent)
    with _names_full_disk(path), _own_folder(target.parent) as folder:
        temporary = folder / f"new{Path(path).suffix}"
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777  # what the user's new files get; some libraries make private ones
        yield temporary
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())  # a power cut must not leave the new name with half of its content
        temporary.chmod(mode)
        os.replace(temporary, target)
    found = _recorded.get()
    if found is not None:
        found.append(Path(path))


@contextlib.contextmanager
def _names_full_disk(path: PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM or str(path) in str(error):
            raise
        raise OSError(error.errno, f"there is no room for {path}, which is left as it was: {error.strerror}") from None


@contextlib.contextmanager
def recorded_outputs() -> Iterator[list[Path]]:
    """The files that :func:`replacing` writes within the block, in the order of writing."""
    found: list[Path] = []
    token = _recorded.set(found)
    try:
        yield found
    finally:
        _recorded.reset(token)


def _own_folder(parent: Path) -> Any:
    """A context manager, whose block gets a new folder in `parent`, locked until the block or the process ends, and
    removed after the block.
    """
    folders: list[Path] = []
    locks: list[int | None] = []

    def take() -> Path:
        while True:
            folder = parent / f"{_PREFIX}{_host()}-{os.urandom(8).hex()}{_SUFFIX}"
            folders.append(folder)  # before it is there: an interrupt may come as soon as it is
            folder.mkdir(mode=0o700)
            try:
                locks.append(_lock(folder))
            except (BlockingIOError, FileNotFoundError):
                continue  # another process saw it before it was locked, and removes it
            if folder.is_dir():
                return folder

    def undo() -> None:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        while locks:
            _unlock(locks.pop())

    return Guard(take, undo)


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of writers that no longer live."""
    for folder in parent.glob(f"{_PREFIX}*{_SUFFIX}"):
        try:
            if folder.is_symlink() or not folder.is_dir():
                continue
            lock = _lock(folder)
            old = time.time() - folder.stat().st_mtime > _ABANDONED_AFTER
        except OSError:
            continue  # it is in use, another process was faster, or it is not ours
        same_host = folder.name.startswith(f"{_PREFIX}{_host()}-")
        if old or (same_host and lock is not None):
            shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def _lock(folder: Path) -> int | None:
    """A handle that holds the folder's lock until it is closed or its process ends; None where there are no locks.

    Raises
    ------
    BlockingIOError
        If another holds it.
    """
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # a file system without locks
        os.close(handle)
        return None
    return handle


def _unlock(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _host() -> str:
    import platform

    return f"{zlib.crc32(platform.node().encode()):08x}"
