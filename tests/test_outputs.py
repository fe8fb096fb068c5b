"""Where results go: links are written through, what is no regular file is refused, nothing is left half done."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import random_mfa

import mfakit
from mfakit._outputs import output_file, output_folder
from mfakit.report import write_json, write_text

posix = pytest.mark.skipif(os.name != "posix", reason="symbolic links and pipes")

Writer = Callable[[Path], None]


def save_model(path: Path) -> None:
    random_mfa().save(path)


def save_numbers(path: Path) -> None:
    write_json(path, {"a": 1})


WRITERS = pytest.mark.parametrize("write", [save_model, save_numbers])


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@posix
@WRITERS
def test_links_are_written_through(write: Writer, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "target.json"
    target.write_text("old")
    (tmp_path / "first").symlink_to(target)
    link = tmp_path / "link"
    link.symlink_to("first")  # relative, and to another link
    write(link)
    assert link.is_symlink()
    assert (tmp_path / "first").is_symlink()
    assert target.is_file()
    assert target.read_bytes() != b"old"
    assert listing(tmp_path) == ["first", "link", "there", "there/target.json"]


@posix
@WRITERS
def test_a_link_to_nothing_makes_what_it_names(write: Writer, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new").is_file()
    (tmp_path / "lost").symlink_to(tmp_path / "no" / "new")
    with pytest.raises(FileNotFoundError, match=r"no folder .*no to write new to; make it first"):
        write(tmp_path / "lost")


@posix
@WRITERS
@pytest.mark.parametrize("through_a_link", [False, True])
def test_what_is_no_regular_file_is_not_replaced(write: Writer, through_a_link: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    for name in ("pipe", "folder"):
        (tmp_path / f"to-{name}").symlink_to(name)
    before = listing(tmp_path)
    for name, error, message in (
        ("pipe", OSError, "pipe is no regular file and will not be replaced"),
        ("folder", IsADirectoryError, "folder is a folder; give the name of a file in it"),
        ("circle", OSError, "circle is no regular file"),
    ):
        path = tmp_path / (f"to-{name}" if through_a_link and name != "circle" else name)
        with pytest.raises(error, match=message) as caught:
            write(path)
        assert "\n" not in str(caught.value)
    assert listing(tmp_path) == before
    assert (tmp_path / "pipe").is_fifo()


@WRITERS
def test_folders_are_looked_at_first(write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent to write m to"):
        write(tmp_path / "absent" / "m")
    with pytest.raises(NotADirectoryError, match=r"no folder .*file to write m to"):
        write(tmp_path / "file" / "m")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(PermissionError, match="cannot be written to"):
        write(tmp_path / "m")
    assert listing(tmp_path) == ["file"]


def test_output_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert output_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "b"):
        with pytest.raises(NotADirectoryError, match="there is a file in its place"):
            output_folder(path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="cannot be written to"):
        output_folder(tmp_path / "a")


def test_the_old_file_stays_while_the_new_one_is_written(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    write_text(path, "old")
    with mfakit.report.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old\n"
        assert temporary.suffix == ".txt"
    assert path.read_text() == "new"
    assert output_file(path) == path
