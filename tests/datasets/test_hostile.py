"""Hostile and damaged data files: one sentence with the path, at once, and in little memory."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from dataset_files import (
    LABELS,
    MNIST,
    NAMES,
    PIXELS,
    pack_cifar,
    pickled,
    picture,
    write_cifar,
    write_images,
    write_lists,
    write_mnist,
    write_tables,
    zip_images,
)
from support import random_mfa

import mfakit
from mfakit.commands._samples import read_samples
from mfakit.datasets import load_celeba, load_cifar10, load_mnist
from mfakit.datasets._pickles import read_batch

pytest.importorskip("PIL.Image", reason="CelebA's images need Pillow")


@contextmanager
def refused(match: str, megabytes: int = 4) -> Iterator[None]:
    """A ValueError of one short printable line, within a second of computing and in little memory."""
    started = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match) as caught:
            yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes << 20
    assert time.process_time() - started < 1
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


ENCODE = b"c_codecs\nencode\n"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
DTYPE = b"cnumpy\ndtype\nU\x02u1\x85R"


def array(shape: bytes, raw: bytes = b"U\x00") -> bytes:
    """A batch whose array has this shape, pickled."""
    return b"\x80\x02}U\x06labels]sU\x04data" + ARRAY + b"(K\x01" + shape + DTYPE + b"\x89" + raw + b"tbs."


PICKLES = {
    "a key that takes long to hash": b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",
    "a key of shared tuples": b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns.",
    "a set of shared tuples": b"\x80\x04\x8f()" + b"\x94h\x00\x86" * 60 + b"\x90.",
    "a shape of shared tuples": array(b")" + b"q\x00h\x00\x86" * 60),
    "a shape that is deep": array(b")" + b"\x85" * 900),
    "a shape that is deeper": array(b")" + b"\x85" * 10**6),
    "a shape that is long": array(b"(" + b"K\x01" * 10**6 + b"t"),
    "a shape of huge numbers": array(b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6 + b"K\x01\x86"),
    "a number of many digits": b"\x80\x02I" + b"9" * 10**6 + b"\n.",
    "a text that is encoded again and again": (
        b"\x80\x02" + text("x" * 10**5) + b"q\x00" + text("latin1") + b"q\x010"
        + (ENCODE + b"h\x00h\x01\x86R") * 300 + b"."
    ),
    "a memo that numbers far ahead": b"\x80\x02}r\xff\xff\xff\x7f.",
    "lists without end": b"\x80\x02" + b"]" * 10**6 + b".",
    "dicts without end": b"\x80\x02" + b"}" * 10**6 + b".",
    "marks without end": b"\x80\x02" + b"(" * 10**6 + b".",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "labels of huge numbers": b"\x80\x02}U\x06labels](\x8b\xa0\x86\x01\0" + b"\x7f" * 10**5 + b"esU\x04data]s.",
    "a name of a million letters": b"c" + b"x" * 10**6 + b"\ny\n.",
    "a name that clears the screen": b"c\x1b[2J\ny\n.",
    "labels twice": b"\x80\x02}(U\x06labels]U\x06labels]U\x04data]u.",
    "no end": b"\x80\x02}",
    "nothing on the stack": b"\x80\x02s.",
    "mark instead of a dict": b"\x80\x02(K\x01K\x01s.",
}  # fmt: skip


@pytest.mark.parametrize("case", PICKLES)
def test_pickles_that_ask_for_time_or_memory(case: str) -> None:
    data = PICKLES[case]
    with refused("^here: data_batch_1 is not a CIFAR-10 batch", 2 + 6 * len(data) // 10**6):
        read_batch(data, "here: data_batch_1")


def header(name: str, size: int, kind: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.USTAR_FORMAT)


def patched(block: bytes, at: int, value: bytes) -> bytes:
    """A header with another field, and the checksum of that."""
    block = block[:at] + value + block[at + len(value) :]
    total = sum(block[:148]) + 8 * 32 + sum(block[156:512])
    return block[:148] + b"%06o\0 " % total + block[156:]


def extended(records: bytes) -> bytes:
    return header("x", len(records), tarfile.XHDTYPE) + records + bytes(-len(records) % 512)


MEMBER = "cifar-10-batches-bin/data_batch_1.bin"
TARS = {
    "a long extended header": (header("x", 300 << 20, tarfile.XHDTYPE), "header of 314572800 bytes"),
    "a long global header": (header("x", 300 << 20, tarfile.XGLTYPE), "header of 314572800 bytes"),
    "a long name": (header("x", 300 << 20, tarfile.GNUTYPE_LONGNAME), "header of 314572800 bytes"),
    "a long link": (header("x", 300 << 20, tarfile.GNUTYPE_LONGLINK), "header of 314572800 bytes"),
    "a chain of long names": (
        (header("x", 1, tarfile.GNUTYPE_LONGNAME) + b"a" + bytes(511)) * 3000,
        "more than 1000 headers",
    ),
    "a chain of extended headers": (extended(b"12 path=abc\n") * 900, "has no data_batch_1, "),
    "too many members": (header("x", 0, tarfile.REGTYPE) * 1001, "more than 1000 headers"),
    "a sparse member": (header(MEMBER, 512, tarfile.GNUTYPE_SPARSE), "is a sparse file"),
    "a sparse member of the other kind": (
        extended(b"22 GNU.sparse.major=1\n") + header(MEMBER, 0, tarfile.REGTYPE),
        "is a sparse file",
    ),
    "a false size": (header(MEMBER, 1 << 32, tarfile.REGTYPE), "claims 4294967296 bytes"),
    "a false size in an extended header": (
        extended(b"25 size=99999999999999999\n"[:-1] + b"\n") + header(MEMBER, 0, tarfile.REGTYPE),
        "an extended header is damaged|claims",
    ),
    "a negative size": (patched(header(MEMBER, 0, tarfile.REGTYPE), 124, b"\xff" * 12), "a header is damaged"),
    "a size of binary digits": (
        patched(header(MEMBER, 0, tarfile.REGTYPE), 124, b"\x80" + b"\x7f" * 11),
        r"claims \d{20,} bytes",
    ),
    "a device": (header(MEMBER, 0, tarfile.CHRTYPE), "has no data_batch_1, "),
    "a pipe": (header(MEMBER, 0, tarfile.FIFOTYPE), "has no data_batch_1, "),
    "a link": (header(MEMBER, 0, tarfile.LNKTYPE), "has no data_batch_1, "),
    "an end within a member": (header(MEMBER, 3073, tarfile.REGTYPE) + b"x", "ends within a member"),
    "a damaged extended header": (extended(b"99999 path=x\n"), "an extended header is damaged"),
    "no tar": (b"\x89PNG" * 200, "a header is damaged"),
    "a member's name of other signs": (header("\x1b[2J" * 9, 1 << 32, tarfile.REGTYPE), "claims"),
}  # fmt: skip


@pytest.mark.parametrize("case", TARS)
@pytest.mark.parametrize("packed", [True, False])
def test_archives_that_ask_for_time_or_memory(tmp_path: Path, case: str, packed: bool) -> None:
    data, message = TARS[case]
    end = bytes(1024) if message.startswith(("has", "more")) else b""
    path = tmp_path / "cifar-10-binary.tar"
    path.write_bytes(gzip.compress(data + end, 1) if packed else data + end)
    with refused(rf"^{path}.*{message}", 8):
        load_cifar10(tmp_path, cache=False)


def test_archives_that_unpack_to_far_too_much(tmp_path: Path) -> None:
    zeros = zlib.compressobj(1, wbits=31)
    parts = [zeros.compress(header("zeros", 100 << 20, tarfile.REGTYPE))]
    parts += [zeros.compress(bytes(1 << 20)) for _ in range(100)]
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"".join([*parts, zeros.flush()]))
    with refused(r"cifar-10-binary\.tar\.gz unpacks to more than \d+ MB, which is no set of batches", 8):
        load_cifar10(tmp_path, cache=False)


def test_batches_that_are_far_too_long(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    with (tmp_path / "data_batch_3.bin").open("r+b") as file:
        file.truncate(1 << 40)  # sparse
    with refused(r"data_batch_3\.bin must have at most 134217728 bytes, and has 1099511627776; get"):
        load_cifar10(tmp_path, cache=False)


def test_images_that_would_fill_the_memory(tmp_path: Path) -> None:
    write_mnist(tmp_path, "{}.gz".format)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    zeros = zlib.compressobj(1, wbits=31)
    parts = [zeros.compress(struct.pack(">BBBB3i", 0, 0, 8, 3, 100, 1024, 1024))]
    path.write_bytes(b"".join([*parts, *(zeros.compress(bytes(1 << 20)) for _ in range(100)), zeros.flush()]))
    with refused(rf"^{path} claims 104857600 bytes of data .* more than it can hold"):
        load_mnist(tmp_path)


def png(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A picture whose header is whole; of its pixels there are none."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0), b"IDAT", b"IEND")
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("crop", ["authors", None, (0, 0, 9, 9)])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(8900, 10900), "000002.jpg is too large an image .*8900x10900|000002.jpg is too large an image"),
        (png(60000, 60000), "is too large an image"),
        (png(178, 218, 16, 0), r"has pixels of type I;16, not bytes"),
        (bytes((1 << 24) + 1), "it claims 16777217 bytes"),
    ],
    ids=["of the usual shape", "square", "16 bits", "long"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_that_would_fill_the_memory(tmp_path: Path, crop, data: bytes, message: str) -> None:
    write_lists(tmp_path)
    images = {NAMES[0]: picture(1), NAMES[1]: data, NAMES[2]: picture(1), NAMES[3]: picture(1)}
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in images.items():
            archive.writestr(name, content)
    with refused(message, 16):
        load_celeba(tmp_path, crop=crop, cache=False, progress=False)


def test_packings_without_a_bound_are_not_unpacked(tmp_path: Path) -> None:
    write_lists(tmp_path)
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w", zipfile.ZIP_BZIP2) as archive:
        for name in NAMES:
            archive.writestr(name, bz2.compress(b""))
    with refused("packed by method 12, not stored or deflated"):
        load_celeba(tmp_path, cache=False, progress=False)


def test_lists_with_names_of_any_length(tmp_path: Path) -> None:
    write_lists(tmp_path)
    zip_images(tmp_path / "img_align_celeba.zip", {"": 200})
    long = "x" * 10**5
    path = tmp_path / "list_attr_celeba.txt"
    for content, message in (
        (f"1\nMale\n{long} 1\n", "not a plain file name"),
        ("1\nMale\n\x1b[2J.jpg 1\n", "not a plain file name"),
        (f"1\n{long} {long}2\nx.jpg 1 1\n", "has no attribute 'Male'; choose one of xxx"),
        (f"{long}\nMale\nx.jpg 1\n", r"says 'xxx.*'\.\.\. images"),
    ):
        path.write_text(content)
        with refused(rf"^{path}.*{message}"):
            load_celeba(tmp_path, cache=False, progress=False)


def test_model_files_with_texts_of_any_length(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "m.safetensors"
    for metadata, message in (
        ({"format": "mfakit", "version": "9" * 10**6, "kind": "mfa"}, "has format version 9999"),
        ({"format": "mfakit", "version": "1", "kind": "\x1b" + "x" * 10**6}, "holds a x"),
        ({"format": "mfakit", "version": "1", "kind": "mfa"}, "lacks weights"),
    ):
        save_file({"a": np.zeros(1)}, path, metadata=metadata)
        with refused(rf"^{path} {message}", 8):
            mfakit.MFA.load(path)


@pytest.mark.parametrize("names", [("²",), ("9" * 5000,), ("0", "2"), ("00", "1"), ("x",), ()])
def test_classifiers_whose_classes_are_misnumbered(tmp_path: Path, names: tuple[str, ...]) -> None:
    from mfakit._io.tensor_files import write_tensors
    from mfakit.mixture.parameters import PARAMETERS

    mfa, path = random_mfa(), tmp_path / "c"
    write_tensors(path, "bayes-classifier", {f"{n}.{p}": getattr(mfa, p) for n in names for p in PARAMETERS})
    with refused(rf"^{path} is not a valid classifier"):
        mfakit.BayesClassifier.load(path)


# Any damage at all


def write_jpeg(folder: Path) -> None:
    from PIL import Image

    write_tables(folder)
    write_images(folder / "img_align_celeba")
    noise = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "JPEG")
    (folder / "img_align_celeba" / NAMES[0]).write_bytes(out.getvalue())


def write_zip(folder: Path) -> None:
    write_lists(folder)
    zip_images(folder / "img_align_celeba.zip", {"img_align_celeba/": 200})


def cifar(root: Path) -> object:
    return load_cifar10(root, None, cache=False)


def celeba(root: Path) -> object:
    return load_celeba(root, cache=False, progress=False, image_size=2)


X = np.arange(12.0).reshape(3, 4)
# What writes a good data set, which of its files are damaged, and what reads it.
READERS: dict[str, tuple[Callable[[Path], object], tuple[str, ...], Callable[[Path], object]]] = {
    "idx": (write_mnist, tuple(MNIST), load_mnist),
    "idx, gzipped": (lambda r: write_mnist(r, "{}.gz".format), ("train-images-idx3-ubyte.gz",), load_mnist),
    "pickle": (lambda r: write_cifar(r, pickled({"data": PIXELS, "labels": LABELS}, 2)), ("data_batch_1",), cifar),
    "pickle 5": (
        lambda r: write_cifar(r, pickled({"data": PIXELS, "labels": np.array(LABELS)}, 5)), ("test_batch",), cifar,
    ),
    "tar": (lambda r: pack_cifar(r / "cifar-10-binary.tar", mode="w"), ("cifar-10-binary.tar",), cifar),
    "tar.gz": (lambda r: pack_cifar(r / "cifar-10-binary.tgz"), ("cifar-10-binary.tgz",), cifar),
    "zip": (write_zip, ("img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt"), celeba),
    "images": (write_jpeg, tuple(f"img_align_celeba/{name}" for name in NAMES[:2]), celeba),
    "tables": (write_jpeg, ("list_attr_celeba.csv", "list_eval_partition.csv"), celeba),
    "npy": (lambda r: np.save(r / "a.npy", X), ("a.npy",), lambda r: read_samples(r / "a.npy")),
    "npz": (lambda r: np.savez(r / "a.npz", X=X, y=X), ("a.npz",), lambda r: read_samples(r / "a.npz")),
    "npz, packed": (
        lambda r: np.savez_compressed(r / "a.npz", X=X), ("a.npz",), lambda r: read_samples(r / "a.npz"),
    ),
    "mixture": (lambda r: random_mfa().save(r / "m"), ("m",), lambda r: mfakit.MFA.load(r / "m")),
    "classifier": (
        lambda r: mfakit.BayesClassifier([random_mfa(), random_mfa(seed=1)]).save(r / "c"), ("c",),
        lambda r: mfakit.BayesClassifier.load(r / "c"),
    ),
}  # fmt: skip


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bits flipped, pieces moved, inserted or lost, numbers made huge; the beginning is hit more often."""
    out = bytearray(data)
    kind = rng.integers(6)
    for _ in range(int(rng.integers(1, 4))):
        i = int(rng.integers(min(len(out), 600) if rng.random() < 0.5 else len(out))) if out else 0
        if kind == 0 and out:
            out[i] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del out[i:]
        elif kind == 2:
            j = int(rng.integers(len(data)))
            out[i : i + 32] = data[j : j + 32]
        elif kind == 3:
            out[i:i] = rng.bytes(int(rng.integers(1, 16)))
        elif kind == 4:
            out[i : i + 4] = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f")[rng.integers(4)]
        else:
            del out[i : i + int(rng.integers(1, 32))]
    return bytes(out)


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_read_or_refused_in_a_sentence(tmp_path: Path, reader: str) -> None:
    write, names, read = READERS[reader]
    write(tmp_path)
    read(tmp_path)
    rng = np.random.default_rng(0)
    n_refused = 0
    for i in range(40):
        path = tmp_path / names[i % len(names)]
        good = path.read_bytes()
        path.write_bytes(damaged(good, rng))
        started = time.process_time()
        try:
            read(tmp_path)
        except (ValueError, OSError) as error:
            n_refused += 1
            message = str(error)
            assert str(tmp_path) in message
            assert message.isprintable()
            assert len(message) < 1200
        assert time.process_time() - started < 1
        path.write_bytes(good)
    assert n_refused > 10
    read(tmp_path)


def test_files_that_may_not_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jpeg(tmp_path)
    write_mnist(tmp_path)
    shut = {tmp_path / "img_align_celeba" / NAMES[1], tmp_path / "t10k-labels-idx1-ubyte"}
    usual = Path.open

    def open_unless_shut(path: Path, *args, **kwargs):
        if path in shut:
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_unless_shut)  # root may read anything
    for load, path in ((celeba, tmp_path / "img_align_celeba" / NAMES[1]), (load_mnist, tmp_path / "t10k-labels-idx1")):
        with pytest.raises(PermissionError, match=f"Permission denied: '{path}"):
            load(tmp_path)
