"""The command line: every example runs, bad input is one line and an exit status, nothing shows a traceback unasked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import close, random_mfa

import mfakit
from mfakit.backends import why_missing
from mfakit.bench import SIZES, Size

COMMANDS = (
    "reproduce",
    "report",
    "fit",
    "fit-pair",
    "sample",
    "train",
    "attack",
    "certify",
    "distances",
    "bench",
    "info",
)


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "mfakit", *arguments], capture_output=True, text=True, check=False, timeout=120, cwd=cwd
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(quiet, command: str) -> None:
    status, out, _ = quiet(command, "--help")
    assert status == 0
    assert re.search(rf"example.*\n\s+mfakit {command}", out)


def examples(command: str, out: str) -> list[list[str]]:
    """The examples of a help text that need no data set of their own."""
    lines = [line.split() for line in out.splitlines() if line.strip().startswith(f"mfakit {command}")]
    needs_data = {"--mnist", "--celeba", "--data", "model.safetensors"}
    return [words[1:] for words in lines if not needs_data & set(words)]


@pytest.mark.parametrize("command", ["sample", "attack", "distances", "info", "certify"])
def test_the_examples_run(quiet, command: str) -> None:
    if command == "certify" and why_missing("native"):
        pytest.skip(f"compiled: {why_missing('native')}")
    if command in ("certify",):
        pytest.importorskip("matplotlib")
    _, out, _ = quiet(command, "--help")
    found = examples(command, out)
    assert found
    for words in found:
        status, out, err = quiet(*words)
        assert (status, err) == (0, ""), words
        assert out


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.perf_counter()\n"
        "from mfakit.cli import _parser; _parser()\n"
        "print(time.perf_counter() - start, *({'torch', 'sklearn', 'matplotlib', 'numba', 'cupy'} & set(sys.modules)))"
    )
    seconds = []
    for _ in range(3):
        words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        assert words[1:] == []
        seconds.append(float(words[0]))
    assert min(seconds) < 0.5


def test_version_and_info(quiet) -> None:
    assert quiet("--version")[1] == f"mfakit {mfakit.__version__}\n"
    status, out, _ = quiet("info")
    assert status == 0
    assert len([line for line in out.splitlines() if line.startswith("native")]) == 1
    for word in ("numba backend", "numpy backend", "cuda backend", "threads", "shipped pairs", "scikit-learn"):
        assert word in out


def cut_short(path: Path) -> Path:
    random_mfa().save(path)
    path.write_bytes(path.read_bytes()[:100])
    return path


BAD = {
    "unknown pair": (("attack", "mnist-99"), "there are mnist-06, mnist-27, mnist-45"),
    "step": (("attack", "mnist-06", "--samples", "2", "--step-size", "-1"), "step_size must be a positive number"),
    "missing model": (("sample", "nothing.safetensors", "--out", "x.npy"), "no model file at nothing.safetensors"),
    "cut model": (("sample", "cut.safetensors", "--out", "x.npy"), "not a readable safetensors file"),
    "missing data": (("fit", "--data", "nothing.npy", "--out", "m.safetensors"), "no data file at nothing.npy"),
    "wrong data": (("fit", "--data", "cut.safetensors", "--out", "m.safetensors"), "cannot be read as an array"),
    "wrong width": (("distances", "mnist-06:0", "--data", "narrow.npy"), r"X must be \[n, 784\].*got \(3, 5\)"),
    "too few": (
        ("fit", "--data", "narrow.npy", "--factors", "2", "--out", "m.safetensors"),
        "n_components=25 needs at least as many",
    ),
    "celeba": (("fit", "--celeba", "Male", "--out", "m.safetensors"), "must be ATTRIBUTE=0 or ATTRIBUTE=1"),
    "no folder": (("fit", "--data", "narrow.npy", "--out", "no/m.safetensors"), "no folder no"),
    "no folder for a result": (("attack", "mnist-06", "--json", "no/a.json"), "no folder no to write a.json to"),
    "broken zip": (("attack", "mnist-06", "--data", "broken.npz"), "not a readable .npz or .npy file"),
    "objects": (("attack", "mnist-06", "--data", "objects.npz"), "Object arrays cannot be loaded"),
    "not finite": (("attack", "mnist-06", "--data", "nan.npy"), "X has NaN or inf, first in row 0"),
    "labels": (("attack", "mnist-06", "--data", "labels.npz"), "y must hold the classes 0 to 1"),
    "pair as mixture": (("sample", "mnist-06", "--out", "x.npy"), "say which, as in mnist-06:0"),
    "nothing to do": (("sample", "mnist-06:0"), "nothing to write"),
    "class": (("sample", "mnist-06:7", "--out", "x.npy"), "the class of a shipped pair is 0 or 1"),
    "one model": (("distances", "mnist-06:0"), "give either a second mixture or --data"),
    "experiment pair": (("reproduce", "bayes", "--pair", "nope"), "no shipped pair 'nope'"),
    "folder for a file": (("attack", "mnist-06", "--out", "folder"), "folder is a folder; give the name of a file"),
    "pipe for a file": (("certify", "mnist-06", "--json", "pipe"), "pipe is no regular file"),
    "one file for two": (("certify", "mnist-06", "--out", "a", "--json", "folder/../a"), "two results cannot both"),
    "picture of no kind": (
        ("sample", "mnist-06:0", "--out", "x.npy", "--picture", "x"),
        r"--picture must end in .*\.png",
    ),
    "picture unknown": (
        ("certify", "mnist-06", "--samples", "2", "--picture", "x.doc"),
        "--picture must end in one of",
    ),
    "bench to nowhere": (("bench", "--json", "no/b.json"), "no folder no"),
    "distances to nowhere": (("distances", "mnist-06", "--json", "no/d.json"), "no folder no"),
    **{
        f"file for a folder, {name}": (("reproduce", name, "--out", "cut.safetensors"), "there is a file in its place")
        for name in ("bayes", "table1", "theorems", "fig3")
    },
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_1(quiet, case: str, tmp_path: Path) -> None:
    arguments, match = BAD[case]
    cut_short(tmp_path / "cut.safetensors")
    np.save(tmp_path / "narrow.npy", np.zeros((3, 5)))
    np.save(tmp_path / "nan.npy", np.full((2, 784), np.nan))
    np.savez(tmp_path / "labels.npz", X=np.zeros((2, 784)), y=[5, 6])
    np.savez(tmp_path / "objects.npz", X=np.array([object()]))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04" + 50 * b"x")
    (tmp_path / "folder").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    elif "pipe" in arguments:
        pytest.skip("no pipes here")
    status, out, err = quiet(*arguments)
    assert status == 1
    assert out == ""
    assert not (tmp_path / "x.npy").exists()
    assert re.fullmatch(rf"mfakit: .*{match}.*\n", err), err


@pytest.mark.data
def test_an_unknown_attribute_names_the_close_ones(quiet) -> None:
    status, _, err = quiet("fit", "--celeba", "Mal=1", "--out", "m.safetensors")
    assert status == 1
    assert re.fullmatch(r"mfakit: .*no attribute 'Mal'; did you mean Male\?\n", err)


def test_a_terminal_without_greek_letters_is_no_failure() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "mfakit", "attack", "mnist-06", "--samples", "2"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "fooled" in done.stdout


def test_an_unforeseen_error_is_one_line_too(quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KeyError("lost")

    monkeypatch.setattr("mfakit.datasets.shipped.available_bayes_pairs", fail)
    status, _, err = quiet("info")
    assert status == 1
    assert re.fullmatch(r"mfakit: internal error, KeyError: 'lost'; .*--debug.*\n", err)
    with pytest.raises(KeyError):
        quiet("info", "--debug")


def test_missing_data_sets_say_where_they_were_looked_for(quiet, tmp_path: Path) -> None:
    status, _, err = quiet("fit", "--mnist", "0", "--data-root", str(tmp_path), "--out", "m.safetensors")
    assert status == 1
    assert err.count("\n") == 1
    assert "train-images" in err
    assert str(tmp_path) in err


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("attack",), ("attack", "mnist-06", "--samples", "many")])
def test_bad_usage_is_status_2(quiet, arguments: tuple[str, ...]) -> None:
    status, _, err = quiet(*arguments)
    assert status == 2
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("mfakit")
    assert ": error: " in lines[0]
    assert re.fullmatch(r"help: mfakit( attack)? --help", lines[1])


HUGE = str(10**30)
OUT_OF_RANGE = [
    *[("attack", "mnist-06", "--sigma", sigma) for sigma in ("0", "-1", "nan", "inf", "1e200", "1e-200", "wide")],
    ("sample", "mnist-06:0", "--out", "x.npy", "--sigma", "1e200"),
    ("certify", "mnist-06", "--sigma", "1e200"),
    ("train", "cnn", "mnist-06", "--out", "m.safetensors", "--sigma", "1e200"),
    ("reproduce", "bayes", "--sigma", "1e200"),
    ("reproduce", "table1", "--sigma", "1e200"),
    ("reproduce", "theorems", "--sigmas", "1e200", "1e100"),
    ("sample", "mnist-06:0", "--out", "x.npy", "-n", HUGE),
    ("sample", "mnist-06:0", "--out", "x.npy", "-n", "-3"),
    ("sample", "mnist-06:0", "--out", "x.npy", "-n", "9" * 5000),
    ("attack", "mnist-06", "--samples", "0"),
    ("attack", "mnist-06", "--samples", HUGE),
    ("attack", "mnist-06", "--method", "cw", "--searches", HUGE),
    ("certify", "mnist-06", "--samples", HUGE),
    ("distances", "mnist-06", "--smallest", HUGE),
    ("distances", "mnist-06", "--bins", HUGE),
    ("bench", "--rounds", "0"),
    ("bench", "--rounds", HUGE),
    ("fit", "--data", "x.npy", "--out", "m.safetensors", "--components", HUGE),
    ("fit", "--mnist", HUGE, "--out", "m.safetensors"),
    ("fit", "--mnist", "0", "--out", "m.safetensors", "--tol", "nan"),
    ("train", "cnn", "mnist-06", "--out", "m.safetensors", "--samples", HUGE),
    ("train", "cnn", "mnist-06", "--out", "m.safetensors", "--epochs", HUGE),
    ("reproduce", "bayes", "--samples", HUGE),
    ("reproduce", "bayes", "--seed", "-1"),
    ("reproduce", "table1", "--training-samples", "5"),
    ("reproduce", "theorems", "--samples", HUGE),
    ("reproduce", "fig3", "--levels", HUGE),
    ("reproduce", "fig3", "--samples", HUGE),
]


@pytest.mark.parametrize("arguments", OUT_OF_RANGE, ids=lambda arguments: "_".join(arguments)[:60])
def test_numbers_out_of_range_are_bad_usage(quiet, arguments: tuple[str, ...], tmp_path: Path) -> None:
    status, out, err = quiet(*arguments)
    assert (status, out) == (2, "")
    message, hint = err.splitlines()
    wanted = r"(mfakit [\w ]+): error: argument -\S+: must be a (whole )?number from .*, got '.{1,40}'(\.\.\.)?"
    found = re.fullmatch(wanted, message)
    assert found
    assert hint == f"help: {found[1]} --help"
    assert list(tmp_path.iterdir()) == []


def test_numbers_at_the_ends_of_their_range(quiet) -> None:
    for sigma in ("1e-18", "1e18"):
        for command in ("attack", "certify"):
            status, out, err = quiet(command, "mnist-06", "--samples", "2", "--sigma", sigma, "--no-progress")
            assert (status, err) == (0, "")
            assert out
    status, out, _ = quiet("distances", "mnist-06", "--smallest", str(2**31 - 1))
    assert status == 0
    assert "24  " in out


def test_pictures_need_matplotlib_before_the_work(quiet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    status, out, err = quiet("sample", "mnist-06:0", "--out", "x.npy", "--picture", "x.png")
    assert (status, out) == (1, "")
    assert err == "mfakit: pictures need matplotlib: pip install 'mfakit[plots]'\n"
    assert list(tmp_path.iterdir()) == []


def test_sgd_needs_torch_before_the_data_are_read(quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    status, _, err = quiet("fit", "--data", "nothing.npy", "--solver", "sgd", "--out", "m.safetensors")
    assert status == 1
    assert "torch" in err


def test_a_traceback_only_with_debug() -> None:
    plain, debug = run("attack", "nope"), run("attack", "nope", "--debug")
    assert "Traceback" not in plain.stderr
    assert plain.returncode == 1
    assert "Traceback" in debug.stderr
    assert run("--debug", "attack", "nope").stderr.count("Traceback") == 1


def test_fit_sample_attack_go_together(quiet, tmp_path: Path) -> None:
    """A model fitted from a file, sampled, and two of them attacked as a classifier."""
    for c in (0, 1):
        np.save(tmp_path / f"{c}.npy", random_mfa(d=60, seed=c).sample(300, rng=c)[0])
        status, out, err = quiet(
            "fit", "--data", f"{c}.npy", "--components", "3", "--factors", "2", "--out", f"{c}.safetensors"
        )
        assert (status, err) == (0, "")
        assert "nats per sample" in out
    assert quiet("sample", "0.safetensors", "-n", "7", "--out", "s.npz")[0] == 0
    with np.load(tmp_path / "s.npz") as drawn:
        assert drawn["X"].shape == (7, 60)
    clf = mfakit.BayesClassifier([mfakit.MFA.load(tmp_path / f"{c}.safetensors") for c in (0, 1)])
    clf.save(tmp_path / "pair.safetensors")
    X, y = clf.sample(20, rng=0)
    np.savez(tmp_path / "data.npz", X=X, y=y)
    status, out, _ = quiet(
        "attack", "pair.safetensors", "--variant", "as-is", "--data", "data.npz", "--json", "a.json", "--out", "a.npz"
    )
    assert status == 0
    numbers = json.loads((tmp_path / "a.json").read_text())
    expected = mfakit.attacks.gradient_attack(clf, X, y)
    assert numbers["mean_l2"] == pytest.approx(expected.mean_l2)
    with np.load(tmp_path / "a.npz") as saved:
        close(saved["x_adv"], expected.x_adv, np.float32, rtol=1e-6)
    status, out, _ = quiet("distances", "0.safetensors", "1.safetensors", "--smallest", "1", "--json", "d.json")
    assert status == 0
    distances = mfakit.subspace_distances(*clf.mixtures)
    assert json.loads((tmp_path / "d.json").read_text())["smallest"] == pytest.approx([distances.min()])
    assert f"{distances.min():.4f}" in out


def test_what_a_fit_warns_of_is_printed(quiet, tmp_path: Path) -> None:
    X = random_mfa(d=6).sample(60, rng=0)[0]
    X[:, 2] = 0.5
    np.save(tmp_path / "x.npy", X)
    fit = ("fit", "--data", "x.npy", "--components", "2", "--factors", "1", "--out", "m.safetensors")
    status, out, err = quiet(*fit, "--noise", "diagonal", "--max-iter", "1")
    assert status == 0
    assert "not converged: raise --max-iter or --tol" in out
    assert err.startswith("mfakit: warning: 1 of 6 features have no variance")
    assert quiet(*fit, "--max-iter", "1")[2] == ""  # the line on stdout says that it has not converged


def test_a_fit_goes_on_from_its_checkpoint(quiet, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    X = random_mfa(d=6).sample(200, rng=0)[0]
    save_file({"X": X, "Z": X[:, :3].copy()}, tmp_path / "x.safetensors")
    fit = ("fit", "--data", "x.safetensors::X", "--components", "2", "--factors", "1", "--tol", "0")
    assert quiet(*fit, "--max-iter", "5", "--out", "whole.safetensors")[0] == 0
    kept = (*fit, "--checkpoint", "state.safetensors", "--out", "m.safetensors")
    for steps in ("2", "5"):
        status, out, _ = quiet(*kept, "--max-iter", steps)
        assert (status, f"after {steps} iterations" in out) == (0, True)
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    status, _, err = quiet(*kept, "--seed", "1")
    assert (status, err.count("\n")) == (1, 1)
    assert "state.safetensors is the checkpoint of another fit: random_state is 0 there and 1 here" in err
    status, _, err = quiet(*kept, "--solver", "sgd")
    assert (status, err) == (1, "mfakit: --checkpoint is for --solver em; leave it out\n")


def test_broken_pipes_are_silent() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mfakit", "info"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert err == ""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_is_status_130_and_one_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mfakit", "reproduce", "bayes", "--samples", "200000", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == "mfakit: interrupted\n"


def test_bench(quiet: Any, tmp_path: Path) -> None:
    status, out, err = quiet("bench", "--size", "tiny", "--rounds", "1", "--json", "bench.json", "--no-progress")
    assert (status, err) == (0, "")
    assert "log_prob" in out
    found = json.loads((tmp_path / "bench.json").read_text())
    measured = [case for case in found["cases"] if case["skipped"] is None]
    assert {case["name"] for case in measured} >= {"log_prob", "grad_log_prob", "subspace_distances"}
    assert all(case["error"] <= case["allowed"] <= 1e-2 and case["limit_seconds"] > 0 for case in measured)
    if why_missing("cuda"):
        status, _, err = quiet("bench", "--backend", "cuda", "--size", "tiny", "--no-progress")
        assert status == 1
        assert "cuda: " in err


def test_bench_on_the_emulator(device: Any, quiet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from emulator.engine import EmulatedEngine

    if not isinstance(device, EmulatedEngine):
        pytest.skip("a device is measured by benchmarks/gpu.py")
    monkeypatch.setitem(SIZES, "tiny", Size(8, 40, 4, 2))
    status, out, _ = quiet("bench", "--backend", "cuda", "--size", "tiny", "--rounds", "1", "--no-progress")
    assert status == 0
    assert "log_prob, float32" in out
    assert "log_prob, streamed" in out
