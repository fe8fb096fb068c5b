"""MFA: the parameters of a mixture of factor analyzers, validated once, frozen, and what can be asked of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arrays.lazy_rows import by_blocks
from .._arrays.options import Missing
from .._io.html import bars, card, number_range
from .._io.messages import one_line
from .._io.tensor_files import read_tensors, write_tensors
from .._lazy import lazy
from . import density, imported, latent, marginals, rescaling, sampling, subsets
from .factors import Factors, Share, factorize, subspace_factors
from .parameters import PARAMETERS, checked_parameters

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from types import ModuleType

    from torch import Tensor
    from typing_extensions import Unpack

    from .._arrays.options import ArrayOptions, RunOptions
    from .parameters import Parameters

__all__ = ["MFA", "common_device", "on_device"]

Array = NDArray[Any]
_logger = logging.getLogger("mfakit")
# What a file of one mixture calls itself.
KIND = "mfa"


@dataclass(frozen=True, eq=False)
class MFA:
    """A mixture of factor analyzers: x = A z + μ + η, z ~ N(0, I), η ~ N(0, D), hence x ~ N(μ, A Aᵀ + D).

    Parameters
    ----------
    weights : array-like, [k]
        Mixing proportions, non-negative, sum 1.
    means : array-like, [k, d]
        μ.
    loadings : array-like, [k, d, l]
        A; need not be orthogonal, and zero columns are allowed.
    noise_variance : array-like, [k] or [k, d], or a float
        Isotropic σ² per component, or a diagonal D per component. Positive.

    Raises
    ------
    ValueError
        For shapes that do not match, NaN or inf, weights that are no distribution, noise that is not positive.

    Notes
    -----
    Methods that take arrays also take, keyword-only, the options ``backend``, ``method``, ``precision``,
    ``check_finite``, ``block_rows``, ``n_threads`` and ``out`` where they apply. NumPy in, NumPy out; torch in, torch
    out; CuPy in, CuPy out, computed there; a pandas DataFrame in, a Series or DataFrame with its index out; a dask
    array in, a dask array out, computed when dask is asked to; anything else in, NumPy out. The dtype of a result is
    X's: float64 stays, everything else is float32.

    References
    ----------
    Richardson & Weiss, A Bayes-Optimal View on Adversarial Examples, JMLR 2021, appendix B.1, equation (8).

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mfa = mfakit.MFA([0.5, 0.5], [[0, 0, 0], [3, 0, 0]], np.ones((2, 3, 1)), 0.1)
    >>> X, component = mfa.sample(4, rng=0)
    >>> mfa.log_prob(X).shape
    (4,)
    """

    weights: Array
    means: Array
    loadings: Array
    noise_variance: Array

    def __init__(
        self, weights: ArrayLike, means: ArrayLike, loadings: ArrayLike, noise_variance: ArrayLike | float
    ) -> None:
        fields = checked_parameters(weights, means, loadings, noise_variance)
        for name, value in fields.items():
            value.flags.writeable = False
            object.__setattr__(self, name, value.view())  # a view of what is frozen cannot be made writeable again

    @property
    def n_components(self) -> int:
        """k."""
        return int(self.loadings.shape[0])

    @property
    def n_features(self) -> int:
        """d."""
        return int(self.loadings.shape[1])

    @property
    def n_factors(self) -> int:
        """l."""
        return int(self.loadings.shape[2])

    @property
    def is_isotropic(self) -> bool:
        """Whether the noise is one variance per component rather than one per feature."""
        return self.noise_variance.ndim == 1

    @lazy
    def live(self) -> Array:
        """Indices of the components that have any weight; the others play no part in anything."""
        return np.flatnonzero(self.weights > 0)

    @property
    def device(self) -> str | None:
        """Where the model was put by :meth:`to`, such as "cuda:0"; None: it computes wherever its arguments are."""
        return self.__dict__.get("_device")

    def to(self, device: Any) -> MFA:
        """The same mixture on a device: "cuda", "cuda:1", or "cpu", which takes arguments from anywhere again.

        On a device, :meth:`sample` returns CuPy arrays, and arguments that are elsewhere are an error. The parameters
        stay NumPy arrays; what the kernels read is copied to the device once. A model need not be moved to compute on
        CuPy arrays. Copies, :meth:`replace` and pickles stay on the device; a pickle that is read where that device
        cannot be used gives a model on the host, and a warning in the log.

        Raises
        ------
        BackendUnavailable
            Without a CUDA device.
        ValueError
            For another kind of device.
        """
        place: str | None = None
        if str(device) != "cpu":
            kind, _, number = str(device).partition(":")
            if kind != "cuda" or (number and not number.isdigit()):
                raise ValueError(f'device must be "cpu", "cuda" or such as "cuda:1", got {device!r}')
            from ..backends import get_backend
            from ..backends._cuda.engine import engine

            get_backend("cuda")
            place = f"cuda:{engine(int(number) if number else None).device}"
        return self._placed(place)

    def _placed(self, device: str | None) -> MFA:
        """The same mixture, with what was computed for it, on a device that is known to be there; itself if it is."""
        if device == self.device:
            return self
        moved = object.__new__(MFA)
        moved.__dict__.update(self.__dict__, _device=device)
        return moved

    def check_device(self, device: str | None, backend: str, name: str = "X") -> None:
        """Raise ValueError where the model was put on one device and an argument is on another (None: the host)."""
        if self.device is not None and device != self.device and not (device is None and backend == "cuda"):
            raise ValueError(
                f"{name} is on {device or 'the host'} and the model on {self.device}: move one of them, "
                f'mfa.to("cpu") for a model that computes where {name} is'
            )

    @lazy
    def factors(self) -> Factors:
        """What the kernels read, computed on first use and kept."""
        return factorize(self.weights, self.means, self.loadings, self.noise_variance)

    def factorize(self, share: Share) -> None:
        """Compute `factors` now, by parts of the components that `share` deals out to threads; the same bits."""
        if "factors" not in self.__dict__:
            parameters = (self.weights, self.means, self.loadings, self.noise_variance)
            self.__dict__.setdefault("factors", factorize(*parameters, share))

    @lazy
    def subspaces(self) -> Factors:
        """The affine subspaces μ + span A in the kernels' layout, computed on first use and kept; of components without
        weight, points among the means of the others.
        """
        gone = self.weights == 0
        if not gone.any():
            return subspace_factors(self.means, self.loadings)
        middle = self.means[self.live].mean(axis=0)
        means, loadings = np.where(gone[:, None], middle, self.means), self.loadings.copy()
        loadings[gone] = 0.0
        return subspace_factors(means, loadings)

    def __repr__(self) -> str:
        noise = "isotropic" if self.is_isotropic else "diagonal"
        return f"MFA(k={self.n_components}, d={self.n_features}, l={self.n_factors}, {noise} noise)"

    def _repr_html_(self) -> str:
        noise = "one variance per " + ("component" if self.is_isotropic else "component and feature")
        rows = {
            "components k": str(self.n_components),
            "features d": str(self.n_features),
            "factors l": str(self.n_factors),
            "noise": f"{noise}; σ {number_range(np.sqrt(self.noise_variance))}",
            "weights": number_range(self.weights),
            "device": self.device or "where its arguments are",
        }
        return card("MFA", rows.items(), bars(self.weights, "weights of the components"))

    def _parameters(self) -> dict[str, Array]:
        return {name: getattr(self, name) for name in PARAMETERS}

    def __getstate__(self) -> dict[str, Any]:
        return self._parameters() if self.device is None else {**self._parameters(), "device": self.device}

    def __dask_tokenize__(self) -> tuple[str, Any]:
        """A name for dask that the contents decide: equal mixtures, results of one computation."""
        from dask.base import normalize_token

        return "mfakit.MFA", normalize_token(self.__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**{name: state[name] for name in PARAMETERS})  # type: ignore[misc]
        device = state.get("device")
        if device is None:
            return
        # A model from a machine with a device must open on one without, and a worker process must not die of it: there
        # the model is on the host, computes wherever its arguments are, and can be moved by to().
        try:
            self.__dict__["_device"] = self.to(device).device
        except RuntimeError as error:  # BackendUnavailable, and CuPy's for a number that is not there
            _logger.warning("a model that was on %s is on the host from here on: %s", device, error)

    @overload
    def log_prob(self, X: Array, *, missing: Missing = ..., **options: Unpack[RunOptions]) -> Array: ...
    @overload
    def log_prob(self, X: Tensor, *, missing: Missing = ..., **options: Unpack[RunOptions]) -> Tensor: ...
    @overload
    def log_prob(self, X: Any, *, missing: Missing = ..., **options: Unpack[ArrayOptions]) -> Any: ...
    @by_blocks
    def log_prob(self, X: Any, *, missing: Missing = "error", **options: Unpack[ArrayOptions]) -> Any:
        """log p(x) of each sample, nats; see :func:`mfakit.mixture.density.log_prob`. With ``missing="marginal"`` NaN
        is a feature that is not known, and the density that of the others: :func:`mfakit.mixture.marginals.log_prob`.
        """
        return _densities(missing).log_prob(self, X, **options)

    @overload
    def component_log_prob(self, X: Array, *, missing: Missing = ..., **options: Unpack[RunOptions]) -> Array: ...
    @overload
    def component_log_prob(self, X: Tensor, *, missing: Missing = ..., **options: Unpack[RunOptions]) -> Tensor: ...
    @overload
    def component_log_prob(self, X: Any, *, missing: Missing = ..., **options: Unpack[ArrayOptions]) -> Any: ...
    @by_blocks
    def component_log_prob(self, X: Any, *, missing: Missing = "error", **options: Unpack[ArrayOptions]) -> Any:
        """log (weight_k p_k(x)), [n, k], nats; see :func:`mfakit.mixture.density.component_log_prob`; `missing` as of
        :meth:`log_prob`.
        """
        return _densities(missing).component_log_prob(self, X, **options)

    @overload
    def responsibilities(self, X: Array, *, missing: Missing = ..., **options: Unpack[RunOptions]) -> Array: ...
    @overload
    def responsibilities(self, X: Tensor, *, missing: Missing = ..., **options: Unpack[RunOptions]) -> Tensor: ...
    @overload
    def responsibilities(self, X: Any, *, missing: Missing = ..., **options: Unpack[ArrayOptions]) -> Any: ...
    @by_blocks
    def responsibilities(self, X: Any, *, missing: Missing = "error", **options: Unpack[ArrayOptions]) -> Any:
        """p(component | x), [n, k]; see :func:`mfakit.mixture.density.responsibilities`; `missing` as of
        :meth:`log_prob`.
        """
        return _densities(missing).responsibilities(self, X, **options)

    @overload
    def grad_log_prob(self, X: Array, **options: Unpack[RunOptions]) -> Array: ...
    @overload
    def grad_log_prob(self, X: Tensor, **options: Unpack[RunOptions]) -> Tensor: ...
    @overload
    def grad_log_prob(self, X: Any, **options: Unpack[ArrayOptions]) -> Any: ...
    @by_blocks
    def grad_log_prob(self, X: Any, **options: Unpack[ArrayOptions]) -> Any:
        """∇ log p(x), [n, d], nats per unit of X; see :func:`mfakit.mixture.density.grad_log_prob`."""
        return density.grad_log_prob(self, X, **options)

    def sample(self, n: int, rng: Any = None, noise: bool = True, dtype: Any = np.float32) -> tuple[Array, Array]:
        """n samples [n, d] and their components [n]; see :func:`mfakit.mixture.sampling.sample`."""
        return sampling.sample(self, n, rng=rng, noise=noise, dtype=dtype)

    @overload
    def latent(self, X: Array, **options: Unpack[RunOptions]) -> tuple[Array, Array, Array]: ...
    @overload
    def latent(self, X: Tensor, **options: Unpack[RunOptions]) -> tuple[Tensor, Tensor, Tensor]: ...
    @overload
    def latent(self, X: Any, **options: Unpack[ArrayOptions]) -> tuple[Any, Any, Any]: ...
    @by_blocks
    def latent(self, X: Any, **options: Unpack[ArrayOptions]) -> tuple[Any, Any, Any]:
        """Posterior of z under each sample's most likely component; see :func:`mfakit.mixture.latent.latent`."""
        return latent.latent(self, X, **options)

    @overload
    def reconstruct(self, X: Array, **options: Unpack[RunOptions]) -> Array: ...
    @overload
    def reconstruct(self, X: Tensor, **options: Unpack[RunOptions]) -> Tensor: ...
    @overload
    def reconstruct(self, X: Any, **options: Unpack[ArrayOptions]) -> Any: ...
    @by_blocks
    def reconstruct(self, X: Any, **options: Unpack[ArrayOptions]) -> Any:
        """Each sample projected on its component, μ + A E[z | x], [n, d]; :func:`mfakit.mixture.latent.reconstruct`."""
        return latent.reconstruct(self, X, **options)

    @overload
    def impute(self, X: Array, mask: Any = ..., *, bounds: Any = ..., **options: Unpack[RunOptions]) -> Array: ...
    @overload
    def impute(self, X: Tensor, mask: Any = ..., *, bounds: Any = ..., **options: Unpack[RunOptions]) -> Tensor: ...
    @overload
    def impute(self, X: Any, mask: Any = ..., *, bounds: Any = ..., **options: Unpack[ArrayOptions]) -> Any: ...
    @by_blocks
    def impute(self, X: Any, mask: Any = None, *, bounds: Any = None, **options: Unpack[ArrayOptions]) -> Any:
        """X with what is masked, or NaN, replaced by its conditional mean; :func:`mfakit.mixture.latent.impute`."""
        return latent.impute(self, X, mask, bounds=bounds, **options)

    def marginal(self, features: Any) -> MFA:
        """The density of some features, again a mixture; see :func:`mfakit.mixture.subsets.marginal`."""
        return subsets.marginal(self, features)

    def conditional(self, features: Any, values: ArrayLike) -> MFA:
        """The density of the other features given these values; see :func:`mfakit.mixture.subsets.conditional`."""
        return subsets.conditional(self, features, values)

    def rescaled(self, low: float, high: float) -> MFA:
        """The density of (x - low) / (high - low); see :func:`mfakit.mixture.rescaling.rescaled`."""
        return rescaling.rescaled(self, low, high)

    def dense(self) -> tuple[Array, Array, Array]:
        """Weights [k], means [k, d] and covariances A Aᵀ + D [k, d, d], float64: for tests and small models."""
        A = self.loadings.astype(np.float64)
        covariances = A @ A.transpose(0, 2, 1)
        noise = np.broadcast_to(self.noise_variance.reshape(self.n_components, -1), self.means.shape)
        index = np.arange(self.n_features)
        covariances[:, index, index] += noise
        return self.weights, self.means.astype(np.float64), covariances

    def replace(self, **parameters: Unpack[Parameters]) -> MFA:
        """The same mixture with some of its parameters (weights, means, loadings, noise_variance) replaced, on
        the same device.
        """
        values: dict[str, Any] = {**self._parameters(), **parameters}
        return MFA(**values)._placed(self.device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters to a safetensors file. The old file stays until the new one is complete and was read
        back.
        """
        write_tensors(path, KIND, self.to_tensors("0"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MFA:
        """Read a file written by :meth:`save`.

        Raises
        ------
        FileNotFoundError
            No such file.
        ValueError
            Not a safetensors file, cut short, tampered with, of an unknown version, or parameters that are no mixture:
            one sentence with the path.
        """
        return cls.from_tensors(read_tensors(path, KIND)[0], "0", path)

    @classmethod
    def from_torch_mfa(cls, source: str | os.PathLike[str] | Mapping[str, Any]) -> MFA:
        """The mixture of a torch-mfa model; see :func:`mfakit.mixture.imported.torch_mfa`."""
        return cls(**imported.torch_mfa(source))

    @classmethod
    def from_gans_n_gmms(cls, source: str | os.PathLike[str] | Mapping[int, Any]) -> MFA:
        """The mixture of a gans-n-gmms model; see :func:`mfakit.mixture.imported.gans_n_gmms`."""
        return cls(**imported.gans_n_gmms(source))

    @classmethod
    def from_bayes_optimal(cls, source: str | os.PathLike[str] | Mapping[int, Any]) -> MFA:
        """One class of the paper's own models; see :func:`mfakit.mixture.imported.bayes_optimal`."""
        return cls(**imported.bayes_optimal(source))

    def to_tensors(self, name: str) -> dict[str, Array]:
        """The parameters under the names that they have in a file, as mixture `name`."""
        return {f"{name}.{parameter}": getattr(self, parameter) for parameter in PARAMETERS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array], name: str, path: str | os.PathLike[str]) -> MFA:
        """The mixture `name` of a file at `path`; errors as :meth:`load`."""
        missing = [p for p in PARAMETERS if f"{name}.{p}" not in tensors]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)} of mixture {name}; was it written by mfakit?")
        values = {p: tensors[f"{name}.{p}"] for p in PARAMETERS}
        wrong = [f"{p} is {value.dtype}" for p, value in values.items() if value.dtype.kind != "f"]
        if wrong:
            raise ValueError(f"{path} is not a valid mixture: {', '.join(wrong)}, not float32 or float64")
        try:
            return MFA(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a valid mixture: {one_line(error)}") from None


def _densities(missing: Missing) -> ModuleType:
    """Where the densities are computed that take NaN as `missing` says."""
    return marginals if marginals.takes_gaps(missing) else density


def common_device(models: Mapping[str, MFA]) -> str | None:
    """Where models that are computed together lie, such as "cuda:0" (None: the host).

    Raises
    ------
    ValueError
        For models on different devices: two of them, under the names that the caller knows them by, and where they are.
    """
    (first, model), *others = models.items()
    for name, other in others:
        if other.device != model.device:
            raise ValueError(
                f"{first} is on {model.device or 'the host'} and {name} on {other.device or 'the host'}: move one of "
                f'them by its to(), such as {first}.to("{other.device or "cpu"}")'
            )
    return model.device


def on_device(array: Array, device: str | None) -> Any:
    """A host array where a model is: a CuPy copy on its device, or itself for None."""
    if device is None:
        return array
    from ..backends import get_arrays, get_backend

    arrays = get_arrays(get_backend("cuda", device), device)
    with arrays.active():
        return arrays.asarray(array)
