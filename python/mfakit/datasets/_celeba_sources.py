"""Where CelebA's images are: the zip, or a folder, each with folders in it; which file belongs to which listed name."""

from __future__ import annotations

import contextlib
import os
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from .._io.messages import excerpt, one_line
from .._io.unpacking import read_whole

__all__ = ["FOLDER_NAMES", "FolderImages", "ZipImages", "image_files", "open_images"]

# The aligned images, as JPEG or as PNG; img_celeba holds others of the same names.
FOLDER_NAMES = ("img_align_celeba", "img_align_celeba_png")
_SUFFIXES = (".jpg", ".jpeg", ".png")
# An image of the usual size has 10 kB, or 120 kB unpacked.
_MAX_IMAGE_BYTES = 1 << 24

Key = TypeVar("Key")
# Folder, then file name, to whatever the file is read by.
Listing = dict[str, dict[str, Key]]


class ZipImages:
    """The listed images in an open zip; nothing is extracted."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except PermissionError:
            raise
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error, OverflowError) as error:
            raise ValueError(f"{path} is not a whole zip file ({one_line(error)}); get the file again") from error
        try:
            self._entries = _resolve(self._listing(), names, path)
        except BaseException:
            self.close()
            raise

    def _listing(self) -> Listing[zipfile.ZipInfo]:
        listing: Listing[zipfile.ZipInfo] = {}
        for entry in self._zip.infolist():
            # Some tools write Windows' separators.
            folder, _, name = entry.filename.replace("\\", "/").rpartition("/")
            # What macOS adds of its own.
            if not name or name.startswith(".") or "__MACOSX" in folder.split("/"):
                continue
            if listing.setdefault(folder, {}).setdefault(name, entry) is not entry:
                raise ValueError(f"{self.path} holds {excerpt(entry.filename)} twice; get the file again")
        return listing

    def read(self, name: str) -> bytes:
        """The file of a listed image."""
        entry = self._entries[name]
        if entry.file_size > _MAX_IMAGE_BYTES:
            raise ValueError(f"it claims {entry.file_size} bytes")
        # zipfile unpacks the others in pieces of any size.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"it is packed by method {entry.compress_type}, not stored or deflated")
        return self._zip.read(entry)

    def close(self) -> None:
        """Close the zip."""
        self._zip.close()


class FolderImages:
    """The listed images in a folder, or in a folder of an expected name within it."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path = path
        listing = {str(folder): _regular_files(folder) for folder in _nested(path)}
        self.files = _resolve(listing, names, path)

    def read(self, name: str) -> bytes:
        """The file of a listed image."""
        return read_whole(self.files[name], _MAX_IMAGE_BYTES)

    def close(self) -> None:
        """A folder is not held open."""


def open_images(source: Path, names: Sequence[str]) -> ZipImages | FolderImages:
    """The listed images of a zip or a folder.

    Raises
    ------
    ValueError
        If some are missing, or if two files could be the image of one name.
    """
    images = FolderImages(source, names) if source.is_dir() else ZipImages(source, names)
    there = images.files if isinstance(images, FolderImages) else images._entries
    missing = [name for name in names if name not in there]
    if missing:
        images.close()
        raise ValueError(
            f"{source} lacks {len(missing)} of the {len(names)} images that the attribute list names, first"
            f" {missing[0]}; get images and list from the same place, or load fewer by load_celeba(limit=...)"
        )
    return images


def image_files(source: Path, names: Sequence[str]) -> list[Path]:
    """The files whose change makes a cache stale."""
    return list(FolderImages(source, names).files.values()) if source.is_dir() else [source]


def _nested(path: Path) -> list[Path]:
    """The folder, and what archives that were unpacked into a folder of their own name leave in it."""
    folders = [path]
    for folder in folders:
        for inner in (folder / name for name in FOLDER_NAMES):
            # Links may lead in a circle.
            if inner.is_dir() and not any(inner.samefile(other) for other in folders):
                folders.append(inner)
    return folders


def _regular_files(folder: Path) -> dict[str, Path]:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # links that lead nowhere
                if entry.is_file():
                    found[entry.name] = folder / entry.name
    return found


def _resolve(listing: Listing[Key], names: Sequence[str], path: Path) -> dict[str, Key]:
    """Each listed name's file; names without one are left out.

    Where folders are called as CelebA's are, others do not count.
    """
    found = {folder: _of_folder(files, names, f"{path}, {folder}") for folder, files in listing.items()}
    holding = {folder: files for folder, files in found.items() if files}
    called = {folder: files for folder, files in holding.items() if _last(folder) in FOLDER_NAMES}
    resolved: dict[str, Key] = {}
    places: dict[str, str] = {}
    for folder, files in (called or holding).items():
        twice = next((name for name in files if name in resolved), None)
        if twice is not None:
            raise ValueError(
                f"{path} has {twice} in two folders, {excerpt(places[twice], 200)} and"
                f" {excerpt(folder, 200)}; keep the one with the aligned images"
            )
        resolved |= files
        places |= dict.fromkeys(files, folder)
    return resolved


def _of_folder(files: dict[str, Key], names: Sequence[str], where: str) -> dict[str, Key]:
    """The files of one folder under the listed names: in that spelling, else with other capitals or another suffix."""
    found = {name: files[name] for name in names if name in files}
    if len(found) == len(names):
        return found
    stems: dict[str, list[str]] = {}
    for name in files:
        stem, suffix = os.path.splitext(name.casefold())
        if suffix in _SUFFIXES:
            stems.setdefault(stem, []).append(name)
    for name in names:
        alike = stems.get(os.path.splitext(name.casefold())[0], []) if name not in found else []
        if len(alike) > 1:
            raise ValueError(
                f"{where} has {excerpt(alike[0])} and {excerpt(alike[1])} for the image {name}; remove one"
            )
        if alike:
            found[name] = files[alike[0]]
    return found


def _last(folder: str) -> str:
    return folder.replace(os.sep, "/").rpartition("/")[2].casefold()
