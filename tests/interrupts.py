"""Ctrl-C at random times in every long function: ``python tests/interrupts.py 2000`` counts what was damaged.

A signal handler raises KeyboardInterrupt between any two instructions of Python code. Afterwards everything must be as
it was: the error is a KeyboardInterrupt and comes soon, the settings of BLAS, OpenMP, torch, NumPy and warnings are
what they were, no thread and no file is left, an estimator has the attributes of one fit, and the next call's result is
right.
"""

from __future__ import annotations

import argparse
import collections
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from threadpoolctl import ThreadpoolController

import mfakit

# Ctrl-C is answered within this, seconds; and threads that were left to end by themselves have ended.
PATIENCE = 0.5


class Cases:
    """The calls, on problems that take some milliseconds to some tenths of a second."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.folder = folder
        means, loadings = rng.random((10, 200)), rng.standard_normal((10, 200, 4)) / 10
        self.mfa = mfakit.MFA(np.full(10, 0.1), means, loadings, 1e-2)
        self.clf = mfakit.BayesClassifier([self.mfa, self.mfa.replace(means=1 - means)])
        noisy = [m.replace(noise_variance=np.full((10, 200), 1e-2)) for m in self.clf.mixtures]
        self.diagonal = mfakit.BayesClassifier(noisy)
        self.X, self.y = self.clf.sample(8000, rng=0)
        # A file without a name, in which nothing is left; in blocks of some rows it is read ahead.
        with tempfile.TemporaryFile() as file:
            self.mapped = np.memmap(cast(Any, file), np.float32, "w+", shape=self.X.shape)
        self.mapped[:] = self.X
        self.narrow = [self.X[:, :40], self.X[:, :41]]
        self.turn = 0
        self.estimators = {
            "EM": mfakit.MixtureOfFactorAnalyzers(4, 2, tol=0.0, max_iter=6, random_state=0),
            "EM from random samples": mfakit.MixtureOfFactorAnalyzers(4, 2, tol=0.0, max_iter=6, init="random"),
            "EM of blocks": mfakit.MixtureOfFactorAnalyzers(4, 2, tol=0.0, max_iter=3, random_state=0),
            "LinearSVM": mfakit.classifiers.LinearSVM(max_iter=2000),
            "RBFSVM": mfakit.classifiers.RBFSVM(gammas=[0.01, 0.1], accuracy_threshold=0.1, n_threads=2),
        }

    def of_torch(self) -> None:
        """What needs torch."""
        import torch

        self.torch, self.batch = torch, torch.from_numpy(self.X[:64])
        self.module = mfakit.torch.MFAModule(self.mfa)
        self.logits = mfakit.torch.BayesClassifierModule(self.clf)
        settings = {"image_shape": (4, 5, 2), "width": 4, "depth": 2, "batch_size": 64, "n_threads": 1}
        self.estimators |= {
            "SGD": mfakit.MixtureOfFactorAnalyzers(2, 1, solver="sgd", max_iter=2, batch_size=500, random_state=0),
            "CNN": mfakit.classifiers.CNN(**settings, epochs=2, random_state=0),
            "TRADES": mfakit.classifiers.TRADES(**settings, epochs=1, random_state=0),
        }

    def calls(self) -> dict[str, Callable[[], Any]]:
        """Each function by name."""
        attacks, mfa, clf, X, y = mfakit.attacks, self.mfa, self.clf, self.X, self.y
        found: dict[str, Callable[[], Any]] = {
            "log_prob": lambda: mfa.log_prob(X),
            "log_prob of a memory map": lambda: mfa.log_prob(self.mapped, block_rows=400),
            "small log_prob": lambda: mfa.log_prob(X[:3]),
            "log_prob by Numba": lambda: mfa.log_prob(X[:2000], backend="numba"),
            "grad_log_prob": lambda: mfa.grad_log_prob(X[:2000]),
            "impute": lambda: mfa.impute(X[:20], X[:20] > 0.5),
            "factors": lambda: mfakit.MFA(*mfa.__getstate__().values()).log_prob(X[:2]),
            "predict": lambda: clf.predict_proba(X),
            "sample": lambda: clf.sample(2000, rng=0),
            "distances": lambda: mfakit.subspace_distances(mfa, clf.mixtures[1], reduce="row_min"),
            "point distances": lambda: mfakit.point_subspace_distances(X[:2000], mfa),
            "asymmetric": lambda: clf.asymmetric(),
            "gradient attack": lambda: attacks.gradient_attack(
                clf, X[:60], path="features", step_size=0.5, max_steps=60
            ),
            "factor attack": lambda: attacks.gradient_attack(clf.symmetric(0.1), X[:200], step_size=0.01),
            "brackets": lambda: attacks.minimal_perturbation(clf.symmetric(0.1), X[:8]),
            "brackets in the features": lambda: attacks.minimal_perturbation(self.diagonal, X[:1]),
            "theorem 1": lambda: mfakit.theory.validate_theorem1(np.zeros(5), np.ones(5), n=4),
            "save and load": self._save_and_load,
        }
        found |= {name: lambda name=name: self._fit(name) for name in self.estimators}  # type: ignore[misc]
        if hasattr(self, "module"):
            found |= {
                "MFAModule": lambda: self._gradient(self.module),
                "BayesClassifierModule": lambda: self._gradient(self.logits),
                "Carlini and Wagner": lambda: attacks.carlini_wagner_l2(
                    clf, X[:8], bounds=None, max_iterations=10, binary_search_steps=1, rescue_searches=0
                ),
                "decision of CNN": lambda: self.cnn.decision_gradient(self.narrow[0][:200]),
            }
            self.cnn = mfakit.classifiers.CNN(**self.estimators["CNN"].get_params()).fit(self.narrow[0], y)
        return found

    def _gradient(self, module: Any) -> Any:
        x = self.batch.clone().requires_grad_()
        module(x).sum().backward()
        return x.grad

    def _save_and_load(self) -> Any:
        path = self.folder / "model.safetensors"
        self.clf.save(path)
        return mfakit.BayesClassifier.load(path)

    def _fit(self, name: str) -> Any:
        """To 40 and 41 features in turn, so that attributes of two fits are seen."""
        self.turn += 1
        estimator = self.estimators[name]
        if name in ("CNN", "TRADES"):  # its images have 40 values: their dtype tells the fits apart
            return estimator.fit(self.narrow[0][:600].astype((np.float32, np.float64)[self.turn % 2]), self.y[:600])
        X = self.narrow[self.turn % 2][:3000]
        if name == "EM of blocks":
            return estimator.fit_blocks([X[:1000], X[1000:]])
        return estimator.fit(X[:800], self.y[:800]) if "SVM" in name else estimator.fit(X)


class Watch:
    """What must not change."""

    def __init__(self, cases: Cases, folder: Path) -> None:
        self.cases, self.folder = cases, folder
        self.libraries = ThreadpoolController().lib_controllers
        self.before, self.n_threads = self.settings(), threading.active_count()
        self.expected = cases.mfa.log_prob(cases.X[:50])
        self.fits = {name: self.fitted(name) for name in cases.estimators}

    def settings(self) -> dict[str, Any]:
        """All global settings that something of ours touches."""
        values: dict[str, Any] = {one.filepath: one.get_num_threads() for one in self.libraries}
        values |= {"errors": np.geterr(), "warnings": list(warnings.filters), "umask": _umask()}
        if "torch" in sys.modules:
            torch = sys.modules["torch"]
            values |= {
                "torch's threads": torch.get_num_threads(),
                "gradients": torch.is_grad_enabled(),
                "inference": torch.is_inference_mode_enabled(),
                "precision": torch.get_float32_matmul_precision(),
                "device": str(torch.empty(0).device),
            }
        return values

    def fitted(self, name: str) -> dict[str, int]:
        """Identities of the fitted attributes."""
        return {key: id(value) for key, value in vars(self.cases.estimators[name]).items() if key.endswith("_")}

    def damage(self, name: str) -> list[str]:
        """What an interrupt of the call `name` has changed."""
        deadline = time.monotonic() + PATIENCE
        while threading.active_count() > self.n_threads and time.monotonic() < deadline:
            time.sleep(0.002)
        # Only now: an eigendecomposition that was left to end by itself holds BLAS at one thread until then.
        found = [
            f"{key}: {self.before[key]} → {now}" for key, now in self.settings().items() if now != self.before[key]
        ]
        if threading.active_count() > self.n_threads:
            found.append(f"threads: {[one.name for one in threading.enumerate()]}")
        files = sorted(path.name for path in self.folder.iterdir())
        if files not in ([], ["model.safetensors"]):
            found.append(f"files: {files}")
        if files and mfakit.BayesClassifier.load(self.folder / files[0]).n_classes != 2:
            found.append("the file is another")
        if name in self.cases.estimators:
            found += self._halves(name)
        if not np.array_equal(self.cases.mfa.log_prob(self.cases.X[:50]), self.expected):
            found.append("log_prob gives another result")
        return found

    def _halves(self, name: str) -> list[str]:
        """Attributes of two fits in one estimator. Small integers and True are one object in all fits."""
        now, before = self.fitted(name), self.fits[name]
        self.fits[name] = now
        estimator, large = self.cases.estimators[name], ("mfa_", "history_", "module_", "support_vectors_", "coef_")
        kept = {now[key] == before.get(key) for key in large if key in now}
        halves = [f"half an estimator: {sorted(now)}"] if len(kept) > 1 else []
        for key in ("mfa_", "support_vectors_"):
            value = getattr(estimator, key, None)
            width = getattr(value, "n_features", None) or (None if value is None else value.shape[1])
            if width is not None and width != estimator.n_features_in_:
                halves.append(f"{key} has {width} features and n_features_in_ is {estimator.n_features_in_}")
        return halves


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def interrupt(call: Callable[[], Any], delay: float) -> tuple[str, float]:
    """Run the call and interrupt it after `delay` s: the error's name ("" for none), and how long it took to come."""
    due: list[float] = []

    def handler(*_: Any) -> None:
        raise KeyboardInterrupt

    previous, name = signal.signal(signal.SIGALRM, handler), ""
    try:
        try:
            due.append(time.perf_counter() + delay)
            signal.setitimer(signal.ITIMER_REAL, delay)
            call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException as error:
        name = type(error).__name__
    late = time.perf_counter() - due[0]
    signal.signal(signal.SIGALRM, previous)
    return name, max(late, 0.0) if name else 0.0


def _told(what: Any) -> str:
    """An error that Python could not raise: where, and in which finalizer or callback."""
    frames = traceback.extract_tb(what.exc_traceback)
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-3:]]
    return f"{what.exc_value!r} in {what.object!r} at {', '.join(places)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, help="interrupts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="functions, of those that are listed")
    parser.add_argument("--no-torch", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("mfakit").setLevel(logging.ERROR)
    unraisable: list[str] = []
    swallowed: list[str] = []  # by callbacks of the standard library's weak sets, such as that of all threads

    def not_raised(what: Any) -> None:
        of_python = getattr(what.object, "__module__", "") in ("_weakrefset", "weakref")
        (swallowed if of_python else unraisable).append(_told(what))

    sys.unraisablehook = not_raised
    rng, damaged, late, outcomes = random.Random(args.seed), 0, [], collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = Cases(folder)
        if not args.no_torch:
            cases.of_torch()
        calls = {k: call for k, call in cases.calls().items() if not args.only or k in args.only}
        seconds = {}
        for key, call in calls.items():
            for _ in range(2):  # the second is warm
                start = time.perf_counter()
                call()
                seconds[key] = time.perf_counter() - start
        watch = Watch(cases, folder)
        for i in range(args.count):
            key = list(calls)[i % len(calls)]
            error, latency = interrupt(calls[key], rng.uniform(0.0, 1.1) * seconds[key])
            outcomes[error] += 1
            late.append((latency, key))
            found = watch.damage(key) + ([f"the error was {error}"] if error not in ("", "KeyboardInterrupt") else [])
            found += [f"a lost error: {one}" for one in unraisable]
            unraisable.clear()
            if found:
                damaged += 1
                np.seterr(**watch.before["errors"])  # one fault is counted once
                print(f"interrupt {i}, {key}: {'; '.join(found)}", flush=True)
    slow = sorted(late, reverse=True)[:5]
    print(f"functions: {len(calls)}; errors: {dict(outcomes)}; latest: {[(f'{s:.3f} s', k) for s, k in slow]}")
    print(f"swallowed by Python's own weak references, which no library can prevent: {len(swallowed)}")
    print(f"damaged: {damaged} of {args.count}")
    return 1 if damaged or slow[0][0] > PATIENCE else 0


if __name__ == "__main__":
    sys.exit(main())
