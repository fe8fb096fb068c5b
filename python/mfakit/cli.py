"""``mfakit``: the command line. Parsing is here and in commands/, the work is the library's."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence

from ._io.arguments import Parser
from ._io.messages import one_line
from ._version import __version__
from .commands import attack, bench, certify, distances, fit, fit_pair, info, report, reproduce, sample, train

__all__ = ["main"]

COMMANDS = (reproduce, report, fit, fit_pair, sample, train, attack, certify, distances, bench, info)
EXPECTED = (ValueError, TypeError, OSError, ImportError, MemoryError, RuntimeError)


def _parser() -> Parser:
    parser = Parser(
        prog="mfakit",
        description="Mixtures of factor analyzers, their Bayes-optimal classifiers, and how robust those are.",
        epilog="example: mfakit reproduce bayes --pair mnist-06",
    )
    parser.add_argument("--version", action="version", version=f"mfakit {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in COMMANDS:
        command = module.add_parser(commands)
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        command.set_defaults(run=module.run, parser=command)
        command.add_argument(
            "--no-progress", dest="progress", action="store_false", default=None, help="no progress bar"
        )
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status: 0 done, 1 bad input, 2 bad usage, 130 interrupted."""
    with _standard_streams():
        return _run(argv)


@contextlib.contextmanager
def _standard_streams() -> Iterator[None]:
    """What is missing, as in pythonw or behind ``>&-``, leads nowhere: argparse and tqdm write to it all the same."""
    redirections = {"stdout": contextlib.redirect_stdout, "stderr": contextlib.redirect_stderr}
    with contextlib.ExitStack() as stack:
        for name, redirect in redirections.items():
            stream = getattr(sys, name)
            if stream is None:
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(redirect(nowhere))
            elif isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # ℓ and σ on a terminal that lacks them are no reason to fail
        yield


def _run(argv: Sequence[str] | None) -> int:
    args = _parser().parse(argv)
    try:
        status = int(args.run(args))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        if args.debug:
            raise
        _complain("interrupted")
        return 130
    except BrokenPipeError:
        # The reader has gone (a pager, head): nothing to say, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EXPECTED as error:
        if args.debug:
            raise
        _complain(str(error) or type(error).__name__)
        return 1
    except Exception as error:
        if args.debug:
            raise
        _complain(f"internal error, {type(error).__name__}: {one_line(error)}; run again with --debug and report it")
        return 1


def _complain(message: str) -> None:
    """One line on standard error; longer than any true message, it is cut."""
    print(f"mfakit: {one_line(message, 4000)}", file=sys.stderr)
