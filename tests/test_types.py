"""A user's file meets the types: what is right passes mypy with the type that it says, and each mistake is found."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

import mfakit
from mfakit._arrays.options import ArrayOptions, Options, RunOptions
from mfakit.attacks.minimal.settings import MinimalOptions, Settings

# Lines that end in "# no: CODE" are mistakes, which mypy reports by that code; the others are right.
USERS_FILE = """
from typing import Any
import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type
import mfakit
from mfakit import theory
from mfakit.attacks import carlini_wagner_l2, gradient_attack, minimal_perturbation

A = NDArray[Any]
X = np.zeros((2, 3))
anything: Any = X
mfa = mfakit.MFA([1.0], [[0, 0, 0]], np.ones((1, 3, 1)), 0.1)
clf = mfakit.BayesClassifier([mfa, mfa.replace(means=[[1, 0, 0]])])

assert_type(mfa.log_prob(X, method="pruned", backend="numba", n_threads=None), A)
assert_type(mfa.log_prob([[0.0, 0.0, 0.0]], out=X), Any)
assert_type(mfa.log_prob(anything), Any)
assert_type(mfa.latent(X, precision="float64"), tuple[A, A, A])
assert_type(mfa.impute(X, X > 0, check_finite=False), A)
assert_type(clf.predict(X, block_rows=100), A)
assert_type(clf.predict_proba(X), A)
assert_type(clf.score(X, [0, 1], backend="cuda"), float)
assert_type(mfakit.point_subspace_distances(X, mfa, precision=None), A)
assert_type(mfakit.subspace_distances(mfa, mfa), Any)
assert_type(mfakit.subspace_distances(mfa, mfa, reduce="smallest", n_smallest=3), tuple[Any, Any])
assert_type(gradient_attack(clf, X, path="closed-form", direction="log-ratio").l2, A)
assert_type(minimal_perturbation(clf, X, path="factor", n_threads=2)[:2], mfakit.attacks.MinimalResult)
carlini_wagner_l2(clf, X, bounds="data", learning_rate="auto", preset="paper")
theory.validate_theorem2(clf, path="features", block_rows=7)
theory.validate_lemma_a2(metric="linf", bumps=2)
estimator = mfakit.MixtureOfFactorAnalyzers(2, noise="diagonal", init=mfa, solver="sgd")
assert_type(estimator.fit(X), mfakit.MixtureOfFactorAnalyzers)
assert_type(mfakit.classifiers.CNN(device="cpu").fit(X, [0, 1]), mfakit.classifiers.CNN)

mfa.log_prob(X, metod="dense")  # no: call-overload
mfa.log_prob(X, method="fast")  # no: call-overload
mfa.log_prob(X, precision="float16")  # no: call-overload
mfa.responsibilities(X, backend="gpu")  # no: call-overload
mfa.replace(mean=X)  # no: call-arg
clf.predict(X, out=X)  # no: call-overload
clf.class_log_prob(X, n_thread=1)  # no: call-arg
clf.score(X, [0, 1], out=X)  # no: call-arg
clf.replace(mixture=[mfa])  # no: call-arg
mfakit.subspace_distances(mfa, mfa, reduce="mean")  # no: call-overload
gradient_attack(clf, X, path="direct")  # no: arg-type
gradient_attack(clf, X, out=X)  # no: call-arg
minimal_perturbation(clf, X, path="closed-form")  # no: arg-type
carlini_wagner_l2(clf, X, preset="papers")  # no: arg-type
theory.validate_theorem1([0.0], [1.0], step_size=1.0)  # no: call-arg
theory.validate_lemma_a2(metric="l2")  # no: arg-type
theory.theorem2_radius(clf, method="dense")  # no: call-arg
mfakit.MixtureOfFactorAnalyzers(noise="spherical")  # no: arg-type
mfakit.MFAClassifier(init="k-means")  # no: arg-type
mfakit.classifiers.TRADES(norm="l1")  # no: arg-type
mfakit.classifiers.RBFSVM(gamma="auto")  # no: arg-type
"""


def test_mypy_finds_the_mistakes_in_a_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("mypy.api")
    users, settings, home = tmp_path / "users.py", tmp_path / "mypy.ini", Path(mfakit.__file__).parents[1]
    users.write_text(USERS_FILE, "utf-8")
    # torch's own types take half a minute to read; its overloads are those of arrays in another word.
    skipped = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in ("torch", "matplotlib", "PIL"))
    settings.write_text(f"[mypy]\nignore_missing_imports = True\n{skipped}", "utf-8")
    if home.name != "site-packages":  # where mypy finds it by py.typed
        monkeypatch.setenv("MYPYPATH", str(home))
    how = ["--config-file", str(settings), "--cache-dir", str(tmp_path), "--follow-imports", "silent"]
    report, failure, _ = api.run([*how, str(users)])
    lines = {i: line.rpartition("# no: ")[2] for i, line in enumerate(USERS_FILE.split("\n"), 1) if "# no: " in line}
    found = {int(number): code for number, code in re.findall(r"users\.py:(\d+): error: .*\[([\w-]+)\]", report)}
    assert (failure, found) == ("", lines), report


def _declared(typed_dict: Any) -> dict[str, str]:
    return {name: kind.__forward_arg__ for name, kind in typed_dict.__annotations__.items()}


def test_the_typed_keywords_are_the_settings() -> None:
    """A field that only one of them has, or of another type, would be an option that no type checker lets through."""
    assert _declared(ArrayOptions) == Options.__annotations__
    # Settings keep bounds as numbers, whatever array they were; targets are of the samples, and no setting.
    taken = {**Settings.__annotations__, "bounds": "Any", "target": "Any"}
    assert _declared(MinimalOptions) == {**_declared(RunOptions), **taken}


def _words(annotation: Any) -> set[str]:
    """The words of all Literals in an annotation."""
    inner = get_args(annotation)
    return {part for part in inner if isinstance(part, str)} | {word for part in inner for word in _words(part)}


def _public() -> Iterator[tuple[str, Any]]:
    for room in ("attacks", "classifiers", "datasets", "experiments", "fit", "theory", "torch"):
        module = importlib.import_module(f"mfakit.{room}")
        yield from ((f"{room}.{name}", getattr(module, name)) for name in module.__all__)
    yield from ((name, getattr(mfakit, name)) for name in ("MFA", "BayesClassifier", "subspace_distances"))
    yield "Options", Options


def test_the_choices_that_are_documented_are_those_of_the_types() -> None:
    pytest.importorskip("torch")
    wrong, seen = [], 0
    for name, thing in _public():
        if not (inspect.isfunction(thing) or inspect.isclass(thing)):
            continue
        parameters = inspect.signature(thing).parameters
        for parameter, choices in re.findall(r"^ +(\w+) : .*?\{(.*)\}", thing.__doc__ or "", re.MULTILINE):
            documented = set(re.findall(r'"([^"]+)"', choices))
            if parameter in parameters and documented and parameter != "device":  # of these torch knows more
                scope = vars(sys.modules[thing.__module__])
                typed, seen = _words(eval(parameters[parameter].annotation, scope)), seen + 1
                wrong += [] if typed == documented else [f"{name}({parameter}): {documented}, typed {typed}"]
    assert wrong == []
    assert seen >= 20
