"""Where results go: links are written through, anything but a regular file is refused, nothing is left half done."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import random_mfa

import mfakit
from mfakit._io.outputs import output_file, output_folder, recorded_outputs, replacing
from mfakit._io.report import write_json, write_text

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
    with mfakit._io.report.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old\n"
        assert temporary.suffix == ".txt"
    assert path.read_text() == "new"
    assert output_file(path) == path


HOLDER = """
import sys
from pathlib import Path
from mfakit._io.outputs import replacing

with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    (temporary.parent / "made by a library").write_text("")
    print("ready", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[bytes]:
    """A process in the midst of writing `path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.communicate()
    process.wait()


@posix
@WRITERS
def test_what_killed_writers_left_is_removed_by_the_next(write: Writer, tmp_path: Path) -> None:
    killed, living = holder(tmp_path / "a"), holder(tmp_path / "b")
    killed.kill()
    killed.wait()
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 2
    for name in (".mfakit-notes.tmp", "user.tmp", ".mfakit-cache"):
        (tmp_path / name).write_text("")
    write(tmp_path / "m")
    after = {path.name for path in tmp_path.iterdir()} - {".mfakit-notes.tmp", "user.tmp", ".mfakit-cache", "m"}
    assert len(after) == 1
    end(living)
    assert (tmp_path / "b").read_text() == "half"
    end(killed)
    write(tmp_path / "m")
    assert listing(tmp_path) == [".mfakit-cache", ".mfakit-notes.tmp", "b", "m", "user.tmp"]


@posix
def test_writers_of_other_machines_are_given_a_day(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / f".mfakit-00000000-{name}.tmp").mkdir()
    os.utime(tmp_path / ".mfakit-00000000-old.tmp", (0, time.time() - 25 * 3600))
    save_numbers(tmp_path / "m")
    assert sorted(os.listdir(tmp_path)) == [".mfakit-00000000-new.tmp", "m"]


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing(tmp_path / "m") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert listing(tmp_path) == []


def test_writers_in_one_place_do_not_disturb_each_other(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_json(tmp_path / f"{i % 3}.json", {"a": i}), range(60)))
    assert listing(tmp_path) == ["0.json", "1.json", "2.json"]


def test_what_is_written_is_recorded_by_the_name_that_was_given(tmp_path: Path) -> None:
    write_text(tmp_path / "before", "")
    with recorded_outputs() as written:
        write_text(tmp_path / "b", "")
        save_model(tmp_path / "a")
        with pytest.raises(FileNotFoundError):
            write_text(tmp_path / "no" / "c", "")
    write_text(tmp_path / "after", "")
    assert written == [tmp_path / "b", tmp_path / "a"]


@posix
def test_links_are_recorded_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "target")
    with recorded_outputs() as written:
        write_text(tmp_path / "link", "")
    assert written == [tmp_path / "link"]


@WRITERS
def test_a_full_disk_is_an_error_that_names_the_file(write: Writer, tmp_path: Path) -> None:
    """Libraries that write a file know its temporary name only, or none."""
    path = tmp_path / "model.safetensors"
    write(path)
    before = path.read_bytes()

    def run_out_of_room() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"no room for .*model\.safetensors, which is left as it was: No space"):
        run_out_of_room()
    assert (path.read_bytes(), listing(tmp_path)) == (before, ["model.safetensors"])
