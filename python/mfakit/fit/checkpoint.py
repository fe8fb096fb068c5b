"""The file that a long fit goes on from: written whole or not at all, for one fit alone.

Beside the state it has what the fit depends on: version, settings and a digest of the data. Another fit that is given
the file is refused with what differs, because going on would mix the two.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.rows import to_numpy
from .._checks import check_numbers
from .._io.messages import excerpt
from .._io.outputs import PathLike, output_file
from .._io.tensor_files import read_tensors, write_tensors
from .._version import __version__
from ..mixture.mfa import MFA
from .source import Source

__all__ = ["Checkpoint", "Saved", "check_checkpoint", "checkpoint_of_start", "numbered", "what_it_is"]

Array = NDArray[Any]
# Arrays, and what JSON can hold.
Saved = tuple[dict[str, Array], dict[str, Any]]
_logger = logging.getLogger("mfakit")

# What the file calls itself, and the version of what is in it: raise it when that changes.
KIND, STATE_VERSION = "fit-checkpoint", 1
# The estimator's parameters that a fit depends on, of those that JSON can hold.
SETTINGS = ("n_components", "n_factors", "noise", "tol", "noise_floor", "missing", "method", "backend")
# The keys of the file's settings.
FIT, STATE, RANDOM, VERSION = "fit", "state", "random", "state_version"


class Checkpoint:
    """The checkpoint of one fit at a path, from an earlier run or yet to be written.

    Parameters
    ----------
    path : path
    every : float
        Seconds between two writes.
    fit : mapping
        What the fit depends on, as JSON has it.

    Attributes
    ----------
    random : dict
        The state of the generator that further starts draw from, kept in the file.

    Raises
    ------
    ValueError
        For a file of another fit, with what differs, or one that is no checkpoint.
    OSError
        For a path that cannot be written to.
    """

    def __init__(self, path: PathLike, every: float, fit: Mapping[str, Any]) -> None:
        self.path, self.every, self._fit = output_file(path), every, dict(fit)
        self.random: dict[str, Any] = {}
        self._written, self._steps = time.monotonic(), -1
        self._saved = self._read() if self.path.exists() else None

    @property
    def exists(self) -> bool:
        """Whether an earlier run has left a state to go on from."""
        return self._saved is not None

    def take(self) -> Saved | None:
        """The state of an earlier run; from then on it is the caller's."""
        saved, self._saved = self._saved, None
        return saved

    def restore(self, rng: np.random.Generator) -> None:
        """Put a generator in the state that it had when the fit's start was found."""
        try:
            rng.bit_generator.state = self.random
        except (KeyError, TypeError, ValueError, OverflowError, IndexError):
            raise ValueError(
                f"{self.path} is no whole checkpoint of a fit (its random numbers are no state of a "
                f"{type(rng.bit_generator).__name__}); remove it to start anew"
            ) from None

    def offer(self, n_steps: int, pack: Callable[[], Saved], *, last: bool = False) -> None:
        """Write the state after a step that `pack` returns, if that is due, or the `last` one.

        Raises
        ------
        OSError
            Where it cannot be written; the file of an earlier step stays.
        """
        if n_steps == self._steps or not (last or time.monotonic() - self._written >= self.every):
            return
        tensors, state = pack()
        settings = {VERSION: STATE_VERSION, FIT: self._fit, RANDOM: plain(self.random), STATE: state}
        try:
            write_tensors(self.path, KIND, tensors, settings)
        except OSError as error:
            before = f"that of step {self._steps} stays" if self._steps >= 0 else "there is none yet"
            reason = error.strerror or str(error)
            raise OSError(
                error.errno, f"the checkpoint {self.path} of step {n_steps} cannot be written ({reason}); {before}"
            ) from error
        self._written, self._steps = time.monotonic(), n_steps
        _logger.info("the fit's state after step %d is in %s", n_steps, self.path)

    def _read(self) -> Saved:
        tensors, settings = read_tensors(self.path, KIND)
        found, state, random = (settings.get(key) for key in (FIT, STATE, RANDOM))
        if not (isinstance(found, dict) and isinstance(state, dict) and isinstance(random, dict)):
            raise ValueError(f"{self.path} is no checkpoint of a fit: its settings lack what one has")
        differences = [
            f"{name} is {excerpt(found.get(name), 80)} there and {excerpt(value, 80)} here"
            for name, value in self._fit.items()
            if found.get(name) != value
        ]
        if settings.get(VERSION) != STATE_VERSION:
            differences = [f"its version is {excerpt(settings.get(VERSION))} there and {STATE_VERSION} here"]
        if differences:
            raise ValueError(
                f"{self.path} is the checkpoint of another fit: {'; '.join(differences[:3])}. Give this fit another "
                "path, or remove the file to start anew"
            )
        self.random, self._steps = random, int(state.get("n_iter", -1))
        return tensors, state


def check_checkpoint(path: Any, every: Any, solver: str = "em") -> None:
    """Raise for arguments of a fit that make no checkpoint; a path of None is none."""
    if path is None:
        return
    if not isinstance(path, str | os.PathLike) or Path(path).suffix != ".safetensors":
        raise ValueError(f"checkpoint must be the path of a .safetensors file, or None, got {path!r}")
    check_numbers({"checkpoint_every": every}, positive=False)
    if solver != "em":
        raise ValueError(f'checkpoint is for solver="em", got solver={solver!r}; leave it out')
    output_file(path)


def numbered(path: PathLike, name: str, number: int) -> Path:
    """The path of one of several checkpoints that belong together, such as ``fit-class1.safetensors``."""
    path = Path(path)
    return path.with_name(f"{path.stem}-{name}{number}{path.suffix}")


def checkpoint_of_start(
    path: PathLike | None, every: float, fit: Mapping[str, Any] | None, i: int
) -> Checkpoint | None:  # fmt: skip
    """That of start `i` of a fit whose first start's is at `path`; None without a path."""
    if path is None or fit is None:
        return None
    return Checkpoint(numbered(path, "start", i) if i else path, every, {**fit, "start": i})


def what_it_is(estimator: Any, source: Source, rng: np.random.Generator, own: MFA | None) -> dict[str, Any]:
    """What a fit depends on: version, settings, data and random numbers, as JSON has them; `own` is the mixture that it
    starts from, if there is one. Whatever changes rounding only, such as threads, is left out.
    """
    survey = source.survey
    return {
        "mfakit": __version__,
        "the data": f"[{source.n_read}, {survey.n_features}] {survey.dtype}, digest {source.digest()}",
        **{name: plain(getattr(estimator, name)) for name in SETTINGS},
        "init": _text(estimator.init),
        "the start": None if own is None else _digest(*own.to_tensors("").values()),
        "means_init": None if estimator.means_init is None else _text(to_numpy(estimator.means_init)),
        "weights_init": None if estimator.weights_init is None else _text(to_numpy(estimator.weights_init)),
        "random_state": _seed(estimator.random_state, rng),
        "the device": source.on_device,
    }


def _seed(random_state: Any, rng: np.random.Generator) -> Any:
    if random_state is None or isinstance(random_state, int | np.integer):
        return plain(random_state)
    return _text(plain(rng.bit_generator.state))


def _text(value: Any) -> str:
    """A word as it is, a mixture's name, and the digest of anything else."""
    if isinstance(value, str | MFA):
        return str(value)
    return f"one of digest {_digest(value)}"


def _digest(*values: Any) -> str:
    """Of arrays, or of what JSON can hold."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            digest.update(repr((value.shape, value.dtype.str)).encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        else:
            digest.update(json.dumps(value, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def plain(value: Any) -> Any:
    """Numbers and generators' states in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
