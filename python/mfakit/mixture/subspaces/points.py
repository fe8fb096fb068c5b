"""Distances from samples to the subspaces of components."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from ..._arrays.containers import is_dask
from ..._arrays.lazy_rows import map_rows
from ..._arrays.rows import returned
from ..._arrays.streams import streamed
from ..._checks import check_model
from ..density import Filling, each_block, of_all_components, open_rows
from ..evaluator import Evaluator
from ..mfa import MFA
from ..scores import sorted_pairs

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Unpack

    from ..._arrays.options import ArrayOptions, RunOptions

__all__ = ["point_subspace_distances"]

Array = Any  # NumPy's or, on a device, CuPy's

# Relative error of a squared distance above which it is recomputed from the residual, by the dtype of the product.
DISTANCE_TOLERANCE = {"float32": 1e-3, "float64": 1e-10}


@overload
def point_subspace_distances(X: NDArray[Any], mfa: MFA, **options: Unpack[RunOptions]) -> NDArray[Any]: ...
@overload
def point_subspace_distances(X: Tensor, mfa: MFA, **options: Unpack[RunOptions]) -> Tensor: ...
@overload
def point_subspace_distances(X: Any, mfa: MFA, **options: Unpack[ArrayOptions]) -> Any: ...
@streamed
def point_subspace_distances(X: Any, mfa: MFA, **options: Unpack[ArrayOptions]) -> Any:
    """‖(I - Q Qᵀ)(x - μ)‖ of every sample to every component's subspace.

    Parameters
    ----------
    X : array-like, [n, d]
    mfa : MFA
    **options
        See :class:`mfakit._arrays.options.Options`.

    Returns
    -------
    array, [n, k]
        ℓ2 in data units, in X's dtype and container; inf to a component without weight, which is never the nearest.
        Noise plays no part.

    Raises
    ------
    ValueError, TypeError
        As :func:`mfakit.mixture.density.log_prob`.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mfa = mfakit.MFA([1.0], np.zeros((1, 3)), np.eye(3)[None, :, :1], 0.1)
    >>> mfakit.point_subspace_distances(np.array([[7.0, 3.0, 4.0]]), mfa)
    array([[5.]])
    """
    check_model("mfa", mfa, MFA)
    if is_dask(X):
        distances = SimpleNamespace(point_subspace_distances=partial(point_subspace_distances, mfa=mfa))
        return map_rows(distances, "point_subspace_distances", X, options=options)
    rows, opts = open_rows(mfa, X, of_all_components("point_subspace_distances", options))
    out = opts.result((len(rows), mfa.n_components), rows.dtype, rows)

    gone = mfa.weights == 0

    def fill(evaluator: Evaluator, block: Array, first: int, part: Array) -> None:
        part[:] = evaluator.xp.sqrt(_sq_distances(evaluator, block, first, rows.name))
        if gone.any():
            part[:, evaluator.arrays.asarray(np.flatnonzero(gone))] = np.inf

    each_block(rows, [mfa.subspaces], opts, Filling(fill, out))
    return returned(out, rows.like, opts.out)


def _sq_distances(evaluator: Evaluator, X: Array, start: int, name: str) -> Array:
    """Squared distances [n, k] of a block: by the product, and from the residual where the product cannot be
    trusted.
    """
    factors, ops, xp = evaluator.factors, evaluator.ops, evaluator.xp
    shape = len(X), factors.shape[0]
    centered, norms = evaluator.center(X, start, name)
    sq, keep = xp.empty(shape), xp.empty(shape, np.uint8)
    coarse = evaluator.coarse(centered, norms)
    tolerance = 0.0 if evaluator.options.method == "residual" else DISTANCE_TOLERANCE[centered.dtype.name]
    with np.errstate(over="ignore", invalid="ignore"):
        ops.point_distances(coarse, factors.mixture, tolerance, sq, keep, evaluator.threads)
    pairs = sorted_pairs(keep, xp)
    refined, _ = evaluator.refine(X, pairs)
    sq[pairs.rows, pairs.components] = -2.0 * refined  # log_norm = 0 and Z = 0: the "log-density" is -½ dist²
    if evaluator.options.check_finite:
        sq[xp.isinf(norms)] = np.inf  # finite samples whose square is beyond float64
    return sq
