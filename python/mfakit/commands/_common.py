"""What several commands share: models by name or file, data from files, and where things are written."""

from __future__ import annotations

import argparse
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._arguments import seed_type, sigma_type, whole
from .._outputs import output_file

if TYPE_CHECKING:
    from ..bayes import BayesClassifier
    from ..mfa import MFA

__all__ = [
    "FRESH",
    "VARIANT",
    "add_classifier",
    "add_data",
    "check_outputs",
    "check_picture",
    "load_classifier",
    "load_data",
    "load_mixture",
    "read_samples",
    "refuse",
]

Array = NDArray[Any]

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
    from ..bayes import BayesClassifier
    from ..datasets import load_bayes_pair

    if Path(args.classifier).suffix == ".safetensors":
        clf = BayesClassifier.load(args.classifier)
    else:
        clf = load_bayes_pair(args.classifier)
    if args.variant == "as-is":
        return clf
    sym = clf.symmetric(args.sigma)
    return sym if args.variant == "symmetric" else sym.asymmetric()


def check_outputs(*paths: Path | None) -> None:
    """Raise, before any work, for a file that cannot be written, or one that is to be written twice."""
    targets = [output_file(path).resolve() for path in paths if path is not None]
    twice = [target for i, target in enumerate(targets) if target in targets[:i]]
    if twice:
        raise ValueError(f"two results cannot both be written to {twice[0]}; give each a file of its own")


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


def read_samples(path: Path) -> tuple[Array, Array | None]:
    """X and y (None if there is none) from a .npz or .npy file; nothing in it is executed."""
    if not path.is_file():
        raise FileNotFoundError(f"no data file at {path}")
    try:
        # Opened here, because np.load leaves the file open when it is a broken zip.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if not hasattr(loaded, "files"):
                return loaded, None
            if "X" not in loaded.files:
                raise ValueError(f"has arrays {', '.join(loaded.files) or 'none'}, but no X")
            return loaded["X"], loaded["y"] if "y" in loaded.files else None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a readable .npz or .npy file: {error}") from None


def load_mixture(name: str) -> MFA:
    """A mixture from a file, or class C of a shipped pair as PAIR:C."""
    from ..datasets import available_bayes_pairs, load_bayes_pair
    from ..mfa import MFA

    if name in available_bayes_pairs():
        raise ValueError(f"{name} is a pair of mixtures: say which, as in {name}:0")

    pair, colon, cls = name.rpartition(":")
    if not colon or name.endswith(".safetensors"):
        return MFA.load(name)
    if cls not in ("0", "1"):
        raise ValueError(f"{name!r}: the class of a shipped pair is 0 or 1, as in mnist-06:0")
    return load_bayes_pair(pair).mixtures[int(cls)]
