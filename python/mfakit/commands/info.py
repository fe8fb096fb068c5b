"""``mfakit info``: what this installation can do, and why it cannot do the rest."""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

from .._io.report import installed, processor
from .._version import __version__

PACKAGES = ("numpy", "scipy", "numba", "scikit-learn", "torch", "matplotlib", "cupy-cuda12x", "cupy-cuda13x")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "info",
        help="versions, backends and why one is missing, threads, devices, data",
        description="What this installation can do, and why it cannot do the rest.",
        epilog="example:\n  mfakit info",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from .._arrays.options import Options
    from ..backends import BACKENDS, available, why_missing
    from ..datasets import available_bayes_pairs

    print(f"mfakit {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"{'processor':16s} {processor()}")
    for name in BACKENDS:
        reason = why_missing(name)
        default = " (default)" if available()[0] == name else ""
        print(f"{name + ' backend':16s} {f'yes{default}{_build(name)}' if reason is None else f'no: {reason}'}")
    reason = why_missing("cuda")
    print(f"{'cuda backend':16s} {'yes' if reason is None else f'no: {reason}'}")
    if reason is None:
        from ..backends._cuda.engine import devices

        for line in devices():
            print(f"{'':16s} {line}")
    print(f"{'threads':16s} {Options().threads}")
    print(f"{'shipped pairs':16s} {', '.join(available_bayes_pairs()) or 'none'}")
    print(f"{'MFAKIT_DATA':16s} {os.environ.get('MFAKIT_DATA', 'not set')}")
    versions = installed(PACKAGES)
    for package in PACKAGES:
        print(f"{package:16s} {versions.get(package, 'not installed')}")
    return 0


def _build(name: str) -> str:
    if name != "native":
        return ""
    from .. import _native

    threads = "OpenMP" if _native.openmp else "one thread: built without OpenMP"
    return f", {threads}, compiler {_native.compiler}"
