"""The page: one HTML file that asks nobody for anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from .._io.messages import one_line
from ..experiments import EXPERIMENTS, Outcome
from ..experiments.claims import evaluate
from ..experiments.collection import Collection
from . import sections
from .answer import first_screen
from .html import anchor, element, items, link
from .images import read_images
from .style import CSS

__all__ = ["build_page"]

TITLE = "A Bayes-optimal view on adversarial examples, reproduced"
SOURCE = (
    "E. Richardson and Y. Weiss, A Bayes-Optimal View on Adversarial Examples, Journal of Machine Learning Research 22 "
    "(2021). Every number below was computed by mfakit; where the paper prints one, it stands beside it."
)
# No request leaves the page, whatever a result holds: neither scripts nor anything from elsewhere are allowed.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def build_page(collection: Collection) -> str:
    """The page of these results; the same results give the same text."""
    collection = _that_can_be_shown(collection)
    found, findings = collection.found, evaluate(collection)
    shown = _experiments(found, collection.folder or Path())
    contents = [("The claims, with numbers", "claims"), *((found[name].title, anchor(name)) for name in shown)]
    contents += [("What has not been run", "not-run"), ("What is not reproduced", "not-reproduced")]
    body = (
        f"<header>{element('h1', TITLE)}{element('p', SOURCE, class_='soft')}</header><main>"
        f"{first_screen(found, findings)}<nav aria-label='Contents'>{items(link(*each) for each in contents)}</nav>"
        f'<section id="claims">{element("h2", contents[0][0])}{sections.claims(findings)}</section>'
        f"{''.join(shown.values())}"
        f'<section id="not-run">{element("h2", "What has not been run")}{sections.not_run(collection)}</section>'
        f'<section id="not-reproduced">{element("h2", "What is not reproduced")}'
        f"{sections.not_reproduced(found, findings)}</section>"
        "</main>"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'{element("title", TITLE)}<link rel="icon" href="data:,"><style>{CSS}</style></head>'
        f"<body>{body}</body></html>\n"
    )


def _that_can_be_shown(collection: Collection) -> Collection:
    """Without the claims, which are evaluated anew; results whose numbers do not fit together count as damaged."""
    found, damaged = {}, dict(collection.damaged)
    for name, result in collection.found.items():
        if name == "claims":
            continue
        try:
            sections.experiment(name, result, {})
            sections.picture_files(name, result, Path())
            first_screen({name: result}, ())
            sections.not_reproduced({name: result}, ())
        except Exception as error:  # a file that decodes may still be edited, and each result has code of its own
            damaged[name] = f"its numbers do not fit together: {one_line(error)}"
        else:
            found[name] = result
    return replace(collection, found=found, damaged=damaged)


def _experiments(found: Mapping[str, Outcome], folder: Path) -> dict[str, str]:
    """The section of each experiment by its name, in the order of their list."""
    files = {name: sections.picture_files(name, result, folder) for name, result in found.items()}
    images = iter(read_images([path for each in files.values() for path, _ in each.values()]))
    shown = {}
    for name in (name for name in EXPERIMENTS if name in found):
        pictures = {picture: (alt, next(images)) for picture, (_, alt) in files[name].items()}
        shown[name] = sections.experiment(name, found[name], pictures)
    return shown
