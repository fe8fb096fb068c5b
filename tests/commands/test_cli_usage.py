"""The command line: what was probably meant, endings of results, missing data, hostile samples, what was written."""

from __future__ import annotations

import re
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fitt",), r"mfakit: error: there is no command .fitt.; there are reproduce, .* \(did you mean fit\?\)"),
        (("reproduce", "bays"), r"mfakit reproduce: error: there is no experiment 'bays'; .* \(did you mean bayes\?\)"),
        (
            ("fit", "--mnist", "0", "--out", "m.safetensors", "--componets", "3"),
            r".*no option '--componets' .*--components .*\?\)",
        ),
        (("reproduce", "bayes", "--outt=x"), r"mfakit reproduce bayes: error: there is no option '--outt' .*--out\?\)"),
        (
            ("attack", "mnist-06", "--variant", "symetric"),
            r".*--variant: must be one of .*'symetric' .*mean symmetric .*",
        ),
        (("attack", "mnist-06", "more"), "mfakit attack: error: 'more' is one argument too many"),
        (("fit", "--noise", "x" * 9999), r".*got 'x{30,40}'\.\.\."),
    ],
)
def test_misspelled_usage_names_what_was_meant(quiet, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = quiet(*arguments)
    assert (status, out) == (2, "")
    first, hint = err.splitlines()
    assert re.fullmatch(message, first), first
    assert hint == f"help: {first.partition(':')[0]} --help"


def test_misspelled_pairs_name_the_nearest(quiet, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"")
    for arguments, message in (
        (("attack", "mnist-60"), r"no shipped pair 'mnist-60'; there are mnist-06, .* \(did you mean mnist-06.*\?\)"),
        (("sample", "mnist06", "--out", "x.npy"), r"no model file at mnist06; did you mean mnist-06:0, a class .*\?"),
        (("reproduce", "bayes", "--pair", "MNIST-27"), r"no shipped pair 'MNIST-27'; .* \(did you mean mnist-27.*"),
        (("attack", "model.pkl"), r"model.pkl is no model file, because those end in \.safetensors, and no shipped.*"),
    ):
        status, _, err = quiet(*arguments)
        assert status == 1
        assert re.fullmatch(rf"mfakit: {message}\n", err), err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "--data", "x.npy", "--out", "x.pkl"), r"--out must end in \.safetensors, which is .* got x\.pkl"),
        (("train", "cnn", "mnist-06", "--out", "model"), r"--out must end in \.safetensors, which is .* got model"),
        (("attack", "mnist-06", "--out", "x.npy"), r"--out must end in \.npz, which is .* got x\.npy"),
        (("certify", "mnist-06", "--out", "x.csv"), r"--out must end in \.npz, which is .* got x\.csv"),
        (("certify", "mnist-06", "--json", "x.npz"), r"--json must end in \.json, which is .* got x\.npz"),
        (("sample", "mnist-06:0", "--out", "x.NPZ"), r"--out must end in \.npy or \.npz, which is .* got x\.NPZ"),
    ],
)
def test_results_are_not_written_under_names_of_other_formats(
    quiet, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    status, out, err = quiet(*arguments)
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"mfakit: {message}\n", err), err
    assert list(tmp_path.iterdir()) == []


def test_missing_data_sets_are_advised_in_options_of_the_command(quiet, tmp_path: Path) -> None:
    for source in (("--mnist", "0"), ("--cifar10", "0"), ("--celeba", "Male=1")):
        status, _, err = quiet("fit", *source, "--data-root", str(tmp_path), "--out", "m.safetensors")
        assert status == 1
        assert "=True" not in err
        assert "--data-root" in err
        assert ("give --download" in err) == (source[0] != "--celeba")
    status, _, err = quiet("fit", "--celeba", "Male=1", "--download", "--data-root", ".", "--out", "m.safetensors")
    assert "--download cannot fetch CelebA" in err
    status, _, err = quiet("fit", "--data", "x.npy", "--download", "--out", "m.safetensors")
    assert err == "mfakit: --download: --data is a file of its own; leave it out\n"


def test_download_is_passed_on(quiet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def fetch(name: str, folder: Path) -> Path:
        asked.append((name, folder))
        raise OSError(f"could not download {name}")

    monkeypatch.setattr("mfakit.datasets.mnist.fetch", fetch)
    status, _, err = quiet("fit", "--mnist", "0", "--download", "--data-root", str(tmp_path), "--out", "m.safetensors")
    assert status == 1
    assert asked == [("train-images-idx3-ubyte.gz", tmp_path / "mnist")]
    assert err == "mfakit: could not download train-images-idx3-ubyte.gz\n"


def npz(path: Path, header: bytes, n_bytes: int, kind: int) -> None:
    """An archive of X with this header and a number of zeros."""
    with zipfile.ZipFile(path, "w", kind, compresslevel=1) as archive, archive.open("X.npy", "w") as file:
        file.write(header)
        for _ in range(n_bytes >> 20):
            file.write(bytes(1 << 20))


def npy_header(shape: str, dtype: str = "<f8") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_hostile_samples_are_refused_before_they_take_memory(quiet, tmp_path: Path) -> None:
    whole = npy_header("(2, 784)") + bytes(2 * 784 * 8)
    npz(tmp_path / "bomb.npz", npy_header("(8388608, 1)"), 64 << 20, zipfile.ZIP_DEFLATED)
    npz(tmp_path / "lzma.npz", npy_header("(8388608, 1)"), 1 << 20, zipfile.ZIP_LZMA)
    for name, data in {
        "huge": npy_header("(1000000000, 784)") + bytes(100),
        "negative": npy_header("(-2, -784)") + bytes(2 * 784 * 8),
        "nested": npy_header("(" * 3000 + ")" * 3000) + bytes(8),
        "text": npy_header("(2, 784)", "<U4") + bytes(2 * 784 * 16),
        "cut": whole[:-1],
        "longer": whole + b"x",
        "empty": b"",
        "pickle": b"\x80\x04.",
    }.items():
        (tmp_path / f"{name}.npy").write_bytes(data)
    tracemalloc.start()
    try:
        for path, message in {
            "bomb.npz": r"X\.npy would take 671\d+ bytes, unpacked from \d+, which is more than data take; save it .*",
            "lzma.npz": r"X\.npy is packed by method 14; save it again with numpy\.savez",
            "huge.npy": r"the array claims shape \(1000000000, 784\) of float64, and 100 bytes follow",
            "negative.npy": r"the array claims shape \(-2, -784\) .*",
            "nested.npy": r"the header of the array is damaged \(.*\)",
            "text.npy": r"the array has dtype '<U4', and samples are numbers",
            "cut.npy": r"the array claims shape \(2, 784\) .*",
            "longer.npy": r"the array claims shape \(2, 784\) .*",
            "empty.npy": r"the header of the array is damaged \(.*\)",
            "pickle.npy": r"the header of the array is damaged \(.*\)",
        }.items():
            status, _, err = quiet("distances", "mnist-06:0", "--data", path)
            assert status == 1
            assert re.fullmatch(rf"mfakit: {path} is not a readable \.npz or \.npy file: {message}\n", err), err
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "|u1", "<f2"])
def test_samples_are_read_as_numpy_wrote_them(tmp_path: Path, dtype: str, order: Any) -> None:
    from mfakit.commands._samples import read_samples

    X = np.asarray(np.arange(12).reshape(3, 4), dtype, order=order)
    np.save(tmp_path / "a.npy", X)
    for save, name in ((np.savez, "a.npz"), (np.savez_compressed, "b.npz")):
        save(tmp_path / name, X=X, y=np.arange(3))
    for name in ("a.npy", "a.npz", "b.npz"):
        found, y = read_samples(tmp_path / name)
        assert found.dtype == X.dtype
        np.testing.assert_array_equal(found, X)
        assert (y is None) == name.endswith("npy")


def test_errors_about_samples_name_their_file(quiet, tmp_path: Path) -> None:
    np.save(tmp_path / "nan.npy", np.full((30, 784), np.nan))
    for arguments in (("attack", "mnist-06"), ("distances", "mnist-06:0"), ("fit", "--out", "m.safetensors")):
        status, _, err = quiet(*arguments, "--data", "nan.npy")
        assert status == 1
        assert err.startswith("mfakit: nan.npy: X has NaN")


@pytest.mark.parametrize("experiment", ["fig3", "bayes"])
def test_experiments_list_what_they_wrote_and_nothing_else(
    quiet, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mfakit.experiments.outcome.have_matplotlib", lambda: False)
    folder = tmp_path / experiment
    folder.mkdir()
    (folder / "stray.png").write_bytes(b"")
    (folder / "result.json").write_text("of an earlier run")
    settings = {
        "fig3": ("--levels", "5", "--samples", "2", "--points", "2"),
        "bayes": ("--samples", "2", "--pair", "mnist-06"),
    }
    status, out, _ = quiet("reproduce", experiment, *settings[experiment], "--out", ".", "--no-progress")
    assert status == 0
    (line,) = [line for line in out.splitlines() if line.startswith("written")]
    names = {path.name for path in folder.iterdir()} - {"stray.png"}
    assert line == f"written to {experiment}: {', '.join(sorted(names))}"
