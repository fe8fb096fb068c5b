"""What every experiment is given beside its configuration, and what it hands out: tables, notes and pictures of numbers
that a folder keeps and gives back.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .._io import report
from .._io.messages import one_line
from .._io.outputs import output_folder
from .._io.records import decode, encode
from .._io.tensor_files import read_tensors, write_tensors
from .._lazy import lazy
from .resumable import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Context", "Outcome", "have_matplotlib"]

Picture = Callable[[], "Figure"]
S = TypeVar("S", bound="Outcome")
_logger = logging.getLogger("mfakit")

KIND = "experiment-result"
JSON, ARRAYS, TEXT = "result.json", "result.safetensors", "result.md"


@dataclass(frozen=True, eq=False)
class Context:
    """Where and how an experiment runs, which its numbers do not depend on (but for rounding).

    Parameters
    ----------
    out : path, optional
        Folder of all experiments' results: ``OUT/NAME`` of each, and ``OUT/parts`` of what is finished, which they
        share. None keeps nothing.
    data : path, optional
        Folder of the real data sets; None: ``MFAKIT_DATA``, or the user's cache.
    device : str
        Of networks: "auto", "cpu", "cuda".
    progress : bool or None
        Progress bars; None shows them on a terminal and in notebooks.

    Examples
    --------
    >>> import mfakit
    >>> from mfakit.experiments import fig13
    >>> found = fig13.run(fig13.Config(("mnist-06",)), mfakit.experiments.Context(progress=False))
    >>> round(found.outliers[0].step, 3)
    0.357
    """

    out: Path | None = None
    data: Path | None = None
    device: str = "auto"
    progress: bool | None = None

    @lazy
    def store(self) -> Store:
        """Finished parts."""
        return Store(None if self.out is None else Path(self.out) / "parts")


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What an experiment found: a base of dataclasses whose fields are numbers, words, arrays, and containers and
    dataclasses of those. It says what it shows in tables, notes and pictures, all of them made from its fields alone.

    Attributes
    ----------
    config : dataclass
        What was run.
    seconds : float
        How long it took, with what was read from an earlier run left out.
    environment : dict
        Versions, backend, threads, processor.

    Examples
    --------
    >>> import mfakit
    >>> found = mfakit.experiments.reproduce("fig13", pairs=("mnist-06",))
    >>> print(found.tables()[""].markdown())
    | pair | step ℓ2 | paper ℓ2 | ‖mean‖ |
    | --- | ---: | ---: | ---: |
    | mnist-06 | 0.357 | 0.341 | 7.14 |
    """

    title: ClassVar[str] = ""

    config: Any
    seconds: float = float("nan")
    environment: dict[str, Any] = field(default_factory=report.environment)

    def tables(self) -> Mapping[str, report.Table]:
        """Each table under its heading; the heading may be empty."""
        raise NotImplementedError

    @property
    def notes(self) -> str:
        """What the tables and pictures mean, in a few sentences."""
        return ""

    def pictures(self) -> Mapping[str, Picture]:
        """By name of the file, without its ending, a function that draws the figure."""
        return {}

    def alt_texts(self) -> Mapping[str, str]:
        """By name of a picture, what it shows, for readers who cannot see it; the title where there is none."""
        return {}

    def markdown(self) -> str:
        """Tables, notes and settings as Markdown."""
        parts = [f"# {self.title}"]
        for heading, table in self.tables().items():
            parts += [f"## {heading}"] * bool(heading) + [table.markdown()]
        settings = ", ".join(f"{k} {_said(v)}" for k, v in encode(self.config, {}).items())
        where = ", ".join(f"{k} {v}" for k, v in self.environment.items())
        return "\n\n".join([*parts, self.notes, f"Settings: {settings}. Computed on: {where}."]) + "\n"

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``result.md``, ``result.safetensors`` (where there are arrays), the pictures (where there is
        matplotlib) and ``result.json``, which is written last; what was written.

        An older ``result.json`` is removed first: interrupted, the folder holds no result, and never numbers of one
        run beside arrays of another.
        """
        folder = output_folder(folder)
        arrays: dict[str, Any] = {}
        found = encode(self, arrays)
        for name in (JSON, ARRAYS):
            (folder / name).unlink(missing_ok=True)
        written = [folder / TEXT]
        report.write_text(folder / TEXT, self.markdown())
        if arrays:
            write_tensors(folder / ARRAYS, KIND, arrays)
            written.append(folder / ARRAYS)
        if have_matplotlib():
            written += [_draw(folder / f"{name}.png", picture) for name, picture in self.pictures().items()]
        report.write_json(folder / JSON, found)
        return [*written, folder / JSON]

    @classmethod
    def load(cls: type[S], folder: str | Path) -> S:
        """The result that :meth:`write` has left in `folder`.

        Raises
        ------
        FileNotFoundError
            No ``result.json`` there.
        ValueError
            For a file that is damaged, or of another experiment or version.
        """
        path = Path(folder) / JSON
        if not path.is_file():
            raise FileNotFoundError(f"no result at {path}")
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not readable JSON: {one_line(error)}") from None
        arrays = read_tensors(path.with_name(ARRAYS), KIND)[0] if path.with_name(ARRAYS).is_file() else {}
        try:
            return decode(cls, plain, arrays)
        except (ValueError, TypeError, RecursionError) as error:  # brackets nested beyond the stack
            raise ValueError(f"{path} is no result of this experiment: {one_line(error)}") from None


def _said(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else str(value)


def _draw(path: Path, picture: Picture) -> Path:
    with report.replacing(path) as temporary:
        picture().savefig(temporary)
    return path


def have_matplotlib() -> bool:
    """Whether pictures can be drawn; without matplotlib an experiment leaves them out."""
    try:
        import matplotlib  # noqa: F401 (asked only whether it is there)
    except ImportError:
        return False
    return True
