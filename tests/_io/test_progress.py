"""Progress bars and the command line where there is a terminal, none, or no standard streams at all."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import blobs, random_mfa

import mfakit
from mfakit._io.progress import is_watched, open_bar
from mfakit.experiments import reproduce


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "progress", "shown"),
    [
        (Terminal, None, True),
        (Terminal, False, False),
        (io.StringIO, None, False),
        (io.StringIO, True, True),
    ],
)
def test_a_bar_is_shown_on_a_terminal_or_when_asked(
    stream: Any, progress: bool | None, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(open_bar(progress, [1, 2, 3], desc="counting")) == [1, 2, 3]
    assert ("counting" in sys.stderr.getvalue()) is shown


@pytest.mark.parametrize(("progress", "shown"), [(None, True), (False, False), (True, True)])
@pytest.mark.parametrize("widgets", [True, False])
def test_a_bar_is_shown_in_a_notebook(
    progress: bool | None, shown: bool, widgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its standard error is no terminal; with ipywidgets tqdm draws a widget, which a test has no browser for."""
    auto = types.ModuleType("tqdm.auto")
    drawn: list[Any] = []
    auto.tqdm = lambda steps, **settings: drawn.append(settings) or iter(steps)  # type: ignore[attr-defined]
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "tqdm.auto", auto)
    monkeypatch.setattr("mfakit._io.progress.find_spec", lambda name: object() if widgets else None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(open_bar(progress, [1, 2, 3], desc="counting")) == [1, 2, 3]
    assert drawn == ([{"desc": "counting"}] if shown and widgets else [])
    assert ("counting" in sys.stderr.getvalue()) is (shown and not widgets)
    kernel.get_ipython = lambda: SimpleNamespace()  # IPython in a terminal, with its output in a file
    assert not is_watched()


def test_a_bar_that_is_not_shown_leaves_nothing_to_finalize() -> None:
    """Python loses a KeyboardInterrupt that comes while it runs a finalizer or a weak set's callback, as tqdm has."""
    bar = open_bar(False, total=3)
    assert not hasattr(type(bar), "__del__")
    with bar:
        bar.update(2)
    assert (bar.n, bar.total) == (2, 3)


def closed() -> io.StringIO:
    stream = Terminal()
    stream.close()
    return stream


@pytest.mark.parametrize("progress", [None, True, False])
@pytest.mark.parametrize("stream", [lambda: None, closed])
def test_without_standard_error_there_is_no_bar(
    stream: Any, progress: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(open_bar(progress, range(3))) == [0, 1, 2]
    with open_bar(progress, total=5, desc="a", unit="b", leave=False) as bar:
        bar.set_description("c")
        bar.set_postfix_str("d", refresh=False)
        bar.update(2)
        assert (bar.n, bar.total) in ((2, 5), (0, 5))  # a bar that is off counts nothing


def test_long_functions_need_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    mfa = random_mfa()
    clf = mfakit.BayesClassifier([mfa, random_mfa(seed=1)]).symmetric(0.3)
    X, y = blobs()
    calls: list[Any] = [
        lambda: mfakit.subspace_distances(mfa, mfa, progress=True),
        lambda: mfakit.attacks.gradient_attack(clf, *clf.sample(5, rng=0), progress=True),
        lambda: mfakit.attacks.minimal_perturbation(clf, *clf.sample(5, rng=0), path="features", progress=True),
        lambda: mfakit.MixtureOfFactorAnalyzers(2, 1, tol=1.0, progress=True).fit(X),
        lambda: mfakit.classifiers.RBFSVM(
            gamma="largest-accurate", gammas=[0.1], accuracy_threshold=0, progress=True
        ).fit(X, y),
        lambda: reproduce("bayes", pairs=("mnist-06",), n=2, progress=True),
    ]
    monkeypatch.setattr(sys, "stderr", None)
    for call in calls:
        call()


def test_networks_need_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    X, y = blobs(30, 16)
    monkeypatch.setattr(sys, "stderr", None)
    clf = mfakit.classifiers.CNN(width=2, depth=1, epochs=1, device="cpu", progress=True).fit(X.astype(np.float32), y)
    mfakit.attacks.carlini_wagner_l2(clf, X[:2], max_iterations=2, binary_search_steps=1, progress=True)


def closed_streams(*arguments: str, streams: str) -> subprocess.CompletedProcess[str]:
    """The command with some of its streams closed, as the shell's ``>&-`` does."""
    words = [sys.executable, "-m", "mfakit", *arguments]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", *words], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_the_command_line_needs_no_standard_streams(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    done = closed_streams("attack", "mnist-06", "--samples", "2", "--json", str(path), streams=">&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(path.read_text())["n"] == 2
    done = closed_streams("info", streams=">&-")
    assert (done.returncode, done.stderr) == (0, "")
    done = closed_streams("attack", "nope", streams="2>&-")
    assert (done.returncode, done.stdout) == (1, "")
    done = closed_streams("attack", streams="2>&-")
    assert (done.returncode, done.stdout) == (2, "")
