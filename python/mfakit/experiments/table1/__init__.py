"""Table 1: the optimal classifier of symmetric pairs is robust, and some that learn from its samples are not.

For each shipped pair: a CNN, a linear SVM and an RBF SVM are trained on samples of it, and attacked beside the Bayes
classifier on fresh ones. Every norm is compared, sample by sample, with the certified Bayes radius. Whatever is
finished is kept in a folder, and an interrupted run goes on from there.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._checks import check_integers
from ..._io.arguments import seed_type, sigma_type, whole
from ..._io.outputs import output_folder, recorded_outputs
from ..._io.progress import open_bar
from ..._io.report import write_json, write_text
from ...datasets import available_bayes_pairs, load_bayes_pair
from ..resumable import Store
from ..shipped import written_to
from .parts import CLASSIFIERS, Pair, Plan, unfitted
from .report import Table1Report, draw_pair

__all__ = ["Table1Report", "run"]

# Test samples of a pair.
QUICK, USUAL, FULL = 50, 200, 500
# In a quick run the kernel matrices of the RBF SVM and the epochs of the CNN would take most of the time.
N_TRAIN, QUICK_RBF, QUICK_CNN = 10_000, 4_000, {"width": 16, "epochs": 3}
# The paper's RBF machines have 100% on every pair of digits, which few training samples do not always reach.
RBF_THRESHOLD = "best"


def run(
    pairs: Sequence[str] | None = None,
    *,
    classifiers: Sequence[str] = CLASSIFIERS,
    n: int = USUAL,
    n_train: int | Mapping[str, int] = N_TRAIN,
    sigma: float = 0.01,
    seed: int = 0,
    clip: bool = False,
    cw_all: bool = False,
    device: str = "auto",
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    out: str | Path | None = None,
    work_dir: str | Path | None = None,
    progress: bool | None = None,
) -> Table1Report:
    """Train and attack the paper's classifiers on samples of symmetric pairs.

    Parameters
    ----------
    pairs : sequence of str, optional
        Names of shipped pairs; None takes all.
    classifiers : sequence of {"bayes", "cnn", "linear-svm", "rbf-svm"}
    n : int
        Test samples per pair, half of each class.
    n_train : int or mapping of classifier to int
        Training samples; a mapping's missing classifiers take 10,000. Who is given fewer gets the first ones.
    sigma : float
        Noise of the symmetric pairs.
    seed : int
        Of samples and training; the same seed gives the same numbers.
    clip : bool
        Clip all samples to [0, 1], and attack within it. That moves samples off their own manifolds.
    cw_all : bool
        CW-L2 on all classifiers beside the gradient attacks (appendix C.2), with the paper's preset and with our
        defaults.
    device : str
        Of the CNN: "auto", "cpu", "cuda".
    parameters : mapping of classifier to mapping, optional
        Arguments of their constructors, such as ``{"cnn": {"width": 64}}``; the rest are their defaults, but for the
        RBF SVM, which takes the largest γ that has as many held-out samples right as any: all of them, the accuracy
        that Table 1 has, where the samples suffice for it.
    out : path, optional
        Folder for table1.json, table1.md and, with matplotlib, pictures; None writes nothing.
    work_dir : path, optional
        Folder for what is finished, so that the same call goes on after an interruption; None: the folder ``parts`` in
        `out`. What it holds of other settings or versions is left alone.
    progress : bool or None
        Progress bars; None shows them on a terminal.

    Returns
    -------
    Table1Report

    Raises
    ------
    ValueError
        For a pair that is not shipped, a classifier that is none of those, numbers out of range; or if no γ reaches an
        ``accuracy_threshold`` that was asked for.
    ImportError
        Without torch, if a CNN or CW-L2 is asked for.
    BackendUnavailable
        A device that is not there.
    """
    plan = _plan(classifiers, n, n_train, sigma, seed, clip, cw_all, device, parameters)
    names = list(dict.fromkeys(pairs)) if pairs else available_bayes_pairs()
    bases = {name: load_bayes_pair(name) for name in names}
    order = tuple(c for c in CLASSIFIERS if c in classifiers)
    folder = None if out is None else output_folder(out)
    kept = Path(work_dir) if work_dir is not None else None if folder is None else folder / "parts"
    store = Store(kept)
    results = []
    with _Bar(plan, len(names), order, progress) as bar:
        for name, base in bases.items():
            pair = Pair(name, base, plan, store, progress)
            results.append(pair.run(order, bar.tell))
            if folder is not None:
                draw_pair(name, *pair.test_samples, pair.points, folder / f"{name}-table1.png")
    settings = {"pairs": names, "classifiers": order, **vars(plan)}
    found = Table1Report(results, settings, n_reused=store.n_reused)
    if folder is not None:
        write_text(folder / "table1.md", found.markdown())
        write_json(folder / "table1.json", found)
    return found


class _Bar:
    """One step for every part: the radii, each training and each attack of each pair."""

    def __init__(self, plan: Plan, n_pairs: int, classifiers: tuple[str, ...], progress: bool | None) -> None:
        steps = 1 + sum(1 + len(plan.attacks(c)) for c in classifiers)
        self._bar = open_bar(progress, total=n_pairs * steps, unit="part", desc="table1")
        self._started = False

    def tell(self, what: str) -> None:
        """The last part is finished, and this one begins."""
        self._bar.update(int(self._started))
        self._bar.set_description(what)
        self._started = True

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self._bar.update(int(self._started))
        self._bar.close()


def _plan(
    classifiers: Sequence[str], n: int, n_train: int | Mapping[str, int], sigma: float, seed: int, clip: bool,
    cw_all: bool, device: str, parameters: Mapping[str, Mapping[str, Any]] | None,
) -> Plan:  # fmt: skip
    """Settings, checked before any work."""
    given = parameters or {}
    for names in (classifiers, given, n_train if isinstance(n_train, Mapping) else ()):
        unknown = [name for name in names if name not in CLASSIFIERS]
        if unknown:
            raise ValueError(f"classifiers must be some of {', '.join(CLASSIFIERS)}, got {unknown[0]!r}")
    if not classifiers:
        raise ValueError(f"classifiers must name at least one of {', '.join(CLASSIFIERS)}, got none")
    if n < 2:
        raise ValueError(f"n must be at least 2 test samples, one of each class, got {n}")
    check_integers({"seed": seed}, 0)
    learning = [c for c in CLASSIFIERS if c in classifiers and c != "bayes"]
    own = n_train if isinstance(n_train, Mapping) else {}
    usual = N_TRAIN if isinstance(n_train, Mapping) else n_train
    numbers = {c: int(own.get(c, usual)) for c in learning}
    for name, number in numbers.items():
        if number < 10:
            raise ValueError(f"n_train must be at least 10 samples, got {number} for {name}")
    merged: dict[str, dict[str, Any]] = {c: dict(given.get(c, {})) for c in learning}
    if "rbf-svm" in merged:
        merged["rbf-svm"] = {"accuracy_threshold": RBF_THRESHOLD, **merged["rbf-svm"]}
    if "cnn" in learning or cw_all:
        device = _device(device)
    for name, own_parameters in merged.items():
        unfitted(name, own_parameters)._check_parameters()  # not when it is their turn, hours later
    return Plan(n, numbers, sigma, seed, clip, cw_all, device, merged)


def _device(name: str) -> str:
    """What "auto" is here, since parts of another device are others."""
    try:
        from ...classifiers.networks.network import as_device
    except ImportError as error:
        raise ImportError(
            "the CNN and CW-L2 need torch: pip install 'mfakit[torch]', or leave cnn out of the classifiers"
        ) from error
    return str(as_device(name))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mfakit reproduce table1``."""
    parser.add_argument("--pairs", nargs="+", metavar="PAIR", help="shipped pairs (default: all)")
    parser.add_argument("--classifiers", nargs="+", choices=CLASSIFIERS, default=list(CLASSIFIERS), help="default: all")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--samples", type=whole(2), metavar="N", help=f"test samples per pair (default: {USUAL})")
    size.add_argument(
        "--quick", action="store_true",
        help=f"{QUICK} test samples per pair, a CNN of width {QUICK_CNN['width']} with {QUICK_CNN['epochs']} epochs, "
        f"and {QUICK_RBF} samples for the RBF SVM",
    )  # fmt: skip
    size.add_argument("--full", action="store_true", help=f"{FULL} test samples per pair")
    parser.add_argument("--training-samples", type=whole(10), metavar="N", help=f"per pair (default: {N_TRAIN})")
    parser.add_argument("--sigma", type=sigma_type, default=0.01, help="noise of the pairs (default: %(default)s)")
    parser.add_argument("--cw-all", action="store_true", help="CW-L2 on all classifiers beside (appendix C.2)")
    parser.add_argument("--clip", action="store_true", help="clip samples to [0, 1] and attack within it")
    for flag, kind, text in (("width", whole(), "channels of the first layers"), ("depth", whole(), "convolutions"),
                             ("epochs", whole(), "passes over the training samples"),
                             ("label-smoothing", float, "share of a label that goes to the other class")):  # fmt: skip
        parser.add_argument(f"--{flag}", type=kind, help=f"of the CNN: {text} (default: the class's)")
    gamma = parser.add_mutually_exclusive_group()
    gamma.add_argument("--gamma", type=float, help="of the RBF SVM (default: the largest that is accurate)")
    gamma.add_argument(
        "--gamma-threshold", type=float, metavar="SHARE",
        help="what is accurate, in the search for γ: the share of held-out samples (default: the best of all γ)",
    )  # fmt: skip
    parser.add_argument("--seed", type=seed_type, default=0, help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="of the CNN: auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/table1"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--work-dir",
        type=Path,
        help="folder of finished parts; the same command goes on from there (default: OUT/parts)",
    )


def run_command(args: argparse.Namespace) -> int:
    """Run and print; returns the exit status."""
    n = QUICK if args.quick else FULL if args.full else USUAL if args.samples is None else args.samples
    n_train: dict[str, int] = {}
    if args.training_samples is not None:
        n_train = dict.fromkeys(CLASSIFIERS, args.training_samples)
    if args.quick:
        n_train["rbf-svm"] = min(QUICK_RBF, n_train.get("rbf-svm", QUICK_RBF))
    cnn = {name: getattr(args, name) for name in ("width", "depth", "epochs", "label_smoothing")}
    rbf = {"gamma": args.gamma, "accuracy_threshold": args.gamma_threshold}
    parameters = {
        name: {key: value for key, value in given.items() if value is not None}
        for name, given in (("cnn", cnn), ("rbf-svm", rbf))
    }
    if args.quick:
        parameters["cnn"] = {**QUICK_CNN, **parameters["cnn"]}
    with recorded_outputs() as written:
        found = run(
            args.pairs, classifiers=args.classifiers, n=n, n_train=n_train, sigma=args.sigma, seed=args.seed,
            clip=args.clip, cw_all=args.cw_all, device=args.device, parameters=parameters, out=args.out,
            work_dir=args.work_dir, progress=args.progress,
        )  # fmt: skip
    print(found.table().terminal())
    print()
    print(textwrap.fill(found.notes, 100))
    kept = args.work_dir or args.out / "parts"
    reused = f", {found.n_reused} of them from before" if found.n_reused else ""
    print(f"\n{written_to(args.out, written)}; finished parts are in {kept}{reused}")
    return 0
