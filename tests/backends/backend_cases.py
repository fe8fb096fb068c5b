"""Inputs of every operation of the table, and how to run one: what the tests of all backends share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from support import random_mfa, rtol

import mfakit
from mfakit.attacks.coordinates import FactorCoordinates
from mfakit.backends import TABLE, numpy_ops
from mfakit.mixture import evaluator, subspaces
from mfakit.mixture.factors import Factors

Array = NDArray[Any]

# n, k, d, l: several tiles, chunks and runs with remainders; one of everything; no factors; l > d; nothing.
SIZES = {
    "usual": (90, 2, 150, 5),
    "single": (1, 1, 1, 1),
    "many components": (4, 12, 9, 2),
    "no factors": (9, 3, 7, 0),
    "l > d": (6, 3, 2, 4),
    "empty": (0, 3, 7, 2),
}
# Parameters that are X or products, in the dtype of the case; everything else is float64, index or mask.
REAL = ("X", "products", "quad")
INDEX = ("rows", "components", "first", "y", "reports")
MASK = ("keep", "suspect")
# What an operation writes, beyond what is called `out`.
WRITTEN = {
    "center_rows": ("out", "sq_norms"),
    "mixture_epilogue": ("log_prob", "keep"),
    "refine": ("log_prob", "whitened_latent"),
    "log_sum_exp": ("out",),
    "softmax": ("out",),
    "accumulate_gradient": ("out",),
    "point_distances": ("sq_distances", "keep"),
    "pair_distances": ("sq_distances", "suspect"),
    "attack_step": ("X",),
    "factor_walk": ("a", "w", "alpha", "sq", "reports"),
    "accumulate_statistics": ("sum_x", "sum_xz", "sum_xx"),
}
# The small solve and the attack's state are float64 whatever X is.
FLOAT64_ONLY = ("log_sum_exp", "softmax", "pair_distances", "attack_step", "factor_walk")


class Case(NamedTuple):
    """Arguments of one operation; `scale` is the size of the terms that cancel in its float64 results."""

    arguments: dict[str, Any]
    scale: float


class Model:
    """One random mixture, samples near it, and what the driver would have computed up to each operation."""

    def __init__(self, size: tuple[int, int, int, int], dtype: Any, noise: str, seed: int) -> None:
        n, k, d, l = size
        self.rng = np.random.default_rng(seed)
        self.mfa = random_mfa(k, d, l, noise=noise, seed=seed)
        self.X = self.mfa.sample(n, rng=seed + 1, dtype=np.float64)[0].astype(dtype)
        self.factors = self.mfa.factors
        self.centered, self.norms = np.empty_like(self.X), np.empty(n)
        numpy_ops.center_rows(self.X, self.factors.center, self.centered, self.norms)

    def pairs(self) -> tuple[Array, Array]:
        """About two thirds of all pairs, sorted by component."""
        return evaluator.sorted_pairs(self.rng.uniform(size=(len(self.X), self.mfa.n_components)) < 0.66)

    def products(self, factors: Factors) -> Array:
        return self.centered @ factors.panel(self.centered.dtype)


def _center_rows(model: Model) -> Case:
    return Case({"X": model.X, "center": model.factors.center}, 1.0)


def _mixture_epilogue(model: Model) -> Case:
    f, dtype = model.factors, model.X.dtype
    quad = None if f.is_isotropic else (model.centered**2) @ f.thin_panel(dtype)
    arguments = {
        "products": model.products(f), "quad": quad, "sq_norms": model.norms, "inv_noise": f.inv_noise,
        "shift": f.shift, "mean_norm": f.mean_norm, "log_norm": f.log_norm, "slack": 1e-6,
    }  # fmt: skip
    return Case(arguments, float((model.norms.max(initial=0.0) + 1) * f.inv_noise.max() + f.mean_norm.max()))


def _refine(model: Model) -> Case:
    f, (rows, components) = model.factors, model.pairs()
    arguments = {
        "X": model.X, "rows": rows, "components": components, "means": f.means, "whitened": f.whitened,
        "latent_map": f.latent_map, "noise": f.noise, "log_norm": f.log_norm,
    }  # fmt: skip
    return Case(arguments, 1.0)


def _log_sum_exp(model: Model) -> Case:
    log_prob = model.rng.normal(scale=300.0, size=(len(model.X), model.mfa.n_components))
    log_prob[:1] = -np.inf
    log_prob[1:2, 0] = -np.inf
    return Case({"log_prob": log_prob}, 1.0)


def _softmax(model: Model) -> Case:
    log_prob = _log_sum_exp(model).arguments["log_prob"]
    log_prob[2:3] -= 1e18  # where log_sum_exp is rounded by more than log k
    return Case({"log_prob": log_prob}, 1.0)


def _accumulate_gradient(model: Model) -> Case:
    f, (rows, components) = model.factors, model.pairs()
    y = np.einsum("mld,md->ml", f.whitened[components], model.X[rows] - f.means[components])
    weights = model.rng.uniform(-1.0, 1.0, len(rows))  # the attack takes differences of gradients
    arguments = {
        "X": model.X, "rows": rows, "components": components, "weights": weights, "whitened_latent": y,
        "means": f.means, "whitened": f.whitened, "noise": f.noise,
    }  # fmt: skip
    return Case(arguments, float(f.inv_noise.max() * (np.abs(model.X).max(initial=0.0) + np.abs(f.means).max())))


def _point_distances(model: Model) -> Case:
    f = model.mfa.subspaces
    centered, norms = np.empty_like(model.X), np.empty(len(model.X))
    numpy_ops.center_rows(model.X, f.center, centered, norms)
    arguments = {
        "products": centered @ f.panel(centered.dtype), "sq_norms": norms, "shift": f.shift, "mean_norm": f.mean_norm,
        "slack": 1e-6, "tolerance": 1e-5,
    }  # fmt: skip
    return Case(arguments, float(norms.max(initial=0.0) + f.mean_norm.max()))


def _pair_distances(model: Model) -> Case:
    n, (k, l, d) = len(model.X), model.factors.shape
    # One factor fewer on the other side, so that l0 and l1 cannot be confused; and as many components as samples.
    other = random_mfa(max(n, 1), d, max(l - 1, 0), seed=int(model.rng.integers(2**31)))
    center = model.mfa.subspaces.center
    left, shift0, norm0 = subspaces._panel_rows(model.mfa.subspaces, slice(0, k), center)
    right, shift1, norm1 = subspaces._panel_rows(other.subspaces, slice(0, n), center)
    products = np.ascontiguousarray((left @ right.T).reshape(k, l + 1, n, shift1.shape[1] + 1))
    arguments = {"products": products, "shift0": shift0, "norm0": norm0, "shift1": shift1, "norm1": norm1}
    # 1e4: what 1/sin² of the smallest angle may be for a pair that is not suspect.
    return Case(arguments, 1e4 * float(norm0.max() + norm1.max(initial=0.0)))


def _attack_step(model: Model) -> Case:
    direction = model.rng.normal(size=model.X.shape)
    direction[1:2] = 0.0
    direction[2:3, 0] = np.nan
    direction[3:4, 1:2] = np.inf
    return Case({"X": model.X.astype(np.float64), "direction": direction, "step_size": 0.7}, 1.0)


def _factor_walk(model: Model) -> Case:
    # Three classes, the model's mixture among them; a sixth of the samples has the label of another class.
    k, d, l = model.mfa.loadings.shape
    # Subspaces that fill the space have vanishing gradients and no unique w: all backends are right and differ there.
    classes = [random_mfa(k, d, min(l, d // 2), seed=seed, spread=0.5) for seed in (11, 12, 13)]
    clf = mfakit.BayesClassifier(classes)
    X, y = clf.sample(len(model.X), rng=4, dtype=np.float64)
    y[::6] = (y[::6] + 1) % 3
    q = FactorCoordinates.of(clf)
    a, sq = q.project(X)
    names = ("gram", "variance", "gain", "spread", "log_const", "first")
    arguments = {
        **dict(zip(names, q.kernel_arguments, strict=True)), "y": y, "step_size": 0.3, "max_steps": 40, "frozen": False,
        "bisections": 20, "a": a, "sq": sq,
    }  # fmt: skip
    # Of some tens of steps, each of which rounds what cancels in ‖v‖².
    return Case(arguments, 1e4 * float(sq.max(initial=1.0)))


def _accumulate_statistics(model: Model) -> Case:
    rows, components = model.pairs()
    arguments = {
        "X": model.X, "rows": rows, "components": components, "weights": model.rng.uniform(0.1, 2.0, len(rows)),
        "latents": model.rng.normal(size=(len(rows), model.mfa.n_factors)), "means": model.factors.means,
    }  # fmt: skip
    spread = np.abs(model.X).max(initial=1.0) + np.abs(model.factors.means).max()
    return Case(arguments, float(len(rows) * spread**2))


def outputs_of(operation: str, model: Model, arguments: dict[str, Any]) -> dict[str, Array]:
    """New output arrays. What an operation adds to is not zero, what it overwrites is NaN."""
    n, (k, l, d), m = len(model.X), model.factors.shape, len(arguments.get("rows", ()))
    dtype, nan = model.X.dtype, np.nan
    if operation == "center_rows":
        return {"out": np.full((n, d), nan, dtype), "sq_norms": np.full(n, nan)}
    if operation == "mixture_epilogue":
        return {"log_prob": np.full((n, k), nan), "keep": np.full((n, k), 7, np.uint8)}
    if operation == "refine":
        return {"log_prob": np.full(m, nan), "whitened_latent": np.full((m, l), nan)}
    if operation == "log_sum_exp":
        return {"out": np.full(n, nan)}
    if operation == "softmax":
        return {"out": np.full((n, k), nan)}
    if operation == "accumulate_gradient":
        return {"out": np.ones((n, d), dtype)}
    if operation == "point_distances":
        return {"sq_distances": np.full((n, k), nan), "keep": np.full((n, k), 7, np.uint8)}
    if operation == "pair_distances":
        return {"sq_distances": np.full((k, n), nan), "suspect": np.full((k, n), 7, np.uint8)}
    if operation == "attack_step":
        return {"X": arguments["X"].copy()}
    if operation == "factor_walk":
        a, sq = arguments["a"].copy(), arguments["sq"].copy()
        return {"a": a, "w": np.zeros_like(a), "alpha": np.ones(n), "sq": sq, "reports": np.full((n, 5), -7)}
    return {"sum_x": np.ones((k, d)), "sum_xz": np.ones((k, l, d)), "sum_xx": np.ones((k, d))}


CASES: dict[str, Callable[[Model], Case]] = {name: globals()[f"_{name}"] for name in TABLE}


def run(ops: Any, operation: str, model: Model, case: Case, n_threads: int = 1, engine: Any = None) -> dict[str, Array]:
    """Call an operation on fresh outputs; inputs are read-only: a write to one raises or is seen in its bytes.

    With an `engine` the arrays are copied to its device before and back after.
    """
    outputs = outputs_of(operation, model, case.arguments)
    inputs = {name: value for name, value in case.arguments.items() if name not in outputs}
    arrays = [value for value in inputs.values() if isinstance(value, np.ndarray)]
    before = [array.tobytes() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    if engine is None:
        getattr(ops, operation)(**{**inputs, **outputs}, n_threads=n_threads)
    else:
        there = {
            name: engine.asarray(value) if isinstance(value, np.ndarray) else value
            for name, value in {**inputs, **outputs}.items()
        }
        getattr(ops, operation)(**there, n_threads=n_threads)
        outputs = {name: engine.to_host(there[name]) for name in outputs}
        for name, array in inputs.items():
            if isinstance(array, np.ndarray):
                assert engine.to_host(there[name]).tobytes() == array.tobytes(), f"{operation} changed {name}"
    assert [array.tobytes() for array in arrays] == before, f"{operation} changed an input"
    return outputs


def combinations() -> list[Any]:
    found = []
    for operation in TABLE:
        for dtype in ("float64",) if operation in FLOAT64_ONLY else ("float32", "float64"):
            for noise in ("isotropic",) if operation == "factor_walk" else ("isotropic", "diagonal"):
                found.append(pytest.param(operation, dtype, noise, id=f"{operation}-{dtype}-{noise}"))
    return found


def assert_equal(operation: str, got: dict[str, Array], expected: dict[str, Array], case: Case, d: int) -> None:
    """Equal to the tolerance of either's dtype: both accumulate in float64 from the same numbers, so only the order of
    sums differs: a few roundings of what cancels. An output in X's dtype is rounded to that in the end.
    """
    for name in WRITTEN[operation]:
        assert got[name].dtype == expected[name].dtype
        exact = expected[name].dtype.kind != "f"
        tolerance = 0.0 if exact else rtol(expected[name].dtype, d=d)
        atol = 0.0 if exact else 4.0 * float(np.finfo(expected[name].dtype).eps) * case.scale
        np.testing.assert_allclose(got[name], expected[name], rtol=tolerance, atol=atol, err_msg=name)
