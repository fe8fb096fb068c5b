"""Where and with what a number was measured."""

from __future__ import annotations

import datetime
import os
import subprocess
from pathlib import Path
from typing import Any

from .._io.report import environment, installed

__all__ = ["commit", "provenance", "sentence"]

# What some cases use or are compared with, beside the packages of `environment`.
OTHERS = ("numba", "scikit-learn", "torch", "dask", "foolbox", "cupy-cuda12x", "cupy-cuda13x")


def commit(file: Path) -> str | None:
    """The git commit of a tracked file, ending in ``-dirty`` where its checkout has changes.

    None where there is no git, or where the file is not tracked: an installed package may stand in the folder of
    another project.
    """
    try:
        _git(file, "ls-files", "--error-unmatch", file.name)
        return _git(file, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(file: Path, *words: str) -> str:
    command = ["git", "-C", str(file.parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def provenance(backend: str, device: str | None = None, source: Path | None = None) -> dict[str, Any]:
    """Versions, backend, threads, processor and cores, device, date, and the commit where it is known.

    Parameters
    ----------
    backend : str
        Whose kernels were asked for.
    device : str or None
        The accelerator's name.
    source : Path or None
        A file of the checkout that is measured; None: this one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {**environment(), **installed(OTHERS), "backend": backend, "cores": cores, "device": device}
    day, source = datetime.date.today().isoformat(), Path(__file__) if source is None else source
    return {**found, "date": day, "commit": commit(source)}


def sentence(found: dict[str, Any]) -> str:
    """:func:`provenance` to be read; what is not known is left out."""
    known = {name: value for name, value in found.items() if value is not None}
    versions = ", ".join(
        f"{name} {known[name]}" for name in ("mfakit", "python", "numpy", "scipy", *OTHERS) if name in known
    )
    where = f"{known['device']}, host " if "device" in known else ""
    threads = f", {known['threads']} threads" if "threads" in known else ""
    blas = f", {known['blas']}" if "blas" in known else ""
    backend = f", backend {known['backend']}" if "backend" in known else ""
    at = f", commit {known['commit']}" if "commit" in known else ""
    cores = f", {known['cores']} cores" if "cores" in known else ""
    return f"Measured on {known['date']} on {where}{known['processor']}{cores}{threads}{backend}; {versions}{blas}{at}."
