"""The paper's experiments, one file each; ``mfakit reproduce NAME`` runs them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .._io.messages import excerpt, meant

__all__ = ["EXPERIMENTS", "load_experiment"]

# Name -> what it shows. The module of the same name has add_arguments(parser) and run_command(args).
EXPERIMENTS = {
    "bayes": "the optimal classifier is robust on symmetric pairs and brittle on asymmetric ones (Figures 5, 14, 15)",
    "table1": "which classifiers that learn from symmetric pairs are robust (Table 1, Figures 7, 8, 18)",
    "theorems": "what certified radii do as σ → 0: Theorems 1 to 3 validated",
    "quantization": "discrete classes whose points are all one level from the boundary (Figure 3, Lemma A.2)",
}


def load_experiment(name: str) -> ModuleType:
    """The module of an experiment.

    Raises
    ------
    ValueError
        For another name; the message lists those there are.
    """
    if name not in EXPERIMENTS:
        raise ValueError(
            f"no experiment {excerpt(name)}; there are {', '.join(EXPERIMENTS)}{meant(str(name), EXPERIMENTS)}"
        )
    return import_module(f".{name}", __name__)


def __dir__() -> list[str]:
    return sorted(__all__)
