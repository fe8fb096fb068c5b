"""The models that the package ships: Bayes pairs fitted to MNIST digits by tools/fit_shipped_models.py."""

from __future__ import annotations

from pathlib import Path

from .._io.messages import excerpt, meant
from ..bayes.classifier import BayesClassifier

__all__ = ["available_bayes_pairs", "load_bayes_pair"]


def _folder() -> Path:
    return Path(__file__).parent / "models"


def available_bayes_pairs() -> list[str]:
    """Names of the shipped pairs, for :func:`load_bayes_pair`.

    Examples
    --------
    >>> import mfakit
    >>> mfakit.datasets.available_bayes_pairs()
    ['mnist-06', 'mnist-27', 'mnist-45']
    """
    files = (entry.name for entry in _folder().iterdir())
    return sorted(name.removesuffix(".safetensors") for name in files if name.endswith(".safetensors"))


def load_bayes_pair(name: str) -> BayesClassifier:
    """A shipped pair of fitted mixtures as a classifier; make it :meth:`~mfakit.BayesClassifier.symmetric` or
    asymmetric.

    Parameters
    ----------
    name : str
        For example "mnist-06": class 0 is the digit 0, class 1 the digit 6. 25 components of 6 factors per class,
        isotropic noise, fitted to all training images of the digit, scaled to [0, 1].

    Raises
    ------
    ValueError
        For another name; the message lists those there are.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(sigma=0.01)
    >>> clf.n_features
    784
    """
    if name not in available_bayes_pairs():
        pairs = available_bayes_pairs()
        raise ValueError(f"no shipped pair {excerpt(name)}; there are {', '.join(pairs)}{meant(str(name), pairs)}")
    return BayesClassifier.load(_folder() / f"{name}.safetensors")


def load_pair(given: str) -> BayesClassifier:
    """A shipped pair by its name, or a classifier by its .safetensors file: what commands and experiments take.

    Raises
    ------
    ValueError
        For a name that is neither, and a file that is damaged.
    FileNotFoundError
        For a .safetensors file that is not there.
    """
    if Path(given).suffix == ".safetensors":
        return BayesClassifier.load(given)
    try:
        return load_bayes_pair(given)
    except ValueError as error:
        if Path(given).exists():
            raise ValueError(f"{given} is no model file, because those end in .safetensors, and {error}") from None
        raise
