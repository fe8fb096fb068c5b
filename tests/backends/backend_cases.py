"""Inputs of every operation of the table, and how to run one: what the tests of all backends share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from support import random_mfa, rtol

import mfakit
from mfakit.attacks.coordinates import FactorCoordinates
from mfakit.backends import numpy_ops, operations
from mfakit.backends.binding import written
from mfakit.backends.host_arrays import HOST
from mfakit.backends.operands import (
    Coarse,
    Coordinates,
    Pairs,
    Parameters,
    Points,
    Projected,
    Projection,
    Sums,
    WalkSettings,
    WeightedPairs,
)
from mfakit.mixture.factors import Factors
from mfakit.mixture.pruning import Pruner, project
from mfakit.mixture.scores import sorted_pairs
from mfakit.mixture.subspaces.tiles import side_rows

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
# Arrays that are X or products, in the dtype of the case; everything else is float64, index or mask.
REAL = ("X", "products", "quad", "out", "above")
INDEX = ("rows", "components", "component", "offsets", "first", "y", "reports", "best")
MASK = ("keep", "suspect")
# The small solve and the attack's state are float64 whatever X is.
ISOTROPIC_ONLY = ("bound_components", "factor_walk", "survivors")
FLOAT64_ONLY = (
    "log_sum_exp", "log_sum_exp_candidates", "softmax", "pair_distances", "attack_step", "factor_walk",
)  # fmt: skip


def each_array(function: Callable[[Any], Any], value: Any) -> Any:
    """`value` with the function applied to the array that it is, or to those in it."""
    if isinstance(value, tuple):
        return value._make(each_array(function, field) for field in value)  # type: ignore[attr-defined]
    return function(value) if isinstance(value, np.ndarray) or hasattr(value, "__array_ufunc__") else value


def arrays_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arrays among arguments, those in structs under names such as "pairs.rows"."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, tuple):
            inside = arrays_of(value._asdict())  # type: ignore[attr-defined]
            found |= {f"{name}.{field}": array for field, array in inside.items()}
        else:
            each_array(partial(found.__setitem__, name), value)
    return found


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

    def pairs(self) -> Pairs:
        """About two thirds of all pairs, sorted by component."""
        return sorted_pairs(self.rng.uniform(size=(len(self.X), self.mfa.n_components)) < 0.66)

    def coarse(self, factors: Factors, centered: Array, norms: Array) -> Coarse:
        """What the driver computes of centred samples."""
        dtype = centered.dtype
        quad = np.empty((len(norms), 0), dtype) if factors.is_isotropic else centered**2 @ factors.thin_panel(dtype)
        return Coarse(centered @ factors.panel(dtype), quad, norms, 1e-6)


def _center_rows(model: Model) -> Case:
    return Case({"X": model.X, "center": model.factors.center}, 1.0)


def _mixture_epilogue(model: Model) -> Case:
    f = model.factors
    coarse = model.coarse(f, model.centered, model.norms)
    scale = float((model.norms.max(initial=0.0) + 1) * f.inv_noise.max() + f.mean_norm.max())
    return Case({"coarse": coarse, "mixture": f.mixture}, scale)


_mark_candidates = _mixture_epilogue


def _list_candidates(model: Model) -> Case:
    case = _mark_candidates(model)
    marks, offsets = numpy_ops.mark_candidates(**case.arguments)
    return Case({"marks": marks, "offsets": offsets, "count": int(offsets[-1]), "k": model.mfa.n_components}, 1.0)


def _refine(model: Model) -> Case:
    return Case({"X": model.X, "pairs": model.pairs(), "mixture": model.factors.mixture}, 1.0)


def _log_sum_exp(model: Model) -> Case:
    log_prob = model.rng.normal(scale=300.0, size=(len(model.X), model.mfa.n_components))
    log_prob[:1] = -np.inf
    log_prob[1:2, 0] = -np.inf
    return Case({"log_prob": log_prob}, 1.0)


def _softmax(model: Model) -> Case:
    log_prob = _log_sum_exp(model).arguments["log_prob"]
    log_prob[2:3] -= 1e18  # where log_sum_exp is rounded by more than log k
    return Case({"log_prob": log_prob}, 1.0)


def _log_sum_exp_candidates(model: Model) -> Case:
    edges = np.cumsum([0, *model.rng.integers(0, 5, len(model.X))])
    return Case({"values": model.rng.normal(scale=300.0, size=edges[-1]), "offsets": edges.astype(np.int64)}, 1.0)


def _accumulate_gradient(model: Model) -> Case:
    f, (rows, components) = model.factors, model.pairs()
    y = np.einsum("mld,md->ml", f.whitened[components], model.X[rows] - f.means[components])
    weights = model.rng.uniform(-1.0, 1.0, len(rows))  # the attack takes differences of gradients
    arguments = {"X": model.X, "pairs": WeightedPairs(rows, components, weights, y), "mixture": f.mixture}
    return Case(arguments, float(f.inv_noise.max() * (np.abs(model.X).max(initial=0.0) + np.abs(f.means).max())))


def _point_distances(model: Model) -> Case:
    f = model.mfa.subspaces
    centered, norms = np.empty_like(model.X), np.empty(len(model.X))
    numpy_ops.center_rows(model.X, f.center, centered, norms)
    arguments = {"coarse": model.coarse(f, centered, norms), "mixture": f.mixture, "tolerance": 1e-5}
    return Case(arguments, float(norms.max(initial=0.0) + f.mean_norm.max()))


def _pair_distances(model: Model) -> Case:
    n, (k, l, d) = len(model.X), model.factors.shape
    # One factor fewer on the other side, so that l0 and l1 cannot be confused; and as many components as samples.
    other = random_mfa(max(n, 1), d, max(l - 1, 0), seed=int(model.rng.integers(2**31)))
    center = model.mfa.subspaces.center
    left, side0 = side_rows(model.mfa.subspaces, slice(0, k), center, HOST)
    right, side1 = side_rows(other.subspaces, slice(0, n), center, HOST)
    products = np.ascontiguousarray((left @ right.T).reshape(k, l + 1, n, side1.shift.shape[1] + 1))
    # 1e4: what 1/sin² of the smallest angle may be for a pair that is not suspect.
    scale = 1e4 * float(side0.norm.max() + side1.norm.max(initial=0.0))
    return Case({"products": products, "side0": side0, "side1": side1}, scale)


def _bracket_pairs(model: Model) -> Case:
    case = _pair_distances(model)
    products = case.arguments["products"].astype(model.X.dtype)
    return Case({**case.arguments, "products": products, "slack": 1e-5, "rounding": 1e-9}, case.scale)


def _projection(model: Model) -> tuple[Projected, Projection, Projection]:
    """The samples in the coordinates of a coarse and a fine projection of the mixture."""
    pruner = Pruner.of([model.factors], (2, 5))
    coordinates = model.centered @ pruner.matrix(model.X.dtype)
    coarse, fine = pruner.tables(model.factors, model.X.dtype)
    directions = pruner.directions
    sums = directions.sums(np.square(model.centered, dtype=np.float64))
    return project(coordinates, sums, directions, fine.means.shape[1]), coarse, fine


def _bound_components(model: Model) -> Case:
    projected, coarse, _ = _projection(model)
    # What cancels is rounded in the samples' own dtype.
    scale = float((model.norms.max(initial=0.0) + 1) * model.factors.inv_noise.max() + model.factors.mean_norm.max())
    return Case({"projected": projected, "projection": coarse}, 8.0 * scale)


def _survivors(model: Model) -> Case:
    case = _bound_components(model)
    _, _, fine = _projection(model)
    above = outputs_of("bound_components", model, case.arguments)
    numpy_ops.bound_components(**case.arguments, **above)
    threshold = np.quantile(above["above"].astype(np.float64), 0.4, axis=1)
    threshold[:1] = -np.inf
    arguments = {"projected": case.arguments["projected"], "projection": fine, "threshold": threshold}
    return Case({**arguments, "above": above["above"]}, case.scale)


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
    arguments = {
        "coordinates": Coordinates(*q.kernel_arguments), "y": y, "settings": WalkSettings(0.3, 40, False, 20),
        "points": Points(a, np.zeros_like(a), np.ones(len(X)), sq),
    }  # fmt: skip
    # Of some tens of steps, each of which rounds what cancels in ‖v‖².
    return Case(arguments, 1e4 * float(sq.max(initial=1.0)))


def _accumulate_statistics(model: Model) -> Case:
    rows, components = model.pairs()
    weights, latents = model.rng.uniform(0.1, 2.0, len(rows)), model.rng.normal(size=(len(rows), model.mfa.n_factors))
    pairs = WeightedPairs(rows, components, weights, latents)
    spread = np.abs(model.X).max(initial=1.0) + np.abs(model.factors.means).max()
    return Case({"X": model.X, "pairs": pairs, "means": model.factors.means}, float(len(rows) * spread**2))


def _sample_points(model: Model) -> Case:
    (k, l, _), n = model.factors.shape, len(model.X)
    parameters = Parameters(model.factors.means, model.mfa.loadings.astype(np.float64), model.factors.noise)
    arguments = {
        "component": model.rng.integers(0, k, n), "z": model.rng.normal(size=(n, l)), "parameters": parameters,
        "key": 2**40 + 7, "with_noise": True,
    }  # fmt: skip
    return Case(arguments, float(np.abs(model.factors.means).max()) + 10.0)


def outputs_of(operation: str, model: Model, arguments: dict[str, Any]) -> dict[str, Any]:
    """New output arrays. What an operation adds to is not zero, what it overwrites is NaN."""
    n, (k, l, d), dtype, nan = len(model.X), model.factors.shape, model.X.dtype, np.nan
    m = len(arguments["pairs"].rows) if "pairs" in arguments else 0
    sums = Sums(np.ones((k, d)), np.ones((k, l, d)), np.ones((k, d)))
    new: dict[str, Callable[[], dict[str, Any]]] = {
        "center_rows": lambda: {"out": np.full((n, d), nan, dtype), "sq_norms": np.full(n, nan)},
        "mixture_epilogue": lambda: {"log_prob": np.full((n, k), nan), "keep": np.full((n, k), 7, np.uint8)},
        "mark_candidates": dict,
        "list_candidates": dict,
        "refine": lambda: {"log_prob": np.full(m, nan), "whitened_latent": np.full((m, l), nan)},
        "log_sum_exp": lambda: {"out": np.full(n, nan)},
        "log_sum_exp_candidates": lambda: {"out": np.full(n, nan)},
        "softmax": lambda: {"out": np.full((n, k), nan)},
        "accumulate_gradient": lambda: {"out": np.ones((n, d), dtype)},
        "point_distances": lambda: {"sq_distances": np.full((n, k), nan), "keep": np.full((n, k), 7, np.uint8)},
        "pair_distances": lambda: {"sq_distances": np.full((k, n), nan), "suspect": np.full((k, n), 7, np.uint8)},
        "bracket_pairs": lambda: {"lower": np.full((k, n), nan), "upper": np.full((k, n), nan)},
        "bound_components": lambda: {"above": np.full((n, k), nan, dtype), "best": np.full((n, min(k, 3)), -7)},
        "survivors": lambda: {"above": arguments["above"].copy()},
        "attack_step": lambda: {"X": arguments["X"].copy()},
        "factor_walk": lambda: {
            "points": each_array(np.copy, arguments["points"]), "reports": np.full((n, 5), -7),
        },
        "accumulate_statistics": lambda: {"sums": sums},
        "sample_points": lambda: {"out": np.full((n, d), nan, dtype)},
    }  # fmt: skip
    return new[operation]()


CASES: dict[str, Callable[[Model], Case]] = {name: globals()[f"_{name}"] for name in numpy_ops.__all__}


def run(ops: Any, operation: str, model: Model, case: Case, n_threads: int = 1, engine: Any = None) -> dict[str, Array]:
    """Call an operation on fresh outputs and return what it wrote or returned; inputs are read-only: a write to one
    raises or is seen in its bytes.

    With an `engine` the arrays are copied to its device before and back after.
    """
    outputs = outputs_of(operation, model, case.arguments)
    inputs = {name: value for name, value in case.arguments.items() if name not in outputs}
    arrays = arrays_of(inputs)
    before = {name: array.tobytes() for name, array in arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    there = {**inputs, **outputs}
    if engine is not None:
        there = {name: each_array(engine.asarray, value) for name, value in there.items()}
    returned = getattr(ops, operation)(**there, n_threads=n_threads)
    written = arrays_of({name: there[name] for name in outputs})
    written |= {str(number): array for number, array in enumerate(returned or ())}
    if engine is not None:
        written = {name: engine.to_host(array) for name, array in written.items()}
        arrays = {name: engine.to_host(array) for name, array in arrays_of({n: there[n] for n in inputs}).items()}
    for name, array in arrays.items():
        assert array.tobytes() == before[name], f"{operation} changed {name}"
    return written


def combinations(backend: str) -> list[Any]:
    found = []
    for operation in operations(backend):
        for dtype in ("float64",) if operation in FLOAT64_ONLY else ("float32", "float64"):
            for noise in ("isotropic",) if operation in ISOTROPIC_ONLY else ("isotropic", "diagonal"):
                found.append(pytest.param(operation, dtype, noise, id=f"{operation}-{dtype}-{noise}"))
    return found


def assert_contract(operation: str, arguments: dict[str, Any]) -> None:
    """The arrays are as numpy_ops promises: contiguous, aligned, of the right types, and pairs sorted."""
    outputs = arrays_of({name: arguments[name] for name in written(operation) if name in arguments})
    arrays = arrays_of(arguments)
    for name, value in arrays.items():
        what, field = f"{operation}: {name}", name.rpartition(".")[2]
        assert value.flags.c_contiguous, what
        assert value.flags.aligned, what
        assert value.flags.writeable or name not in outputs, what
        if name.startswith(("projected.", "projection.")) or field in REAL:
            assert value.dtype in (np.float32, np.float64), what
        else:
            assert value.dtype == (np.int64 if field in INDEX else np.uint8 if field in MASK else np.float64), what
    assert (np.diff(arrays.get("pairs.components", np.empty(0))) >= 0).all(), f"{operation}: components are not sorted"


def assert_equal(operation: str, got: dict[str, Array], expected: dict[str, Array], case: Case, d: int) -> None:
    """Equal to the tolerance of either's dtype: both accumulate in float64 from the same numbers, so only the order of
    sums differs: a few roundings of what cancels. An output in X's dtype is rounded to that in the end.
    """
    assert set(got) == set(expected)
    for name in expected:
        assert got[name].dtype == expected[name].dtype
        exact = expected[name].dtype.kind != "f"
        tolerance = 0.0 if exact else rtol(expected[name].dtype, d=d)
        atol = 0.0 if exact else 4.0 * float(np.finfo(expected[name].dtype).eps) * case.scale
        np.testing.assert_allclose(got[name], expected[name], rtol=tolerance, atol=atol, err_msg=name)
