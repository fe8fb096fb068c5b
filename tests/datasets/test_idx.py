from __future__ import annotations

import gzip
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mfakit.datasets._idx import read_idx

PIXELS = np.arange(2 * 3 * 4, dtype=np.uint8)


def idx(shape: tuple[int, ...], payload: bytes, code: int = 0x08, lead: bytes = b"\0\0") -> bytes:
    return lead + bytes([code, len(shape)]) + struct.pack(f">{len(shape)}i", *shape) + payload


GOOD = idx((2, 3, 4), PIXELS.tobytes())


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_values_and_shape(tmp_path: Path, pack) -> None:
    path = tmp_path / "images"
    path.write_bytes(pack(GOOD))
    images = read_idx(path, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, PIXELS.reshape(2, 3, 4))


def test_an_empty_array_is_an_array(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx((0, 28, 28), b""))
    assert read_idx(path, 3).shape == (0, 28, 28)


BAD = {
    "empty": (b"", "not an IDX file"),
    "magic": (idx((2, 3, 4), PIXELS.tobytes(), lead=b"\x89P"), "not an IDX file"),
    "float type": (idx((2, 3, 4), PIXELS.tobytes(), code=0x0D), "type code 0x0d"),
    "labels as images": (idx((24,), PIXELS.tobytes()), "must have 3 axes, got 1"),
    "header cut": (GOOD[:11], "ends within its header"),
    "truncated": (GOOD[:-1], "claims 24 bytes"),
    "trailing": (GOOD + b"x", "more"),
    "negative": (idx((-1, 3, 4), PIXELS.tobytes()), "negative size"),
    "two negatives": (idx((-2, -3, 4), PIXELS.tobytes()), "negative size"),
    "huge": (idx((2**31 - 1,) * 3, PIXELS.tobytes()), "more than it can hold"),
    "one terabyte": (idx((2**20, 2**10, 2**10), PIXELS.tobytes()), "more than it can hold"),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_damage_is_found_fast_and_without_memory(tmp_path: Path, content: bytes, message: str, pack) -> None:
    path = tmp_path / "images"
    path.write_bytes(pack(content))
    started = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as error:
            read_idx(path, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < 1
    assert peak < 4 << 20
    assert str(path) in str(error.value)


def test_a_compressed_file_claims_no_more_than_deflate_can_hold(tmp_path: Path) -> None:
    # 900 MB would be within the absolute limit, but not in a file of 100 bytes.
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(idx((900, 1000, 1000), b"")))
    with pytest.raises(ValueError, match="more than it can hold"):
        read_idx(path, 3)


def test_a_true_claim_may_still_be_too_large(tmp_path: Path) -> None:
    # Zeros to fill the compressed side: 2 GB would be reachable at deflate's best, but is above the absolute limit.
    path = tmp_path / "images"
    header = gzip.compress(idx((2048, 1024, 1024), b""))
    path.write_bytes(header + gzip.compress(np.random.default_rng(0).bytes(3 << 20)))
    with pytest.raises(ValueError, match="more than it can hold"):
        read_idx(path, 3)


def test_a_gzip_bomb_is_read_no_further_than_its_header_claims(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(idx((2, 3, 4), bytes(1 << 26)), compresslevel=1))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more follow"):
            read_idx(path, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("damage", ["cut", "checksum", "body"])
def test_a_damaged_gzip_file(tmp_path: Path, damage: str) -> None:
    content = bytearray(gzip.compress(idx((2, 3, 400), np.random.default_rng(0).bytes(2400))))
    if damage == "cut":
        del content[-500:]
    else:
        content[-6 if damage == "checksum" else 30] ^= 0xFF
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="get the file again"):
        read_idx(path, 3)
