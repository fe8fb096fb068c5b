"""Finished parts of a long experiment, kept in a folder, so that an interrupted run goes on where it stopped.

A part is a safetensors file, written whole or not at all, named by what it is and by a digest of everything that its
numbers depend on: settings, parameters, versions. A part of other settings has another name, and is never met.
"""

from __future__ import annotations

import hashlib
import importlib.metadata as metadata
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from .._io.outputs import output_folder
from .._io.report import jsonable
from .._io.tensor_files import read_tensors, write_tensors
from ..bayes.classifier import BayesClassifier

__all__ = ["Part", "Store", "Trained", "digest_of_model", "versions"]

Array = NDArray[Any]
Part = tuple[dict[str, Array], dict[str, Any]]
_logger = logging.getLogger("mfakit")

KIND = "experiment-part"
# Raise this when what a part holds or means changes.
PART_VERSION = 2  # 2: which of the wrong samples an attack makes right
LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch")


def versions() -> dict[str, str | None]:
    """Of mfakit and of the libraries that train and attack; None for one that is not installed."""
    found: dict[str, str | None] = {"mfakit": __version__, "part": str(PART_VERSION)}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def digest_of_model(clf: BayesClassifier) -> str:
    """A digest of all parameters of a Bayes classifier."""
    digest = hashlib.sha256(np.ascontiguousarray(clf.priors).tobytes())
    for m in clf.mixtures:
        for values in (m.weights, m.means, m.loadings, m.noise_variance):
            digest.update(repr((values.shape, values.dtype.str)).encode())
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


class Store:
    """Parts in a folder.

    Parameters
    ----------
    folder : Path or None
        Made if need be; None keeps nothing.

    Attributes
    ----------
    n_reused : int
        Parts that were there already.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.n_reused = None if folder is None else output_folder(folder), 0
        self._versions = versions()

    def part(self, name: str, key: Mapping[str, Any], make: Callable[[], Part]) -> Part:
        """Arrays, and numbers as JSON has them: read if they are there, else made and written.

        Parameters
        ----------
        name : str
            The beginning of the file's name.
        key : mapping
            All that the result depends on, beside versions.
        make : callable
            Returns arrays without NaN, and a dictionary that JSON can hold.
        """
        found = self._read(name, key)
        if found is not None:
            self.n_reused += 1
            return found
        arrays, numbers = make()
        numbers = jsonable(numbers)
        path = self.path(name, key)
        if path is not None:
            write_tensors(path, KIND, arrays, {"key": self._full(key), "found": numbers})
        return arrays, numbers

    def path(self, name: str, key: Mapping[str, Any]) -> Path | None:
        """The file of a part, whether it is there or not."""
        if self.folder is None:
            return None
        text = json.dumps(self._full(key), sort_keys=True)
        return self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"

    def _full(self, key: Mapping[str, Any]) -> dict[str, Any]:
        return {"settings": jsonable(key), "versions": self._versions}

    def _read(self, name: str, key: Mapping[str, Any]) -> Part | None:
        path = self.path(name, key)
        if path is None or not path.is_file():
            return None
        try:
            arrays, settings = read_tensors(path, KIND)
        except ValueError as error:
            _logger.warning("made again: %s", error)
            return None
        # Names hold half a digest only, and files can be renamed.
        if settings.get("key") != self._full(key) or not isinstance(settings.get("found"), dict):
            _logger.warning("made again: %s holds a part of other settings", path)
            return None
        return arrays, settings["found"]


class Trained:
    """A classifier that is trained when it is first asked for, or read if an earlier run has trained it.

    Parameters
    ----------
    store : Store
    name : str
    key : mapping
        All that the training depends on.
    train : callable
        Returns the fitted classifier, which has ``save``.
    read : callable
        The classifier of a file.
    """

    def __init__(
        self, store: Store, name: str, key: Mapping[str, Any], train: Callable[[], Any], read: Callable[[Path], Any]
    ) -> None:
        self._train, self._read, self._clf = train, read, None
        self._path = store.path(f"{name}-model", key)
        # The record is written after the model: where it is, the model is whole.
        _, found = store.part(f"{name}-training", key, self._record)
        self.seconds: float = found["seconds"]

    @property
    def classifier(self) -> Any:
        """The fitted classifier."""
        if self._clf is None and self._path is not None:
            try:
                self._clf = self._read(self._path)
            except (FileNotFoundError, ValueError) as error:
                _logger.warning("trained again: %s", error)
                self._record()
        return self._clf

    def _record(self) -> Part:
        start = time.perf_counter()
        clf = self._train()
        seconds = time.perf_counter() - start
        if self._path is not None:
            clf.save(self._path)
        self._clf = clf
        return {}, {"seconds": seconds}
