"""The report's page: it asks nobody for anything, escapes what results hold, and says what is missing."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from mfakit._io.report import Table
from mfakit.experiments import EXPERIMENTS, bayes, template
from mfakit.plots.histograms import PixelChanges
from mfakit.report import images, write_report

ATTACK = '<script src="https://example.org/x.js"></script>"\'><img src=//example.org/a.png onerror=alert(1)>'


def pair(name: str, variant: str, l2: float) -> bayes.PairResult:
    """What ``bayes`` finds of one pair, with made numbers."""
    return bayes.PairResult(
        pair=name, variant=variant, n=8, accuracy=1.0, outlier_accuracy=None, success_rate=1.0, mean_l2=l2,
        certified_lower=l2 * 0.98, certified_upper=l2 * 0.99, half_distance=2.75, below_bound=0, half_min_distance=1.0,
        predicted=None, within=0.6, per_class=[{"mean_l2": l2, "mean_D": 5.5}] * 2, seconds=0.1, D=np.full(8, 5.5),
        l2=np.full(8, l2), shown=np.zeros((2, 0, 4)), captions=[], changes=PixelChanges.of(np.zeros((1, 4))),
    )  # fmt: skip


def result(name: str = "mnist-06", **changes: Any) -> bayes.Result:
    rows = [pair(name, "symmetric", 3.0), pair(name, "asymmetric", 0.5)]
    made = bayes.Result(
        config=bayes.Config(pairs=(name,), n=4), results=rows, seconds=1.25, environment={"mfakit": "0.1.0"}
    )
    return replace(made, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "results"
    result().write(out / "bayes")
    (out / "bayes" / "distances.png").write_bytes(png(1700, 600))
    return out


def png(width: int, height: int) -> bytes:
    """A picture as large as those of experiments; noise, which does not shrink by itself."""
    import io

    pillow = pytest.importorskip("PIL.Image", reason="pictures are made with Pillow")
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    written = io.BytesIO()
    pillow.fromarray(values).save(written, "PNG")
    return written.getvalue()


class Page(HTMLParser):
    """The elements of a page with their attributes, its text, and whether every element was closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words, self.open = "", []
        self.feed(text)
        assert self.open == []

    open: list[str]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(folder: Path) -> Page:
    return Page(write_report(folder).path.read_text("utf-8"))


def check(found: Page) -> None:
    """What holds for every page."""
    targets = [
        value or ""
        for _, attributes in found.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "background")
    ]
    assert all(target.startswith(("data:", "#")) for target in targets)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)
    assert not {tag for tag, _ in found.elements} & {"script", "iframe", "object", "embed", "base", "form", "svg"}
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    for image in found.all("img"):
        assert (image["src"] or "").startswith("data:image/png;base64,")
        assert image["alt"]
    levels = [int(tag[1]) for tag, _ in found.elements if tag in ("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_page_holds_answer_tables_pictures_and_what_is_missing(folder: Path) -> None:
    found = page(folder)
    check(found)
    words = " ".join(found.words.split())
    answer = "Symmetric classes: a mean ℓ2 of 3.00 fools it, and 2.94 is proven to be needed."
    assert words.index(f"It depends on the classes, as the paper says. {answer}") < 1000
    assert "0.50 is enough, 17% of that" in words
    assert "paper: faces" in words
    assert "Mean ℓ2 of the attack 3.00, half the mean distance 2.75: 1.09 times as much." in words
    assert "To measure it: mfakit reproduce table1." in words
    for name, experiment in EXPERIMENTS.items():
        assert (f"{name}: {experiment.about}" in words) == (name not in ("bayes", "claims")), name
    assert "bayes: samples, what fools" not in words
    for part in ("sigma0.01", "seed0", "seconds1.25", 'pairs"mnist-06"'):
        assert part in words
    (image,) = found.all("img")
    assert image["alt"] == result().alt_texts()["distances"]
    assert len(base64.b64decode((image["src"] or "").partition(",")[2])) < len(png(1700, 600))


def test_the_answer_is_that_of_the_numbers(folder: Path) -> None:
    result(results=[pair("mnist-06", "symmetric", 3.0), pair("mnist-06", "asymmetric", 2.5)]).write(folder / "bayes")
    words = page(folder).words
    assert "Not as the paper says. Symmetric classes: a mean ℓ2 of 3.00 fools it" in words
    assert "2.50 is enough, 83% of that" in words
    assert words.index("Claims that fail") < words.rindex(
        "The optimal classifier of asymmetric classes is brittle: Mean ℓ2"
    )


def test_the_same_results_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    first, second = (write_report(folder, tmp_path / name).path.read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_what_results_hold_is_escaped(folder: Path) -> None:
    found = result(ATTACK)
    found = replace(found, environment={ATTACK: ATTACK}, config=bayes.Config(pairs=(ATTACK,)))
    shutil.rmtree(folder / "bayes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bayes.Result, "pictures", lambda _: {})
        found.write(folder / "bayes")
    (folder / "a<b>&").mkdir()
    (folder / "a<b>&" / "result.json").write_text("{}")
    written = page(folder)
    check(written)
    assert written.words.count(ATTACK) >= 4
    assert "a<b>&: a result of no experiment that this version has" in written.words


def test_a_damaged_result_is_said_and_the_others_are_shown(folder: Path) -> None:
    (folder / "fig3").mkdir()
    (folder / "fig3" / "result.json").write_text('{"config": ')
    words = page(folder).words
    assert "fig3: its result cannot be read: " in words
    assert "result cannot be read: fig3/result.json is not readable JSON" in words.replace("\\", "/")
    assert "The optimal classifier, symmetric and asymmetric" in words


def test_numbers_that_do_not_fit_together_are_a_damaged_result(folder: Path) -> None:
    """A file that decodes, from which no table can be made."""
    broken = result(results=[replace(pair("mnist-06", "symmetric", 3.0), l2=np.zeros(0)), pair("x", "symmetric", 0.0)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bayes.Result, "pictures", lambda _: {})
        broken.write(folder / "bayes")

    def fail(_: bayes.Result) -> Mapping[str, Table]:
        raise IndexError("no row 3")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bayes.Result, "tables", fail)
        found = page(folder)
    check(found)
    assert "bayes: its result cannot be read: its numbers do not fit together: no row 3" in found.words
    assert "To measure it: mfakit reproduce bayes" not in found.words.partition("The claims, with numbers")[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Odd(template.Result):
    """Tables of all kinds, and pictures whose names are not names of files."""

    title: ClassVar[str] = "An odd result"

    def tables(self) -> dict[str, Table]:
        small = Table(("a", "b\nℓ2"), (("1 < 2", "&"), ("", ""), ("", "x")))
        return {"": small, **{f"Table {i}": small for i in range(5)}}

    def pictures(self) -> dict[str, Callable[[], Any]]:
        return dict.fromkeys(("../../secret", "absent", "not-a-png", "cut", "huge"))  # type: ignore[arg-type]

    def alt_texts(self) -> dict[str, str]:
        return {"cut": ""}


def test_tables_and_pictures_of_any_experiment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mfakit.experiments.collection import Collection
    from mfakit.report.page import build_page

    odd = Odd(config=template.Config(), rows=())
    home = folder / "theorems"
    home.mkdir()
    (folder.parent / "secret.png").write_bytes(png(9, 9))
    (home / "not-a-png.png").write_bytes(b"<svg onload=alert(1)>")
    (home / "cut.png").write_bytes(png(300, 300)[:5000])
    (home / "huge.png").write_bytes(png(9, 9)[:16] + (10**6).to_bytes(4, "big") * 2 + png(9, 9)[24:])
    found = Page(build_page(Collection(folder, {"theorems": odd}, {}, ())))
    check(found)
    assert found.all("img") == []
    for said in ("absent was not drawn", "not-a-png is no PNG file", "cut is damaged", "has 1000000 × 1000000 pixels"):
        assert said in found.words
    assert "secret" not in found.words
    assert len(found.all("details")) == 2 + 1  # tables 3 and 4, and the one whose heading stands second
    assert len(found.all("tbody")) == 6 * 2


def test_pictures_are_made_smaller_until_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        path.write_bytes(png(1500, 300))
    large, small = (images.read_images(paths, budget) for budget in (10**9, 200_000))
    for before, after in zip(large, small, strict=True):
        assert (before.width, before.height) == (after.width, after.height) == (900, 180)
        assert len(after.uri) < len(before.uri) / 2
    assert sum(len(image.uri) for image in small) <= 200_000 * 4 / 3 + 100
    (first, *rest) = images.read_images(paths, 40_000)
    assert first.uri
    assert [image.why_not.partition(",")[0] for image in rest] == ["is left out"] * 2
    monkeypatch.setattr(images, "have_pillow", lambda: False)
    (whole,) = images.read_images(paths[:1])
    assert base64.b64decode(whole.uri.partition(",")[2]) == paths[0].read_bytes()
    assert "pip install pillow" in images.read_images(paths, 10**6)[-1].why_not


def test_the_command(quiet: Any, folder: Path) -> None:
    status, out, err = quiet("report", str(folder))
    assert (status, err) == (0, "")
    assert out.startswith(f"results of bayes\nwritten: {folder / 'report.html'} (")
    assert (folder / "report.html").stat().st_size < 5_000_000
    assert quiet("report", str(folder), "--out", "here.html")[0] == 0
    assert Path("here.html").read_bytes() == (folder / "report.html").read_bytes()
    Path("empty").mkdir()
    for arguments, message in (
        (("empty",), "empty holds no results; make some with mfakit reproduce bayes --out empty"),
        (("nowhere",), "no folder nowhere of results; make one with mfakit reproduce bayes --out nowhere"),
        (("here.html",), "no folder here.html of results; make one with mfakit reproduce bayes --out here.html"),
        ((str(folder), "--out", "x.pdf"), "--out must end in .html or .htm, which is what is written, got x.pdf"),
        ((str(folder), "--out", "no/x.html"), "no folder no to write x.html to; make it first"),
    ):
        assert quiet("report", *arguments) == (1, "", f"mfakit: {message}\n")


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(folder: Path, tmp_path: Path, width: int) -> None:
    """In a browser: the page stands in a frame of that width, and a script beside it measures."""
    browser = next((found for found in map(shutil.which, BROWSERS) if found), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    text = write_report(folder).path.read_text("utf-8")
    script = (
        "const f = document.querySelector('iframe'); f.onload = () => { const d = f.contentDocument;"
        "const wide = [...d.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .picture') && "
        "e.getBoundingClientRect().right > f.clientWidth + 0.5).map(e => e.tagName);"
        "document.title = `${d.documentElement.scrollWidth} ${d.images.length} ${[...d.images].filter(i => "
        "i.complete && i.naturalWidth > 0).length} ${wide}` }"
    )
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><title>?</title><iframe width={width} height=800 style="border:0" '
        f'srcdoc="{escape(text)}"></iframe><script>{script}</script>',
        encoding="utf-8",
    )
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900", "--dump-dom", frame.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    title = done.stdout.partition("<title>")[2].partition("</title>")[0]
    assert title == f"{width} 1 1 ", done.stderr[-500:]
