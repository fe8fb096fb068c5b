"""The libraries that are compared with: installed ones by their import name, others by the folder of a checkout."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mfakit.bench import Skipped
from mfakit.bench.provenance import commit


@dataclass(frozen=True)
class Library:
    """One of them.

    Attributes
    ----------
    name : str
        In tables.
    module : str
        What is imported.
    package : str or None
        What ``pip install`` takes; None for a checkout, whose folder the user names.
    """

    name: str
    module: str
    package: str | None

    def load(self, checkouts: Mapping[str, Path]) -> tuple[Any, str]:
        """The module, and its version or commit.

        Raises
        ------
        Skipped
            Where it is not there, with what to do about it, or cannot be imported.
        """
        folder = checkouts.get(self.name)
        if self.package is None and folder is None:
            raise Skipped(f"no checkout of {self.name} is named: --checkout {self.name}=FOLDER")
        try:
            with _first_on_the_path(folder), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = import_module(self.module)
        except ModuleNotFoundError as error:
            if error.name != self.module.partition(".")[0]:
                raise Skipped(f"{self.name} cannot be imported: {first_line(error)}") from error
            remedy = f"its checkout has no module {self.module}" if folder else f"pip install {self.package}"
            raise Skipped(f"{self.name} is not installed: {remedy}") from error
        except Exception as error:  # such as a compiled extension for another version of torch
            raise Skipped(f"{self.name} cannot be imported: {first_line(error)}") from error
        return module, self._version(folder)

    def _version(self, folder: Path | None) -> str:
        if self.package is None:
            return "" if folder is None else commit(_any_file(folder)) or ""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""


def first_line(error: Exception) -> str:
    """What it says, without the folders of this machine: it stands in results that are published."""
    return re.sub(r"(?<!\S)/\S*/", "", (str(error).splitlines() or [""])[0])


def _any_file(folder: Path) -> Path:
    """A file of the checkout that git may know."""
    return next((path for path in (folder / "README.md", folder / "README") if path.exists()), folder / "README.md")


@contextmanager
def _first_on_the_path(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


TORCH = Library("torch.distributions", "torch", "torch")
SKLEARN = Library("scikit-learn", "sklearn", "scikit-learn")
LINEAR_OPERATOR = Library("linear_operator", "linear_operator", "linear_operator")
FOOLBOX = Library("foolbox", "foolbox", "foolbox")
ART = Library("adversarial-robustness-toolbox", "art.attacks.evasion", "adversarial-robustness-toolbox")
ADV_LIB = Library("adv-lib", "adv_lib.attacks", "adv-lib")
TORCHATTACKS = Library("torchattacks", "torchattacks", "torchattacks")
TORCH_MFA = Library("torch-mfa", "mfa", None)
VAMM = Library("VAMM", "vamm", None)
LIBRARIES = (TORCH, SKLEARN, LINEAR_OPERATOR, FOOLBOX, ART, ADV_LIB, TORCHATTACKS, TORCH_MFA, VAMM)
