"""What several commands share: models by name or file, data from files, and where things are written."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .._io.arguments import seed_type, sigma_type, whole
from .._io.messages import near
from .._io.outputs import output_file
from ._samples import read_samples

if TYPE_CHECKING:
    from ..bayes.classifier import BayesClassifier
    from ..mixture.mfa import MFA

__all__ = [
    "ARRAYS",
    "FRESH",
    "JSON",
    "MODEL",
    "VARIANT",
    "add_classifier",
    "add_data",
    "check_outputs",
    "check_picture",
    "is_pair",
    "load_classifier",
    "load_classifier_and_data",
    "load_data",
    "load_mixture",
    "read_samples",
    "refuse",
    "samples_from",
]

Array = NDArray[Any]
# The option, its file, and the endings that the file may have; () for any, which is checked elsewhere.
Output = tuple[str, Path | None, tuple[str, ...]]

ARRAYS, JSON, MODEL = (".npz",), (".json",), (".safetensors",)

# Defaults of the options that say which pair, and which fresh samples.
VARIANT: dict[str, Any] = {"variant": "symmetric", "sigma": 0.01}
FRESH: dict[str, Any] = {"samples": 200, "seed": 0}


def add_classifier(parser: argparse.ArgumentParser) -> None:
    """Arguments that say which classifier."""
    parser.add_argument("classifier", help="a shipped pair such as mnist-06, or a classifier's .safetensors file")
    parser.add_argument(
        "--variant", choices=("symmetric", "asymmetric", "as-is"), default="symmetric",
        help="default: %(default)s; as-is takes the model as it was fitted",
    )  # fmt: skip
    parser.add_argument(
        "--sigma", type=sigma_type, default=0.01, help="noise of the symmetric variant (default: %(default)s)"
    )


def load_classifier(args: argparse.Namespace) -> BayesClassifier:
    """The classifier of :func:`add_classifier`'s arguments."""
    from ..datasets.shipped import load_pair

    clf = load_pair(args.classifier)
    if args.variant == "as-is":
        return clf
    sym = clf.symmetric(args.sigma)
    return sym if args.variant == "symmetric" else sym.asymmetric()


def check_outputs(*outputs: Output) -> None:
    """Raise, before any work, for a file that cannot be written, or is to be written twice, or has another ending than
    what is written to it.
    """
    given = [(flag, path, endings) for flag, path, endings in outputs if path is not None]
    targets = [output_file(path).resolve() for _, path, _ in given]
    twice = [target for i, target in enumerate(targets) if target in targets[:i]]
    if twice:
        raise ValueError(f"two results cannot both be written to {twice[0]}; give each a file of its own")
    for flag, path, endings in given:
        if endings and path.suffix not in endings:
            raise ValueError(f"{flag} must end in {' or '.join(endings)}, which is what is written, got {path}")


def check_picture(path: Path | None) -> None:
    """Raise, before any work, for a picture that cannot be drawn: no matplotlib, or no format of this name."""
    if path is None:
        return
    from ..plots.common import new_figure

    formats = new_figure(1, 1).canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise ValueError(f"--picture must end in one of .{', .'.join(sorted(formats))}, such as x.png, got {path}")


def refuse(args: argparse.Namespace, defaults: dict[str, Any], why: str) -> None:
    """Raise for options that mean nothing here and were given other than their defaults, rather than ignore them."""
    given = [f"--{name.replace('_', '-')}" for name, default in defaults.items() if getattr(args, name) != default]
    if given:
        raise ValueError(f"{', '.join(given)}: {why}; leave it out")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Arguments that say which samples."""
    parser.add_argument("--data", type=Path, help=".npz with X [n, d] and optionally y [n], or .npy with X")
    parser.add_argument(
        "--samples", type=whole(), default=200, metavar="N", help="fresh samples, without --data (default: 200)"
    )
    parser.add_argument("--seed", type=seed_type, default=0, help="of the fresh samples (default: %(default)s)")


def load_data(args: argparse.Namespace, clf: BayesClassifier) -> tuple[Array, Array | None]:
    """X [n, d] and y [n] or None of :func:`add_data`'s arguments; fresh samples come from the main components."""
    if args.data is not None:
        refuse(args, FRESH, "--data has its own samples")
        return read_samples(args.data)
    if args.variant == "asymmetric":
        clf = load_classifier(argparse.Namespace(**{**vars(args), "variant": "symmetric"}))
    return clf.sample(args.samples, rng=args.seed, balanced=True)


def load_classifier_and_data(args: argparse.Namespace) -> tuple[Any, Array, Array | None, str | None]:
    """The classifier, a trained one too, X, y and, of a Bayes classifier, which variant it is."""
    if Path(args.classifier).suffix == ".safetensors":
        from .._io.tensor_files import read_kind
        from ..classifiers import load

        if read_kind(args.classifier) not in ("bayes-classifier", "mfa"):
            clf = load(args.classifier)
            if args.data is None:
                raise ValueError(
                    f"{args.classifier} is a {type(clf).__name__}, which has no samples of its own; give --data, such "
                    f"as what mfakit sample writes"
                )
            refuse(
                args, VARIANT | FRESH, f"{args.classifier} is a {type(clf).__name__} and is taken with --data as it is"
            )
            return clf, *read_samples(args.data), None
    clf = load_classifier(args)
    return clf, *load_data(args, clf), args.variant


@contextlib.contextmanager
def samples_from(path: Path | None) -> Iterator[None]:
    """Name the file in errors about its samples, which the library calls X and y."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if path is None or not str(error).startswith(("X ", "y ")):
            raise
        raise type(error)(f"{path}: {error}") from error


def is_pair(name: str) -> bool:
    """Whether `name` is a file of a classifier, and not of one mixture."""
    from .._io.tensor_files import read_kind

    path = Path(name)
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        return read_kind(path) == "bayes-classifier"
    except ValueError:
        return False  # said where it is loaded


def load_mixture(name: str) -> MFA:
    """A mixture from a file, or class C of a pair as PAIR:C, which is shipped or a file."""
    from ..datasets import available_bayes_pairs, load_bayes_pair
    from ..mixture.mfa import MFA

    if name in available_bayes_pairs() or is_pair(name):
        raise ValueError(f"{name} is a pair of mixtures: say which, as in {name}:0")

    pair, colon, cls = name.rpartition(":")
    if colon and cls.isdecimal() and is_pair(pair):
        from ..bayes.classifier import BayesClassifier

        mixtures = BayesClassifier.load(pair).mixtures
        if int(cls) >= len(mixtures):
            raise ValueError(f"{name!r}: {pair} has classes 0 to {len(mixtures) - 1}")
        return mixtures[int(cls)]
    if not colon or name.endswith(".safetensors"):
        close = [] if Path(name).exists() else near(name, available_bayes_pairs())
        if close:
            raise ValueError(f"no model file at {name}; did you mean {close[0]}:0, a class of a shipped pair?")
        return MFA.load(name)
    if cls not in ("0", "1"):
        raise ValueError(f"{name!r}: the class of a shipped pair is 0 or 1, as in mnist-06:0")
    return load_bayes_pair(pair).mixtures[int(cls)]
