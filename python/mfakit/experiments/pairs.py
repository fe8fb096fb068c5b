"""The pairs of mixtures that experiments run on: shipped ones by name, the user's own by file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ..bayes.classifier import BayesClassifier
from ..datasets import available_bayes_pairs
from ..datasets.shipped import load_pair

__all__ = ["by_pair", "captions_of", "open_pairs"]

C = TypeVar("C")


def open_pairs(names: Sequence[str]) -> dict[str, BayesClassifier]:
    """The pairs by name, without their folders and endings; all shipped ones where no name is given.

    Raises
    ------
    ValueError
        For a name that is no shipped pair and no readable file, two pairs of one name, or a classifier that is no pair.
    FileNotFoundError
        For a .safetensors file that is not there.
    """
    found: dict[str, BayesClassifier] = {}
    for given in dict.fromkeys(names or available_bayes_pairs()):
        name = Path(given).stem if Path(given).suffix == ".safetensors" else given
        if name in found:
            raise ValueError(f"two pairs are called {name}; results would mix them up: rename one of the files")
        clf = load_pair(given)
        if len(clf.mixtures) != 2:
            raise ValueError(f"{given} must be a pair, and has {len(clf.mixtures)} classes")
        found[name] = clf
    return found


def by_pair(config: C) -> list[C]:
    """A configuration that names pairs, as configurations of single pairs, whose parts are those of all."""
    names = config.pairs or available_bayes_pairs()  # type: ignore[attr-defined]
    return [replace(config, pairs=(name,)) for name in names]  # type: ignore[type-var]


def captions_of(name: str) -> tuple[str, str]:
    """What its two classes are called in pictures: the digits of ``mnist-06``, else 0 and 1."""
    digits = name.removeprefix("mnist-")
    return (digits[0], digits[1]) if name.startswith("mnist-") and len(digits) == 2 else ("0", "1")
