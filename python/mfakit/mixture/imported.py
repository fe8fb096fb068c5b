"""Mixtures from the files of three public implementations. Nothing in a file is executed.

================  =====================================  ==================================  =========================
function          written by                             file                                noise
================  =====================================  ==================================  =========================
torch_mfa         github.com/eitanrich/torch-mfa         state dict: PI_logits [k],          log of the variance
                                                         MU [k, d], A [k, d, l],
                                                         log_D [k, d]
gans_n_gmms       github.com/eitanrich/gans-n-gmms       pickle: component number to pi,     ``D``: variance, or ``s``:
                                                         mu [d], A [d, l], D [d]             one for all features
bayes_optimal     github.com/eitanrich/                  the same pickle                     ``D``: standard deviation
                  bayes-optimal-adv-examples
================  =====================================  ==================================  =========================

Where each component's noise is the same in all features, the mixture is isotropic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.containers import to_numpy
from .._io.messages import excerpt, one_line
from .._io.pickle_machine import Interpreter, Refused, StatedArray, StatedDict, stated_values
from .._io.unpacking import read_whole

__all__ = ["bayes_optimal", "gans_n_gmms", "torch_mfa"]

Array = NDArray[Any]
Source = str | PathLike[str] | Mapping[Any, Any]

# A component takes about 75 operations; 300 of 12,288 features and 10 factors take 350 MB in float64.
MOST_OPERATIONS, MOST_BYTES = 500_000, 1 << 32
# Components of at most this weight pad a model to a size that all classes share.
PADDING_WEIGHT = 1e-10
# The writers' own limit on what weights may sum to.
SUM_TOLERANCE = 1e-5


def torch_mfa(source: Source) -> dict[str, Array]:
    """The parameters of a torch-mfa model, a state dict that ``torch.save(model.state_dict(), path)`` wrote.

    Parameters
    ----------
    source : path, or mapping of str to tensors
        The file, which torch reads with ``weights_only=True``, or the state dict itself.

    Raises
    ------
    FileNotFoundError
        No such file.
    ImportError
        Without torch, for a file.
    ValueError
        A file that is no state dict, or has anything but tensors (the message names what it asks for), lacks a
        parameter, or whose parameters are no mixture.

    Examples
    --------
    >>> import mfakit, numpy as np
    >>> state = {"PI_logits": np.zeros(2), "MU": np.eye(2, 3), "A": np.ones((2, 3, 1)), "log_D": np.full((2, 3), -2.0)}
    >>> mfakit.MFA.from_torch_mfa(state)
    MFA(k=2, d=3, l=1, isotropic noise)
    """
    state, name = (source, "the state dict") if isinstance(source, Mapping) else (_state_dict(source), str(source))
    missing = [key for key in ("PI_logits", "MU", "A", "log_D") if key not in state]
    if missing:
        raise ValueError(f"{name} is not a torch-mfa model: it lacks {', '.join(missing)}")
    logits, means, loadings, log_noise = (to_numpy(state[key], key) for key in ("PI_logits", "MU", "A", "log_D"))
    logits, log_noise = logits.astype(np.float64), log_noise.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        weights = np.exp(logits - logits.max(initial=-np.inf))
        return _parameters(weights / weights.sum(), means, loadings, np.exp(log_noise))


def gans_n_gmms(source: Source) -> dict[str, Array]:
    """The parameters of a gans-n-gmms model, a pickle of one dict for each component.

    Parameters
    ----------
    source : path, or mapping of component numbers to mappings
        The file, or what it holds: ``pi``, ``mu`` [d], ``A`` [d, l] and the noise *variance*, ``D`` [d] or ``s``.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        A file that is damaged, asks for anything but NumPy's arrays in plain containers (the message names it), or
        whose parameters are no mixture.

    Examples
    --------
    >>> import mfakit, numpy as np
    >>> shared = {"pi": 0.5, "A": np.ones((3, 1)), "D": np.full(3, 0.04)}
    >>> components = {i: {"mu": np.eye(2, 3)[i], **shared} for i in (0, 1)}
    >>> mfakit.MFA.from_gans_n_gmms(components).noise_variance
    array([0.04, 0.04])
    """
    return _of_components(source, "gans-n-gmms", lambda D: D)


def bayes_optimal(source: Source) -> dict[str, Array]:
    """The parameters of one class of the paper's own models (``models/mnist/06/mfa_class_0.pkl`` and the like).

    Components of a weight of at most 1e-10 are left out: they pad the smaller class to the size of the larger one.

    Parameters
    ----------
    source : path, or mapping of component numbers to mappings
        As :func:`gans_n_gmms`, with the noise's *standard deviation* as ``D`` [d].

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`gans_n_gmms`.

    Examples
    --------
    >>> import mfakit, numpy as np
    >>> shared = {"pi": 0.5, "A": np.ones((3, 1)), "D": np.full(3, 0.2)}
    >>> components = {i: {"mu": np.eye(2, 3)[i], **shared} for i in (0, 1)}
    >>> mfakit.MFA.from_bayes_optimal(components).noise_variance
    array([0.04, 0.04])
    """
    return _of_components(source, "bayes-optimal", np.square, PADDING_WEIGHT)


def _parameters(weights: Array, means: Array, loadings: Array, noise: Array) -> dict[str, Array]:
    """By name; noise [k, d] that is the same in all features becomes [k]."""
    if noise.ndim == 2 and noise.shape[1] and (noise == noise[:, :1]).all():
        noise = noise[:, 0]
    return {"weights": weights, "means": means, "loadings": loadings, "noise_variance": noise}


def _of_components(
    source: Source, kind: str, variance: Callable[[Array], Array], padding: float = -1.0
) -> dict[str, Array]:
    """The parameters of a mapping of component numbers; those of a weight of at most `padding` are left out."""
    name = "the mapping" if isinstance(source, Mapping) else str(source)
    try:
        components = _as_dict(source if isinstance(source, Mapping) else _read_pickle(source))
        if set(components) != set(range(len(components))) or not components:
            raise Refused("its components must be numbered from 0 on")
        parts = [_component(components[i], i) for i in range(len(components))]
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(f"{name} is not a {kind} model: {one_line(error)}") from None
    weights = np.array([float(part[0]) for part in parts])
    if not abs(weights.sum() - 1.0) <= SUM_TOLERANCE:
        raise ValueError(f"{name} is not a {kind} model: its weights must sum to 1, got {weights.sum():.6g}")
    kept = [part for part, weight in zip(parts, weights, strict=True) if not weight <= padding]
    if len({tuple(map(np.shape, part)) for part in kept}) > 1:
        raise ValueError(f"{name} is not a {kind} model: its components differ in their sizes")
    pi, means, loadings, noise = (np.stack(arrays) for arrays in zip(*kept, strict=True))
    pi = pi.astype(np.float64)
    return _parameters(pi / pi.sum(), means, loadings, variance(noise.astype(np.float64)))


def _component(value: Any, number: int) -> tuple[Array, Array, Array, Array]:
    """pi, mu [d], A [d, l] and D [d] of one component; s, or a D of one number, is spread over the features."""
    entries = _as_dict(value)
    noise_name = "s" if "s" in entries and "D" not in entries else "D"
    missing = [key for key in ("pi", "mu", "A", noise_name) if key not in entries]
    if missing:
        raise Refused(f"component {number} lacks {', '.join(missing)}")
    pi, mu, A, noise = (_numbers(entries[key], key) for key in ("pi", "mu", "A", noise_name))
    if pi.size != 1 or A.ndim != 2 or mu.size != len(A) or noise.size not in (1, len(A)):
        raise Refused(
            f"component {number} must have a number pi, mu [d], A [d, l] and {noise_name} [d], got shapes {pi.shape}, "
            f"{excerpt(mu.shape)}, {excerpt(A.shape)}, {excerpt(noise.shape)}"
        )
    return pi.reshape(()), mu.reshape(-1), A, np.broadcast_to(noise.reshape(-1), (len(A),))


def _as_dict(value: Any) -> dict[Any, Any]:
    """A mapping, or what a pickle states as one: keys are numbers or text, which Python 2 wrote as bytes."""
    if not isinstance(value, StatedDict | Mapping):
        raise Refused(f"it has a {type(value).__name__} in the place of a dict")
    pairs = value.pairs if isinstance(value, StatedDict) else list(value.items())
    if not all(isinstance(key, str | bytes | int | np.integer) for key, _ in pairs):
        raise Refused("it has a key that is neither text nor a number")
    found = {key.decode("latin1") if isinstance(key, bytes) else key: item for key, item in pairs}
    if len(found) != len(pairs):
        raise Refused("it has a key twice")
    return found


def _numbers(value: Any, name: str) -> Array:
    """An array of real numbers."""
    if isinstance(value, StatedArray):
        return stated_values(value, name, "fiu", "real numbers")
    array = np.asarray(value) if isinstance(value, float | int) else to_numpy(value, name)
    if array.dtype.kind not in "fiu":
        raise Refused(f"its {name} is not an array of real numbers")
    return array


def _read_pickle(path: str | PathLike[str]) -> Any:
    """What a pickle states, see :mod:`mfakit._io.pickle_machine`."""
    path = _existing(path)
    data = read_whole(path, MOST_BYTES)
    return Interpreter(data, min(1000 + len(data), MOST_OPERATIONS)).run()


def _state_dict(path: str | PathLike[str]) -> Mapping[str, Any]:
    """Tensors by name, on the host."""
    path = _existing(path)
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of another kind for every way in which a file can be damaged
        asked = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        why = f"it asks for {asked[1]}; save model.state_dict()" if asked else one_line(error)
        raise ValueError(f"{path} is not a torch-mfa model: {why}") from None
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} is not a torch-mfa model: it holds a {type(state).__name__}, not a state dict")
    return state


def _existing(path: str | PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model file at {path}")
    return path
