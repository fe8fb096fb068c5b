"""The paper's experiments, a file or folder each; ``mfakit reproduce NAME`` runs them."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from .._checks import check_choice, check_integers
from .._io.messages import excerpt, meant
from .._io.outputs import output_folder
from .outcome import Context, Outcome

__all__ = [
    "EXPERIMENTS",
    "SCALES",
    "Context",
    "Experiment",
    "Outcome",
    "load_experiment",
    "load_result",
    "reproduce",
]

# How much is run: what --quick and --full change of an experiment's configuration.
Scale = Literal["quick", "usual", "full"]
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclass(frozen=True)
class Experiment:
    """What the list of experiments says of one.

    Attributes
    ----------
    about : str
        What it shows.
    shows : tuple of str
        The paper's figures and tables that it draws, which name it as well.
    needs : tuple of str
        Packages beside those that mfakit always has.
    data : str
        What it runs on.
    quick : str
        How long ``--quick`` took, on two cores of an AMD EPYC; "of CPU": the time of its one thread, beside other work.

    Examples
    --------
    >>> import mfakit
    >>> mfakit.experiments.EXPERIMENTS["bayes"].shows
    ('fig5', 'fig14', 'fig15')
    """

    about: str
    shows: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    data: str = "shipped pairs"
    quick: str = "not measured"


# The module of the same name has Config, Result, run(config, context) and add_arguments(parser).
EXPERIMENTS = {
    "fig1": Experiment(
        "samples beside what fools the optimal classifiers, a CNN and an RBF SVM", needs=("torch",), quick="19 s",
    ),
    "fig2": Experiment("a mixture that follows a curved surface, and samples of the image models", quick="1 s"),
    "fig4": Experiment(
        "Theorem 1 in 49,152 dimensions, and a CNN", needs=("torch",), data="drawn, or two images", quick="20 s of CPU",
    ),
    "fig6": Experiment(
        "two causes of brittleness: asymmetric data, and training", needs=("torch",), data="none", quick="30 s of CPU",
    ),
    "fig13": Experiment("the outlier components of asymmetric pairs", quick="1 s"),
    "bayes": Experiment(
        "the optimal classifier is robust on symmetric pairs and brittle on asymmetric ones",
        shows=("fig5", "fig14", "fig15"), quick="2 s",
    ),
    "table1": Experiment(
        "which classifiers that learn from symmetric pairs are robust",
        shows=("fig7", "fig8", "figs16_19"), needs=("torch",), quick="1 min",
    ),
    "table2": Experiment(
        "what is robust when it learns from real images",
        shows=("fig11",), needs=("torch", "Pillow"), data="CelebA, MNIST", quick="107 s of CPU",
    ),
    "table3": Experiment(
        "real images, and networks that learned from a symmetric model of them",
        needs=("torch", "Pillow"), data="CelebA, MNIST", quick="85 s of CPU",
    ),
    "fig9": Experiment("wider and deeper networks, longer training and more samples", needs=("torch",), quick="24 s"),
    "fig10": Experiment("accuracy against robustness of adversarial training (TRADES)", needs=("torch",), quick="37 s"),
    "fig12": Experiment(
        "CIFAR-10, class i against class i + 1", needs=("torch",), data="CIFAR-10", quick="58 s of CPU",
    ),
    "cw_vs_gradient": Experiment("CW-L2 beside the gradient attack (appendix C.2)", needs=("torch",), quick="10 s"),
    "theorems": Experiment("what certified radii do as σ → 0: Theorems 1 to 3 validated", quick="25 s"),
    "theorem2": Experiment(
        "half the distances of k × k subspaces, drawn and fitted, beside certified radii",
        data="drawn, shipped pairs, MNIST", quick="4 s of CPU",
    ),
    "fig3": Experiment(
        "where optimal boundaries are far from the points, and where near; Lemma A.2", data="none", quick="3 s",
    ),
    # Last: it reads what the others have left.
    "claims": Experiment(
        "which of the paper's claims hold, from the results in OUT", data="the others' results", quick="1 s",
    ),
}  # fmt: skip


def _named() -> dict[str, str]:
    """Experiments by their own names, and by the figures and tables that they show."""
    own = {name: name for name in EXPERIMENTS}
    return own | {item: name for name, experiment in EXPERIMENTS.items() for item in experiment.shows}


def load_experiment(name: str) -> ModuleType:
    """The module of an experiment, by its name or that of a figure or table that it shows.

    Raises
    ------
    ValueError
        For another name; the message lists those there are.

    Examples
    --------
    >>> import mfakit
    >>> mfakit.experiments.load_experiment("fig14").Config().n
    500
    """
    named = _named()
    if name not in named:
        raise ValueError(f"no experiment {excerpt(name)}; there are {', '.join(named)}{meant(str(name), named)}")
    return import_module(f".{named[name]}", __name__)


def configuration(name: str, scale: Scale = "usual", **changes: Any) -> Any:
    """The configuration of an experiment at a scale, with some of its fields changed.

    Raises
    ------
    ValueError
        For an unknown experiment, scale or field, or values that the configuration refuses.
    """
    check_choice("scale", scale, SCALES)
    module = load_experiment(name)
    known = [f.name for f in fields(module.Config)]
    for field in changes:
        if field not in known:
            raise ValueError(f"{name} has no setting {field}; it has {', '.join(known)}{meant(field, known)}")
    return module.Config(**{**getattr(module, scale.upper(), {}), **changes})


def reproduce(
    name: str, *, scale: Scale = "usual", out: str | Path | None = None, data: str | Path | None = None,
    device: str = "auto", jobs: int = 1, progress: bool | None = None, **changes: Any,
) -> Outcome:  # fmt: skip
    """Run one of the paper's experiments.

    Parameters
    ----------
    name : str
        Of the experiment, or of a figure or table that it shows, such as "table1" or "fig9".
    scale : {"usual", "quick", "full"}
        How much is run.
    out : path, optional
        The result goes to the folder ``out/NAME``, finished parts to ``out/parts``, from where an interrupted run goes
        on; None writes nothing.
    data : path, optional
        Folder of the real data sets; None: ``MFAKIT_DATA``, or the user's cache.
    device : {"auto", "cpu", "cuda"}
        Of networks.
    jobs : int
        Processes that share an experiment's data sets; needs `out`, where they leave what they have finished.
    progress : bool or None
        Progress bars; None shows them on a terminal and in notebooks.
    **changes
        Fields of the experiment's configuration.

    Returns
    -------
    Outcome
        Of the experiment's own class; ``tables()``, ``notes`` and ``pictures()`` say what was found.

    Raises
    ------
    ValueError
        For an unknown experiment or setting, or a value out of range.
    FileNotFoundError
        Real data that is not there; the message says how to get it.
    ImportError
        Without a package that the experiment needs.

    Examples
    --------
    >>> import mfakit
    >>> found = mfakit.experiments.reproduce("bayes", pairs=("mnist-06",), n=4)
    >>> [row.variant for row in found.results]
    ['symmetric', 'asymmetric']
    """
    module, config = load_experiment(name), configuration(name, scale, **changes)
    folder = None if out is None else Path(out) / module.__name__.rpartition(".")[2]
    if folder is not None:
        output_folder(folder)  # an error before the work, not after it
    check_integers({"jobs": jobs}, 1)
    if jobs > 1 and out is None:
        raise ValueError("jobs needs out, a folder where several processes leave what they have finished")
    context = Context(None if out is None else Path(out), None if data is None else Path(data), device, progress)
    start = time.perf_counter()
    if jobs > 1 and hasattr(module, "by_data_set"):
        from .jobs import compute_parts

        compute_parts(module.run, module.by_data_set(config), context, jobs)
    found: Outcome = module.run(config, context)
    found = replace(found, seconds=time.perf_counter() - start)
    if folder is not None:
        found.write(folder)
    return found


def load_result(name: str, out: str | Path) -> Outcome:
    """The result of an experiment that :func:`reproduce` has written below `out`.

    Raises
    ------
    ValueError
        For an unknown experiment, or a file that is damaged or of another version.
    FileNotFoundError
        If it was not run.

    Examples
    --------
    >>> import tempfile, mfakit
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = mfakit.experiments.reproduce("fig13", pairs=("mnist-06",), out=folder)
    ...     again = mfakit.experiments.load_result("fig13", folder)
    >>> again.markdown() == first.markdown()
    True
    """
    module = load_experiment(name)
    found: Outcome = module.Result.load(Path(out) / module.__name__.rpartition(".")[2])
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
