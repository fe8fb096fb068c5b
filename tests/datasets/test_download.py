from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import mfakit.datasets
from mfakit.datasets import _download
from mfakit.datasets._download import RESOURCES, data_root, fetch

CONTENT = b"a small archive"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """The test's output stays its own."""


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a real server on this machine that holds good.bin."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    (served / "good.bin").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def offer(monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, *mirrors: str) -> None:
    monkeypatch.setitem(RESOURCES, name, (hashlib.sha256(content).hexdigest(), mirrors))


def test_fetch_verifies_and_stores(tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "good.bin", CONTENT, mirror)
    path = fetch("good.bin", tmp_path / "root" / "mnist")
    assert path == tmp_path / "root" / "mnist" / "good.bin"
    assert path.read_bytes() == CONTENT


def test_the_next_mirror_is_tried(tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "good.bin", CONTENT, mirror + "nowhere/", mirror)
    assert fetch("good.bin", tmp_path / "root").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "good.bin", b"something else", mirror)
    with pytest.raises(OSError, match="SHA-256 is not"):
        fetch("good.bin", tmp_path / "root")
    assert not list((tmp_path / "root").iterdir())


def test_no_mirror_answers(tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "absent.bin", CONTENT, mirror)
    with pytest.raises(OSError, match=r"could not download absent\.bin .*HTTPError.* by hand and put it into"):
        fetch("absent.bin", tmp_path / "root")


def test_loaders_fetch_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def record(name: str, folder: Path) -> Path:
        asked.append((name, folder))
        raise OSError("offline")

    monkeypatch.setattr("mfakit.datasets.mnist.fetch", record)
    monkeypatch.setattr("mfakit.datasets.cifar10.fetch", record)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(OSError, match="offline"):
        mfakit.datasets.load_mnist(tmp_path, download=True)
    with pytest.raises(OSError, match="offline"):
        mfakit.datasets.load_cifar10(tmp_path, download=True)
    assert asked == [
        ("train-labels-idx1-ubyte.gz", tmp_path / "mnist"),
        ("cifar-10-binary.tar.gz", tmp_path / "cifar10"),
    ]


def test_every_file_that_the_loaders_fetch_has_a_checksum() -> None:
    from mfakit.datasets.mnist import _FILES

    assert set(RESOURCES) == {f + ".gz" for f in _FILES} | {"cifar-10-binary.tar.gz"}
    for sha256, mirrors in RESOURCES.values():
        assert len(bytes.fromhex(sha256)) == 32
        assert mirrors
        assert all(m.startswith("https://") and m.endswith("/") for m in mirrors)


def test_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFAKIT_DATA", str(tmp_path / "env"))
    assert data_root(tmp_path) == tmp_path
    assert data_root(None) == tmp_path / "env"
    assert data_root("~/x") == Path.home() / "x"
    monkeypatch.setenv("MFAKIT_DATA", "")
    assert data_root(None).name == "mfakit"
    monkeypatch.delenv("MFAKIT_DATA")
    assert data_root(None).name == "mfakit"


def test_public_names() -> None:
    assert set(mfakit.datasets.__all__) <= set(dir(mfakit.datasets))
    assert mfakit.datasets.load_mnist.__module__ == "mfakit.datasets.mnist"
    with pytest.raises(AttributeError, match="no attribute 'load_imagenet'"):
        mfakit.datasets.load_imagenet  # noqa: B018
    assert _download.__all__
