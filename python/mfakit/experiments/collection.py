"""What a folder holds of the experiments' results: those that are readable, and what is wrong with the others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .._io.messages import one_line
from . import EXPERIMENTS, load_result
from .outcome import JSON, Outcome

__all__ = ["Collection", "collect"]


@dataclass(frozen=True, eq=False)
class Collection:
    """Results by experiment.

    Attributes
    ----------
    folder : Path or None
    found : mapping of str to Outcome
        In the order of ``EXPERIMENTS``.
    damaged : mapping of str to str
        What is wrong with a result that is there and cannot be read, one sentence each.
    missing : tuple of str
        Experiments that have no result here.
    foreign : tuple of str
        Folders with a ``result.json`` of no experiment of this version.
    """

    folder: Path | None
    found: Mapping[str, Outcome]
    damaged: Mapping[str, str]
    missing: tuple[str, ...]
    foreign: tuple[str, ...] = ()


def collect(out: str | Path | None) -> Collection:
    """The results below `out`, the folder that ``mfakit reproduce --out`` was given; None has none."""
    if out is None:
        return Collection(None, {}, {}, tuple(EXPERIMENTS))
    found: dict[str, Outcome] = {}
    damaged: dict[str, str] = {}
    missing = []
    for name in EXPERIMENTS:
        try:
            found[name] = load_result(name, out)
        except FileNotFoundError:
            missing.append(name)
        except (ValueError, OSError, ImportError) as error:
            # Below the folder: what is said of it does not depend on where it stands.
            damaged[name] = one_line(str(error).replace(f"{Path(out)}{os.sep}", ""))
    return Collection(Path(out), found, damaged, tuple(missing), _foreign(Path(out)))


def _foreign(out: Path) -> tuple[str, ...]:
    try:
        names = sorted(path.name for path in out.iterdir() if (path / JSON).is_file())
    except OSError:
        return ()
    return tuple(name for name in names if name not in EXPERIMENTS)
