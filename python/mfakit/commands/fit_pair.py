"""``mfakit fit-pair``: Bayes pairs from images, in one command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._io.arguments import number, seed_type, whole
from .._io.outputs import output_folder
from ._common import Array, read_samples, refuse
from .fit import in_flags

if TYPE_CHECKING:
    from ..bayes.classifier import BayesClassifier

SAMPLES_PER_COMPONENT = 1000


@dataclass(frozen=True)
class Source:
    """Images of two classes: the name of their pair, how they are loaded (X uint8 or float [n, d], y [n] of 0 and 1),
    what the file says of them, and the components and factors that they usually have.
    """

    name: str
    load: Callable[[], tuple[Array, Array]]
    said: dict[str, Any]
    components: int | None
    factors: int


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "fit-pair",
        help="fit a pair of mixtures to images of two classes",
        description="Fit a mixture to the images of each of two classes and write them as a Bayes pair, with what "
        "asymmetric variants need of the images. Every command that takes a shipped pair takes the file. A pair whose "
        "file is there, of the same settings, is kept.",
        epilog="examples:\n  mfakit fit-pair --mnist 0 6 2 7 --out pairs\n"
        "  mfakit fit-pair --celeba all --out pairs\n"
        "  mfakit fit-pair --cifar10 0 1 --out pairs\n"
        "  mfakit fit-pair --data cats.npy dogs.npy --components 5 --factors 8 --out pairs\n"
        "  mfakit fit-pair --images folder/cats folder/dogs --components 25 40 --tol 1e-4 --out pairs",
    )  # fmt: skip
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--mnist", type=whole(0, 9), nargs="+", metavar="DIGIT", help="digits, two a pair")
    source.add_argument(
        "--celeba", nargs="+", metavar="ATTRIBUTE", help="without and with an attribute; or all of the paper's"
    )
    source.add_argument("--cifar10", type=whole(0, 9), nargs="+", metavar="CLASS", help="classes, two a pair")
    source.add_argument("--data", type=Path, nargs=2, metavar="FILE", help=".npy or .npz with X [n, d] of either class")
    source.add_argument("--images", type=Path, nargs=2, metavar="FOLDER", help="JPEG and PNG images of one size")
    parser.add_argument("--data-root", type=Path, help="where the data sets are (default: MFAKIT_DATA)")
    parser.add_argument("--download", action="store_true", help="fetch MNIST or CIFAR-10 if it is not there")
    parser.add_argument(
        "--components",
        type=whole(),
        nargs="+",
        metavar="K",
        help="of both classes, or of each, as in 25 40 (default: 25 for MNIST, else a thousandth of the images of a "
        "class, at least 2)",
    )
    parser.add_argument("--factors", type=whole(0), help="l (default: 6 for MNIST, else 10)")
    parser.add_argument("--noise", choices=("isotropic", "diagonal"), default="isotropic", help="default: %(default)s")
    parser.add_argument("--max-iter", type=whole(0), default=100, help="default: %(default)s")
    parser.add_argument("--tol", type=number(0, 1e300), default=1e-3, help="nats per sample (default: %(default)s)")
    parser.add_argument("--seed", type=seed_type, default=0, help="default: %(default)s")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FOLDER",
        help="a folder to keep EM's states in, once a minute, a file a class, and to go on from",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("pairs"), help="folder of the files (default: %(default)s)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Fit and write, one pair after the other."""
    components = _each_class(args.components)
    folder = output_folder(args.out)
    states = None if args.checkpoint is None else output_folder(args.checkpoint)
    # Of images that an earlier pair of this run has, too: the attributes of CelebA share theirs.
    steps: dict[str, dict[str, Array]] = {}
    for source in _sources(args):
        path = folder / f"{source.name}.safetensors"
        X, y = source.load()
        images, classes = _digest(X), _digest(y)
        settings = {
            **source.said, "images": images, "classes_of_images": classes, "components": components,
            "factors": source.factors if args.factors is None else args.factors, "noise": args.noise,
            "max_iter": args.max_iter, "tol": args.tol, "seed": args.seed,
        }  # fmt: skip
        pair = _fitted_before(path, settings)
        if pair is not None:
            print(f"kept: {path}")
        else:
            state = None if states is None else states / f"{source.name}.safetensors"
            pair = _fit(source, X, y, settings, args.progress, steps.get(images), state)
            pair.save(path)
            print(f"written: {path}")
        steps[images] = pair.extras
    return 0


def _each_class(components: list[int] | None) -> list[int] | None:
    """Components of both classes, where they were given for one or both."""
    if components is None or len(components) == 2:
        return components
    if len(components) > 2:
        raise ValueError(f"--components must be one number or one of each class, got {' '.join(map(str, components))}")
    return components * 2


def _digest(values: Array) -> str:
    """Of all bytes, so that other data of the same names are fitted anew."""
    import hashlib

    digest = hashlib.sha256(repr((values.shape, values.dtype.str)).encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()[:16]


def _fitted_before(path: Path, settings: dict[str, Any]) -> BayesClassifier | None:
    """The pair in the file, if it is one of these settings."""
    from ..bayes.classifier import BayesClassifier

    if not path.is_file():
        return None
    try:
        pair = BayesClassifier.load(path)
    except ValueError as error:
        print(f"mfakit: warning: fitted again: {error}", file=sys.stderr)
        return None
    return pair if pair.metadata.get("fit_pair") == settings else None


def _fit(
    source: Source, X: Array, y: Array, settings: dict[str, Any], progress: bool | None, step: dict[str, Array] | None,
    state: Path | None,
) -> BayesClassifier:  # fmt: skip
    """The pair of images X [n, d], bytes or real numbers, of classes y [n]; `step`: to the outliers, if it is known;
    `state`: what the names of checkpoints begin with.
    """
    import warnings

    from ..fit import MFAClassifier

    for c in (0, 1):
        if not (y == c).any():
            raise ValueError(f"{source.name} has no image of class {c}")
    X = np.divide(X, np.float32(255), dtype=np.float32) if X.dtype == np.uint8 else X
    counts = np.bincount(y, minlength=2)
    usual = [source.components or max(2, round(int(n) / SAMPLES_PER_COMPONENT)) for n in counts]
    components = settings["components"] or usual
    estimator = MFAClassifier(
        components, settings["factors"], noise=settings["noise"], max_iter=settings["max_iter"], tol=settings["tol"],
        priors=[0.5, 0.5], random_state=settings["seed"], progress=progress,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: print(f"mfakit: warning: {source.name}: {message}", file=sys.stderr)
        pair = estimator.fit(X, y, checkpoint=state).bayes_
    direction = min(50, X.shape[1], len(X) - 1)
    pair = pair.with_outlier_step(X, direction=direction) if step is None else pair.replace(extras=step)
    sizes = " and ".join(f"{k} components of {n} images" for k, n in zip(components, counts, strict=True))
    print(f"{source.name}: {sizes}, {X.shape[1]} values each; outlier's direction {direction}")
    return pair.replace(metadata={"fit_pair": settings})


def _sources(args: argparse.Namespace) -> Iterator[Source]:
    """What is to be fitted; missing data and unknown names are errors before anything is."""
    from ..datasets import load_celeba, load_cifar10, load_mnist

    if args.data is not None or args.images is not None:
        refuse(args, {"download": False, "data_root": None}, "the files are named already")
        yield _of_files(args.data) if args.data is not None else _of_folders(args.images, args.progress)
        return
    where = {"root": args.data_root, "download": args.download}
    try:
        if args.celeba is not None:
            yield from _of_attributes(args, load_celeba)
            return
        name, load, classes, usual = (
            ("mnist", load_mnist, args.mnist, (25, 6)) if args.mnist is not None
            else ("cifar10", load_cifar10, args.cifar10, (None, 10))
        )  # fmt: skip
        pairs = _two_by_two(f"--{name}", classes)
        load(**where, classes=pairs[0], as_uint8=True)
        for pair in pairs:
            yield Source(
                f"{name}-{pair[0]}{pair[1]}", partial(_two_of, load, **where, classes=pair),
                {"data": name, "classes": list(pair)}, *usual,
            )  # fmt: skip
    except (OSError, ValueError) as error:
        raise type(error)(in_flags(str(error))) from error


def _two_of(load: Callable[..., Any], *args: Any, **options: Any) -> tuple[Array, Array]:
    """A loader's training images and their classes."""
    X, y, *_ = load(*args, as_uint8=True, **options)
    return X, y


def _two_by_two(flag: str, classes: list[int]) -> list[tuple[int, int]]:
    pairs = list(zip(classes[::2], classes[1::2], strict=False))
    if len(classes) % 2 or any(a == b for a, b in pairs):
        raise ValueError(f"{flag} must name two different classes a pair, got {' '.join(map(str, classes))}")
    return list(dict.fromkeys(pairs))


def _of_attributes(args: argparse.Namespace, load: Callable[..., Any]) -> Iterator[Source]:
    from ..datasets.celeba import PAPER_ATTRIBUTES, require_attributes

    names = PAPER_ATTRIBUTES if "all" in args.celeba else tuple(dict.fromkeys(args.celeba))
    require_attributes(args.data_root, names, args.download)
    for name in names:
        yield Source(
            f"celeba-{name}",
            partial(_two_of, load, args.data_root, name, progress=args.progress),
            {"data": "celeba", "attribute": name}, None, 10,
        )  # fmt: skip


def _of_files(paths: list[Path]) -> Source:
    parts = [read_samples(path)[0] for path in paths]
    widths = [X.shape[1] if X.ndim == 2 else None for X in parts]
    if None in widths or widths[0] != widths[1]:
        raise ValueError(
            f"{paths[0]} and {paths[1]} must hold X [n, d] of the same d, got {parts[0].shape} and {parts[1].shape}"
        )
    return Source(_joint_name(paths), lambda: _joined(parts), _said("files", paths), None, 10)


def _of_folders(paths: list[Path], progress: bool | None) -> Source:
    from ..datasets._image_folders import load_image_folders

    parts, shape = load_image_folders(paths, progress)
    return Source(
        _joint_name(paths), lambda: _joined(parts), {**_said("folders", paths), "shape": list(shape)}, None, 10
    )


def _joint_name(paths: list[Path]) -> str:
    return "-".join(path.resolve().stem for path in paths)


def _said(kind: str, paths: list[Path]) -> dict[str, Any]:
    """What the pair's file says of its data's places."""
    return {"data": kind, "classes": [path.resolve().name for path in paths]}


def _joined(parts: list[Array]) -> tuple[Array, Array]:
    return np.concatenate(parts), np.repeat([0, 1], [len(X) for X in parts])
