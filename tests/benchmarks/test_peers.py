"""Comparisons with other libraries: equal where they say so, and what differs, fails or is missing is not timed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import close, parameters, random_mfa

pytest.importorskip("torch")

import torch
from benchmarks import __main__ as benchmarks
from benchmarks import peers
from benchmarks.peers import attacks, density, em
from benchmarks.peers.comparison import Bound, Comparison, Side
from benchmarks.peers.libraries import SKLEARN, TORCH, TORCH_MFA, Library

from mfakit import _reference, bench

TINY = {"n": 60, "d": 20, "k": 3, "l": 2}
REQUIRED = (TORCH, SKLEARN)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: Any) -> None:
    """Of attacks and fits by libraries that are here by chance."""
    monkeypatch.setattr(attacks.Plane, "search", attacks.Search(4, 100, 0.02, 0.1))
    monkeypatch.setattr(em, "MOST_STEPS", 5)


def tiny(comparison: Comparison) -> Comparison:
    size = {letter: TINY[letter] if value else 0 for letter, value in comparison.size.items()}
    return replace(comparison, size=size, rounds=1, slow=False)


def measured(*comparisons: Comparison, **checkouts: Path) -> bench.Report:
    folders = {name.replace("_", "-"): folder for name, folder in checkouts.items()}
    cases = [comparison.case(folders) for comparison in comparisons]
    return bench.run_cases("peers", cases, bench.Machine("auto", rest=0.0), rounds=1, progress=False)


def of(comparisons: Any, peer: Library, task: str) -> Comparison:
    return tiny(next(c for c in comparisons if c.peer == peer and c.task == task))


def unlike() -> list[Comparison]:
    """One of each kind: those that differ in size alone are one."""
    kinds = {(c.task, c.peer.name): tiny(c) for c in peers.COMPARISONS if c.inputs is not attacks.Digits}
    return list(kinds.values())


@pytest.mark.parametrize("comparison", unlike(), ids=lambda c: f"{c.task} beside {c.peer.name}")
def test_a_comparison_that_can_be_made_here_is_of_equals(comparison: Comparison) -> None:
    machine, case = bench.Machine("auto", rest=0.0), comparison.case({})
    try:
        comparison.peer.load({})
    except bench.Skipped as reason:
        if comparison.peer in REQUIRED:
            raise
        pytest.skip(str(reason))
    work = case.make(case, machine)
    assert work.facts["equal"]
    assert work.error <= case.allowed
    assert list(work.beside) == [comparison.peer.name]
    assert work.facts["error"]["mfakit"] < work.facts["equal_within"] or work.facts["error"]["mfakit"] <= case.allowed


def test_what_must_run_is_among_the_comparisons() -> None:
    assert set(REQUIRED) | {attacks.FOOLBOX, attacks.ADV_LIB} < {c.peer for c in peers.COMPARISONS}
    main = {"n": 1024, "d": 12_288, "k": 100, "l": 10}
    assert any(c.peer == TORCH and c.size == main for c in density.COMPARISONS)


@pytest.mark.parametrize("off", [0.5, float("nan")])
def test_what_differs_is_reported_and_not_timed(off: float) -> None:
    comparison, calls = of(density.COMPARISONS, TORCH, "log_prob"), []

    def wrong(inputs: Any, module: Any) -> Side:
        side = density.torch_distributions(inputs, module)
        return replace(side, timed=bench.Timed(lambda: calls.append(1)), result=side.result + np.float32(off))

    report = measured(replace(comparison, theirs=wrong), comparison)
    differs, equal = report.cases
    assert not calls
    assert list(differs.timings) == [differs.name]
    assert not differs.facts["equal"]
    assert equal.ratios[TORCH.name] > 0
    assert [row[-1].endswith("not timed") for row in peers.table(report).rows] == [True, False]


def test_what_is_kept_of_a_run(tmp_path: Path) -> None:
    report = measured(of(density.COMPARISONS, TORCH, "log_prob"), of(density.COMPARISONS, TORCH_MFA, "log_prob"))
    peers.draw(report, tmp_path)
    text = (tmp_path / "peers.md").read_text(encoding="utf-8")
    assert "| log_prob | n=60, d=20, k=3, l=2 | torch.distributions" in text
    assert "log_prob beside torch-mfa: not measured, no checkout" in text
    assert (tmp_path / "peers.png").stat().st_size > 5000
    assert str(Path(peers.__file__).parents[2]) not in text + json.dumps(report.to_json())


def test_a_wrong_result_of_ours_is_an_error() -> None:
    comparison = of(density.COMPARISONS, TORCH, "log_prob")
    with pytest.raises(AssertionError, match=r"log_prob beside torch\.distributions must be within 0 of the oracle"):
        measured(replace(comparison, right=Bound(0.0, "nothing is")))


def test_a_library_that_is_missing_or_fails_is_named_with_the_reason(tmp_path: Path) -> None:
    comparison = of(density.COMPARISONS, TORCH, "log_prob")

    def fails(inputs: Any, module: Any) -> Side:
        raise TypeError("no such argument in /some/folder/file.py\nand more")

    (tmp_path / "peer_that_breaks.py").write_text("import a_module_that_is_not_there", encoding="utf-8")
    broken = Library("torch-mfa", "peer_that_breaks", None)
    report = measured(
        replace(comparison, theirs=fails), replace(comparison, peer=Library("other", "no_such_module", "other-lib")),
        replace(comparison, peer=TORCH_MFA), replace(comparison, peer=broken), torch_mfa=tmp_path,
    )  # fmt: skip
    reasons = [case.skipped for case in report.cases]
    assert reasons == [
        f"torch.distributions {torch.__version__} raised TypeError: no such argument in file.py",
        "other is not installed: pip install other-lib",
        "torch-mfa is not installed: its checkout has no module mfa",
        "torch-mfa cannot be imported: No module named 'a_module_that_is_not_there'",
    ]
    assert peers.table(report).rows == ()
    assert all(str(reason) in peers.markdown(report) for reason in reasons)
    with pytest.raises(bench.Skipped, match="no checkout of torch-mfa is named: --checkout torch-mfa=FOLDER"):
        TORCH_MFA.load({})
    assert str(tmp_path) not in sys.path


@pytest.fixture
def adds_pi(tmp_path: Path) -> Iterator[Path]:
    """A checkout whose class has torch-mfa's attributes, and adds π where log π belongs."""
    (tmp_path / "mfa.py").write_text(
        "import torch\n"
        "class MFA(torch.nn.Module):\n"
        "    def __init__(self, k, d, l):\n"
        "        super().__init__()\n"
        "        shapes = {'MU': (k, d), 'A': (k, d, l), 'log_D': (k, d), 'PI_logits': (k,)}\n"
        "        for name, shape in shapes.items():\n"
        "            setattr(self, name, torch.nn.Parameter(torch.zeros(shape), requires_grad=False))\n"
        "    def log_prob(self, X):\n"
        "        S = self.A @ self.A.mT + torch.diag_embed(self.log_D.exp())\n"
        "        normal = torch.distributions.MultivariateNormal(self.MU.double(), S.double())\n"
        "        weights = torch.softmax(self.PI_logits, 0)\n"
        "        return torch.logsumexp(normal.log_prob(X[:, None].double()) + weights, 1).float()\n",
        encoding="utf-8",
    )
    yield tmp_path
    sys.modules.pop("mfa", None)


def test_weights_where_their_logarithms_belong_are_told_by_numbers(adds_pi: Path) -> None:
    machine = bench.Machine("auto", rest=0.0)
    tasks = (of(density.COMPARISONS, TORCH_MFA, f"log_prob{more}") for more in ("", ", unequal weights"))
    cases = [comparison.case({"torch-mfa": adds_pi}) for comparison in tasks]
    same, other = (case.make(case, machine) for case in cases)
    constant = 1 / 3 + np.log(3)
    assert same.facts["equal"]
    assert same.facts["error"]["torch-mfa"] == pytest.approx(constant, abs=1e-3)
    assert same.facts["peer_without_it"] < 1e-3
    assert not other.facts["equal"]
    # Components of 1/6, 1/3 and 1/2: the first is off by most.
    assert other.facts["error"]["torch-mfa"] == pytest.approx(1 / 6 + np.log(6), abs=1e-3)


def test_the_oracle_of_many_features_is_the_dense_one() -> None:
    for noise in ("isotropic", "diagonal"):
        mfa = random_mfa(3, 30, 4, noise=noise, sigma=0.01)
        X = mfa.sample(20, rng=0, dtype=np.float64)[0]
        expected = _reference.log_prob(X, *parameters(mfa))
        close(density.projected_log_prob(X, *parameters(mfa)), expected, "float64")


def test_checkouts_are_folders_of_known_libraries(tmp_path: Path) -> None:
    assert benchmarks.checkout(f"torch-mfa={tmp_path}") == ("torch-mfa", tmp_path)
    for text in (f"foolbox={tmp_path}", f"VAMM={tmp_path / 'none'}", "VAMM"):
        with pytest.raises(argparse.ArgumentTypeError, match="NAME=FOLDER with a name of torch-mfa, VAMM"):
            benchmarks.checkout(text)
