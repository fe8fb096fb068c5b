"""run_external(): attacks of foolbox, adv-lib and others on any model, with a verified result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.rows import RowBlocks, class_indices, is_torch, to_numpy
from .._checks import as_bounds, check_integers, check_numbers
from .evaluate import evaluate
from .networks import opened
from .result import AttackResult
from .samples import class_names, on_host

if TYPE_CHECKING:
    from .carlini_wagner.network import Network

__all__ = ["run_external"]

Array = NDArray[Any]


def run_external(
    attack: Callable[..., Any],
    model: Any,
    X: Any,
    y: Any = None,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    epsilon: float | None = None,
    batch_size: int = 256,
) -> AttackResult:
    """Run an attack of another library, then :func:`evaluate` its points.

    Parameters
    ----------
    attack : foolbox attack or callable
        An instance of a foolbox attack; or ``attack(model, inputs, labels)``, as adv-lib's functions are (others fit
        with a lambda), which gets a torch module and tensors [n, ...] and [n], and returns the points.
    model : torch module or classifier
        A module in evaluation mode; of a classifier, the module that stands for it: :mod:`mfakit.torch`'s, or the
        network that it carries.
    X : array-like, [n, d] or [n, ...]
    y : array-like, [n], optional
        True classes as of :func:`evaluate`. None: the model's decisions.
    bounds : (low, high)
        Told to foolbox; points outside are clipped to them.
    epsilon : float, optional
        The radius that foolbox's attacks with a fixed one need.
    batch_size : int
        Samples that are attacked at a time.

    Returns
    -------
    AttackResult

    Raises
    ------
    ImportError
        Without torch.
    TypeError
        For an attack that cannot be called, or that returns no points.
    ValueError
        As :func:`evaluate`.

    Examples
    --------
    >>> import numpy as np, torch, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.5]], np.zeros((1, 2, 1)), 0.01) for m in (0.25, 0.75)]
    >>> clf, X = mfakit.BayesClassifier(mixtures), np.array([[0.25, 0.5]])
    >>> def mirror(model, inputs, labels):
    ...     return 1 - inputs
    >>> mfakit.attacks.run_external(mirror, clf, X, [0]).l2
    array([0.5])
    """
    if isinstance(attack, type) or not callable(attack):
        what = f"the class {attack.__name__}" if isinstance(attack, type) else type(attack).__name__
        raise TypeError(f"attack must be an instance or a function that can be called, got {what}")
    check_integers({"batch_size": batch_size}, 1)
    if epsilon is not None:
        check_numbers({"epsilon": epsilon}, positive=True, also="or None")
    box = as_bounds(bounds)
    if box is None:
        raise ValueError("bounds must be (low, high), because other libraries' attacks need them, got None")
    host, shape = on_host(X)
    rows = RowBlocks(host)
    points = np.empty(rows.shape, rows.dtype)
    with opened(model, shape, rows.dtype) as network:
        run = _runner(attack, network, box, epsilon)
        for first in range(0, len(rows), batch_size):
            part = slice(first, min(first + batch_size, len(rows)))
            inputs = network.tensor(rows.block(part.start, part.stop)).reshape(-1, *shape)
            labels = _labels(network, inputs, None if y is None else to_numpy(y, "y")[part], class_names(model))
            points[part] = np.clip(_as_points(run(inputs, labels), inputs, attack), *box)
    settings = {"library": (getattr(attack, "__module__", None) or "").partition(".")[0], "epsilon": epsilon}
    name = getattr(attack, "__name__", type(attack).__name__)
    there = points.reshape(len(rows), *shape)
    return evaluate(model, X, there, y, bounds=box, name=name, settings=settings, batch_size=batch_size)


def _runner(
    attack: Callable[..., Any], network: Network, bounds: tuple[float, float], epsilon: float | None
) -> Callable[[Any, Any], Any]:
    """The attack as a function of inputs and labels."""
    if not any(c.__module__.startswith("foolbox.") for c in type(attack).__mro__):
        return lambda inputs, labels: attack(network.module, inputs, labels)
    import foolbox

    model = foolbox.PyTorchModel(network.module, bounds=bounds, device=network.device)
    # (points, points clipped to epsilon, success); with None, of attacks that minimise, the points as they were found.
    return lambda inputs, labels: attack(model, inputs, labels, epsilons=epsilon)[1]


def _labels(network: Network, inputs: Any, given: Array | None, names: Array | None) -> Any:
    """The classes of some inputs as a tensor of columns of the logits."""
    import torch

    with torch.no_grad():
        logits = network(inputs)
    if given is None:
        return logits.argmax(dim=1)
    codes = class_indices(given, names, len(inputs), logits.shape[1])
    return torch.from_numpy(codes).to(network.device)


def _as_points(found: Any, inputs: Any, attack: Any) -> Array:
    """What an attack returned, as rows; what it failed to find, NaN, is the input itself."""
    if not is_torch(found) or found.shape != inputs.shape:
        shape = tuple(getattr(found, "shape", ()))
        raise TypeError(
            f"{getattr(attack, '__name__', type(attack).__name__)} must return a tensor of the inputs' shape "
            f"{tuple(inputs.shape)}, got {type(found).__name__} {shape}"
        )
    lost = ~found.isfinite().flatten(1).all(dim=1)
    points = found.detach().clone()
    points[lost] = inputs[lost]
    return np.asarray(points.flatten(1).cpu().numpy())
