"""Settings that the studies share: their checks, and their options on the command line."""

from __future__ import annotations

import argparse
from typing import Any

from ..._checks import check_integers, check_numbers
from ..._io.arguments import sigma_type, whole

__all__ = ["add_network", "add_sizes", "check_settings"]


def check_settings(config: Any) -> None:
    """Raise for the numbers of samples, the seed, the noise, no data or the learners of a study's configuration."""
    check_integers({"n": config.n}, 2)
    check_integers({"n_train": config.n_train}, 10)
    check_integers({"seed": config.seed}, 0)
    if hasattr(config, "sigma"):
        check_numbers({"sigma": config.sigma}, positive=True)
    if hasattr(config, "digits") and not (config.attributes or config.digits):
        raise ValueError("attributes must name at least one attribute, or digits be True; got nothing to train on")
    for learner in config.learners():
        learner.check()


def add_sizes(parser: argparse.ArgumentParser, config: Any) -> None:
    """Numbers of samples, and the noise of a model, where `config`, the class of the configuration, has it."""
    parser.add_argument("--samples", dest="n", type=whole(2), metavar="N", help=f"to test on (default: {config.n})")
    parser.add_argument(
        "--training-samples", dest="n_train", type=whole(10), metavar="N", help=f"default: {config.n_train}"
    )
    if hasattr(config, "sigma"):
        parser.add_argument("--sigma", type=sigma_type, help=f"noise of the symmetric pairs (default: {config.sigma})")


def add_network(parser: argparse.ArgumentParser, config: Any) -> None:
    """The size and training of networks."""
    for name, text in (
        ("width", "channels of the first layers"), ("depth", "convolutions"), ("epochs", "passes over the samples"),
    ):  # fmt: skip
        default = getattr(config, name)
        usual = "the class's" if default is None else default
        parser.add_argument(f"--{name}", type=whole(), help=f"of networks: {text} (default: {usual})")
