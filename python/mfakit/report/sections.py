"""The parts below the first screen: claims with their numbers, each experiment, what was not run and not reproduced."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._io.records import encode
from .._io.report import Table
from ..experiments import EXPERIMENTS, Outcome
from ..experiments.claims import Finding
from ..experiments.collection import Collection
from ..experiments.study.result import StudyOutcome
from .html import anchor, chip, definitions, element, items, link, table
from .images import Image

__all__ = ["claims", "experiment", "not_reproduced", "not_run", "picture_files"]

# Tables of an experiment that are open at once, and their rows; the others are a click away.
OPEN_TABLES, OPEN_ROWS = 3, 12
# Percentage points beyond which a number is said to differ from the paper's.
DIFFERENT = 5.0


def claims(findings: Sequence[Finding]) -> str:
    """Each claim with its verdict, its numbers, and its rule."""
    return f'<div class="claims">{"".join(_claim(f) for f in findings)}</div>'


def _claim(f: Finding) -> str:
    measured = f"Measured on {f.scope} ({', '.join(f.read)}). " if f.scope else ""
    heading = element("h3", f.short).removesuffix("</h3>") + f" {chip(f.verdict)}</h3>"
    return (
        f'<article class="claim" id="claim-{anchor(f.name)}">{heading}'
        f"{element('p', f'{f.says} ({f.where})')}<p><strong>Here:</strong> {element('span', f.numbers)}</p>"
        f"{element('p', f'{measured}It is said to hold if {f.rule}.', class_='soft')}</article>"
    )


def picture_files(name: str, result: Outcome, folder: Path) -> dict[str, tuple[Path, str]]:
    """By name of a picture its file and its alternative text; only names that stay in the folder."""
    alts = result.alt_texts()
    names = [picture for picture in result.pictures() if Path(picture).name == picture]
    return {each: (folder / name / f"{each}.png", alts.get(each) or f"{result.title}: {each}") for each in names}


def experiment(name: str, result: Outcome, pictures: Mapping[str, tuple[str, Image]]) -> str:
    """Tables, notes, pictures by name with their alternative texts, and how all of it was made."""
    about = EXPERIMENTS[name]
    shows = f" ({', '.join(about.shows)})" if about.shows else ""
    parts = [
        f'<section id="{anchor(name)}">{element("h2", result.title)}',
        element(
            "p", f"{about.about[:1].upper()}{about.about[1:]}{shows}. Command: mfakit reproduce {name}", class_="soft"
        ),
        *(_table(i, heading, found, result.title) for i, (heading, found) in enumerate(result.tables().items())),
    ]
    if result.notes:
        parts.append(element("p", result.notes))
    if pictures:
        parts += [element("h3", "Figures"), *(_figure(each, *found) for each, found in pictures.items())]
    parts += [element("h3", "How it was made"), definitions(_made(result)), "</section>"]
    return "".join(parts)


def _table(i: int, heading: str, found: Table, title: str) -> str:
    drawn = table(found, heading or title)
    if not heading:
        return drawn
    head = element("h3", heading)
    is_open = i < OPEN_TABLES and len(found.rows) <= OPEN_ROWS
    return f"{head}{drawn}" if is_open else f"<details><summary>{head}</summary>{drawn}</details>"


def _figure(name: str, alt: str, image: Image) -> str:
    if image.why_not:
        return element("p", f"The picture {name} {image.why_not}.", class_="soft")
    drawn = element("img", "", src=image.uri, alt=alt, width=str(image.width), height=str(image.height))
    box = element("div", "", class_="picture", tabindex="0", role="region", aria_label=name).removesuffix("</div>")
    return f"<figure>{box}{drawn.removesuffix('</img>')}</div>{element('figcaption', alt)}</figure>"


def _made(result: Outcome) -> dict[str, str]:
    """Settings, duration and environment."""
    settings = {name: _said(value) for name, value in encode(result.config, {}).items()}
    took = {"seconds": f"{result.seconds:.3g}"} if result.seconds == result.seconds else {}
    return {**settings, **took, **{name: _said(value) for name, value in result.environment.items()}}


def _said(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, list) and not value:
        return "all"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).strip("[]")


def not_run(collection: Collection) -> str:
    """Experiments without a result, and results that cannot be read."""
    rows = [
        f"{element('strong', name)}: {element('span', f'its result cannot be read: {why}')}"
        for name, why in collection.damaged.items()
    ]
    for name in collection.missing:
        if name != "claims":
            about = EXPERIMENTS[name]
            needs = ", ".join(part for part in (*about.needs, about.data) if part != "none")
            said = f"{about.about}{f' (needs {needs})' if needs else ''}: mfakit reproduce {name}"
            rows.append(f"{element('strong', name)}: {element('span', said)}")
    rows += [
        f"{element('strong', name)}: {element('span', 'a result of no experiment that this version has')}"
        for name in collection.foreign
    ]
    return items(rows) if rows else element("p", "Every experiment of this version has a result here.")


def not_reproduced(found: Mapping[str, Outcome], findings: Sequence[Finding]) -> str:
    """Claims that fail, numbers that differ from the paper's, and its data sets that were not run."""
    failing = [f"{link(f.short, f'claim-{anchor(f.name)}')}: {element('span', f.numbers)}" for f in findings
               if f.verdict == "fails"]  # fmt: skip
    rows: list[tuple[str, ...]] = []
    absent = []
    for name, result in found.items():
        if isinstance(result, StudyOutcome) and result.paper:
            rows += _differences(name, result)
            left = ", ".join(each for each in result.paper if each not in {s.name for s in result.sets})
            if left:
                absent.append(f"{element('strong', name)}: {element('span', left)}")
    parts = [element("h3", "Claims that fail"), items(failing) if failing else element("p", "None of those measured.")]
    parts.append(element("h3", f"Accuracies more than {DIFFERENT:g} points from the paper’s"))
    if rows:
        columns = ("experiment", "data", "classifier", "attack", "what", "paper\n(%)", "here\n(%)", "here -\npaper")
        parts.append(table(Table(columns, tuple(rows), labels=5), "Numbers that differ from the paper's"))
    else:
        parts.append(element("p", "None of those measured."))
    if absent:
        parts += [element("h3", "The paper’s data sets that were not run"), items(absent)]
    return "".join(parts)


def _differences(name: str, result: StudyOutcome) -> list[tuple[str, ...]]:
    """Clean and adversarial accuracies, both in the paper's counting."""
    rows: list[tuple[str, ...]] = []
    for s in result.sets:
        printed: Mapping[str, tuple[float, float]] = result.paper.get(s.name, {})
        for learner in (one for one in s.learners if one.kind in printed):
            clean, adversarial = printed[learner.kind]
            compared = [("", "accuracy", clean, 100 * learner.accuracy)]
            compared += [
                (a.attack, "after the attack", adversarial, 100 * a.adversarial_accuracy_paper) for a in learner.attacks
            ]
            rows += [
                (name, s.name, learner.label, attack, what, f"{theirs:g}", f"{ours:.1f}", f"{ours - theirs:+.1f}")
                for attack, what, theirs, ours in compared
                if abs(ours - theirs) > DIFFERENT
            ]
    return rows
