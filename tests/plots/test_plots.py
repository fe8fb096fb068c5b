"""Figures say what they show: axes that are not empty, the 5/255 line, stated magnification, and no global state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import close, n_colours

pytest.importorskip("matplotlib")

import mfakit
from mfakit import plots, theory
from mfakit.backends import why_missing

compiled = pytest.mark.skipif(why_missing("native") is not None, reason=f"compiled: {why_missing('native')}")


def texts(figure: Any) -> str:
    """All words of a figure."""
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def vertical_lines(ax: Any) -> list[float]:
    return [line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1]


def drawn(figure: Any, path: Path) -> np.ndarray:
    """The pixels of the saved picture."""
    from matplotlib.image import imread

    figure.savefig(path)
    return imread(path)


@pytest.mark.parametrize(("d", "shape"), [(784, (28, 28)), (12288, (64, 64, 3)), (3072, (32, 32, 3)), (1, (1, 1))])
def test_the_shape_of_square_images(d: int, shape: tuple[int, ...]) -> None:
    assert plots.image_shape(d) == shape


def test_other_shapes_must_be_given(tmp_path: Path) -> None:
    X = np.linspace(0, 1, 560).reshape(1, 560)
    with pytest.raises(ValueError, match="560 features are no square image"):
        plots.show_images(X)
    assert plots.show_images(X, shape=(28, 20)).axes[0].images[0].get_array().shape == (28, 20)
    with pytest.raises(ValueError, match=r"not an image of shape \(28, 28\)"):
        plots.show_images(X, shape=(28, 28))
    with pytest.raises(ValueError, match="at least one sample"):
        plots.show_images(np.zeros((0, 784)))


def test_a_grid_shows_every_sample_on_one_grey_scale() -> None:
    X = np.random.default_rng(0).uniform(-0.5, 1.5, (7, 16))
    captions = [f"a caption that is longer, {i}" if i % 3 else f"two\nlines {i}" for i in range(7)]
    figure = plots.show_images(X, columns=3, captions=captions, title="seven")
    figure.draw_without_rendering()
    cells = [(ax.bbox, ax.title.get_window_extent()) for ax in figure.axes[:7]]
    for i, (_, caption) in enumerate(cells):
        assert not [box for j, cell in enumerate(cells) for box in cell if i != j and caption.overlaps(box)]
    images = [image for ax in figure.axes for image in ax.images]
    assert [image.get_clim() for image in images] == [(0.0, 1.0)] * 7
    np.testing.assert_array_equal(images[4].get_array(), X[4].reshape(4, 4))
    assert captions[5] in texts(figure)
    assert "seven" in texts(figure)


@pytest.mark.parametrize(
    ("largest", "factor"), [(1.0, 1), (0.51, 1), (0.5, 2), (0.2, 5), (0.0199, 50), (0.001, 1000), (3.0, 1)]
)
def test_magnification_is_a_round_number_that_fits(largest: float, factor: int) -> None:
    changes = np.full(1000, largest)
    assert plots.magnification(changes) == factor


def test_a_panel_shows_originals_adversarials_and_magnified_differences(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 1, (4, 64))
    small, large = X + 0.019 * rng.choice([-1, 1], X.shape), X + 0.4 * rng.choice([-1, 1], X.shape)
    attacks = [plots.Perturbations("large", X, large), plots.Perturbations("small", X, small)]
    figure = plots.perturbation_panel(attacks, captions=list("abcd"), title="two attacks")
    words = texts(figure)
    for word in ("two attacks", "large", "small", "original", "adversarial", "difference × 2", "difference × 50"):
        assert word in words
    assert f"ℓ2 {0.019 * 8:.2f}" in words
    images = [image for ax in figure.axes for image in ax.images if image.get_array().shape == (8, 8)]
    assert len(images) == 2 * 3 * 4
    greys, differences = [i for i in images if i.get_clim() == (0, 1)], [i for i in images if i.get_clim() == (-1, 1)]
    assert len(greys) == 16
    close(np.asarray(differences[-1].get_array()), 50 * (small[3] - X[3]).reshape(8, 8))
    histograms = [ax for ax in figure.axes if "change of a pixel" in ax.get_xlabel()]
    assert len(histograms) == 2
    for ax in histograms:
        np.testing.assert_allclose(sorted(vertical_lines(ax)), [-5 / 255, 5 / 255])
        assert ax.patches
    assert [ax.get_title().split()[0] for ax in histograms] == ["0%", "100%"]
    pixels = drawn(figure, tmp_path / "panel.png")
    assert n_colours(pixels) > 100


def test_a_panel_of_colour_images() -> None:
    X = np.random.default_rng(0).uniform(0, 1, (2, 48))
    figure = plots.perturbation_panel([plots.Perturbations("colour", X, X + 0.09)])
    difference = figure.axes[2].images[0].get_array()
    assert difference.shape == (4, 4, 3)
    np.testing.assert_allclose(difference, 0.5 + 0.9 / 2)
    assert "difference × 10\n(grey: none)" in texts(figure)


@pytest.mark.parametrize("captions", [["0 → 6", "6 → 0"], ["not mouth slightly open\n→ mouth slightly open"] * 2])
def test_captions_of_a_comparison_fit_above_their_columns(captions: list[str]) -> None:
    X = np.random.default_rng(0).uniform(0, 1, (2, 64))
    figure = plots.comparison_panel([plots.Perturbations("CNN", X, X + 0.1)], captions=captions, title="celeba-Mouth")
    figure.draw_without_rendering()
    boxes = [figure.texts[0].get_window_extent(), *(ax.title.get_window_extent() for ax in figure.axes[:2])]
    assert [box.width > 0 for box in boxes] == [True] * 3
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert min(box.y0 for box in boxes) > 0
    assert max(box.y1 for box in boxes) < figure.bbox.y1
    assert [" ".join(ax.get_title().split()) for ax in figure.axes[:2]] == [" ".join(c.split()) for c in captions]


def test_bad_panels() -> None:
    X = np.zeros((2, 64))
    with pytest.raises(ValueError, match="at least one Perturbations"):
        plots.perturbation_panel([])
    with pytest.raises(ValueError, match="equally many samples"):
        plots.perturbation_panel([plots.Perturbations("a", X, X), plots.Perturbations("b", X[:1], X[:1])])


def test_the_pixel_histogram_counts_every_pixel_and_says_how_many_are_within() -> None:
    changes = np.concatenate([np.zeros(75), np.full(25, 0.1)])
    figure = plots.pixel_histogram({"attack": changes})
    (ax,) = figure.axes
    assert "75% of the pixels" in ax.get_title()
    np.testing.assert_allclose(sorted(vertical_lines(ax)), [-5 / 255, 5 / 255])
    values, edges, _ = ax.patches[0].get_data()
    assert values.sum() == pytest.approx(100)
    assert values[np.searchsorted(edges, 0.0) - 1] == pytest.approx(75)
    beyond = plots.pixel_histogram({"attack": changes}, limit=0.05).axes[0].patches[0].get_data()[0]
    assert beyond[-1] == pytest.approx(25)  # what lies beyond the axis is not lost
    with pytest.raises(ValueError, match="not empty"):
        plots.pixel_histogram({"attack": []})


def test_several_histograms_have_a_legend() -> None:
    figure = plots.pixel_histogram({"first": [0.3, 0.01], "second": [0.0, 0.0]})
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["first: 50% within ±5/255", "second: 100% within ±5/255"]


def test_counted_changes_draw_what_the_changes_draw() -> None:
    changes = np.random.default_rng(0).normal(scale=0.05, size=(40, 200))
    counted = plots.PixelChanges.of(changes)
    assert counted.counts.sum() == changes.size
    assert counted.limit == np.abs(changes).max()
    assert counted.within == (np.abs(changes) <= 5 / 255).mean()
    assert counted.mean_l2 == pytest.approx(np.linalg.norm(changes, axis=1).mean())
    for limit in (None, 0.1, 0.4):
        shares = [
            plots.pixel_histogram({"a": found}, limit=limit).axes[0].patches[0].get_data()[0]
            for found in (changes, counted)
        ]
        np.testing.assert_array_equal(*shares)
    edges = np.linspace(-0.1, 0.1, 82)
    exact = 100 * np.histogram(np.clip(changes, -0.1, 0.1), edges)[0] / changes.size
    # A fine bin that an edge cuts is shared out evenly: off by part of what one of them holds.
    assert np.abs(counted.share(edges) - exact).max() < 100 * 2 * counted.counts.max() / changes.size
    assert np.isnan(plots.PixelChanges.of(np.zeros((0, 5))).mean_l2)


def test_bars_have_a_group_for_each_set_and_say_what_is_missing() -> None:
    figure = plots.norm_bars({"Bayes": [2.0, 3.0], "CNN": [1.0, np.nan]}, ["mnist-06", "celeba-Smiling"])
    (ax,) = figure.axes
    assert [bar.get_height() for bar in ax.patches] == [2.0, 3.0, 1.0, 0.0]
    assert [text.get_text() for text in ax.texts] == ["–"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["mnist-06", "celeba-Smiling"]
    with pytest.raises(ValueError, match="a value for each of the 2 groups"):
        plots.norm_bars({"Bayes": [2.0]}, ["a", "b"])


def test_curves_have_the_certified_band_behind_them() -> None:
    eps = np.linspace(0, 4, 9)
    band = ((eps < 2).astype(float), (eps < 3).astype(float))
    figure = plots.robustness_curves({"CNN": (eps < 1).astype(float)}, eps, band=band, title="t")
    (ax,) = figure.axes
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), 100.0 * (eps < 1))
    assert len(ax.collections) == 1
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["optimal, certified", "CNN"]


def test_distances_show_their_means_and_marks_and_leave_out_failures() -> None:
    D, twice = np.array([4.0, 6.0, 8.0]), np.array([5.0, np.nan, 9.0])
    figure = plots.distance_histogram({"D": D, "2 ℓ2": twice}, marks={"min d": 2.0}, title="a pair")
    (ax,) = figure.axes
    assert sorted(vertical_lines(ax)) == [2.0, 6.0, 7.0]
    for patch in ax.patches:
        assert patch.get_data()[0].sum() == pytest.approx(100)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["D, mean 6.00", "2 ℓ2, mean 7.00", "min d, 2.00"]
    assert ax.get_xlabel()
    many = plots.distance_histogram({f"D{i}": D + i for i in range(6)})
    assert len(vertical_lines(many.axes[0])) == 6  # more than there are colours
    with pytest.raises(ValueError, match="finite values"):
        plots.distance_histogram({"D": [np.nan]})


def test_a_classifier_has_one_colour_in_all_pictures() -> None:
    colors = {"Bayes": "#010203", "CNN": "#040506"}
    sweeps = plots.norm_sweeps({"width": [(8, 1.6), (16, 1.8)]}, {"Bayes": 2.9}, colors=colors)
    network, line = sweeps.axes[0].lines
    assert (network.get_color(), line.get_color()) == ("#040506", "#010203")
    points = {"Bayes": (1.0, 2.9), "TRADES β 1": (0.99, 2.1), "TRADES β 6": (0.5, 2.6)}
    (ax,) = plots.tradeoff_plot(points, path="TRADES", colors={**colors, "TRADES": "#070809"}).axes
    assert ax.lines[0].get_color() == "#070809"
    found = [tuple(np.rint(255 * one.get_facecolor()[0, :3]).astype(int)) for one in ax.collections]
    assert found == [(1, 2, 3), (7, 8, 9), (7, 8, 9)]
    assert max(ax.get_xticks()) == 100.0  # no accuracy is above


def test_brackets_are_sorted_and_only_finite_ones_drawn(tmp_path: Path) -> None:
    lower, upper = np.array([2.0, 1.0, 0.0, 3.0]), np.array([2.1, 1.1, 0.0, np.inf])
    figure = plots.bracket_plot(lower, upper, np.array([2.2, np.nan, np.nan, 4.0]), title="certified")
    assert drawn(figure, tmp_path / "b.png").std() > 0
    assert "certified" in texts(figure)
    with pytest.raises(ValueError, match="no finite bracket"):
        plots.bracket_plot([0.0], [0.0], [np.nan])


def images_16() -> mfakit.BayesClassifier:
    """Two classes of 4 × 4 images, two components each, one factor."""
    rng = np.random.default_rng(0)
    return mfakit.BayesClassifier(
        [mfakit.MFA([0.5, 0.5], rng.normal(size=(2, 16)), rng.normal(size=(2, 16, 1)), 0.01) for _ in range(2)]
    )


@compiled
def test_the_widest_brackets_are_shown_beside_what_they_have_in_common(tmp_path: Path) -> None:
    clf = images_16().symmetric(sigma=0.5)
    X, y = clf.sample(40, rng=0, dtype=np.float64)
    result = mfakit.attacks.minimal_perturbation(clf, X, y)
    figure = plots.uncertified_plot(clf, X, result, m=3, title="wide")
    images = [image for ax in figure.findobj(lambda a: hasattr(a, "images")) for image in ax.images]
    assert len(images) == 9
    causes = theory.explain_gaps(clf, result)
    worst = causes.rows[np.argmax(causes.gap)]
    close(np.asarray(images[0].get_array()), X[worst].reshape(4, 4))
    difference = (result.x_adv - X)[worst].reshape(4, 4)
    shown = np.asarray(images[6].get_array())
    close(shown / np.abs(shown).max(), difference / np.abs(difference).max())
    assert f"{result.lower[worst]:.2f} … {result.upper[worst]:.2f}" in texts(figure)
    points = [c.get_offsets() for ax in figure.axes for c in ax.collections]
    close(np.asarray(points[0])[:, 1], 100 * causes.gap)
    close(np.asarray(points[1])[:, 0], causes.own_active)
    assert drawn(figure, tmp_path / "u.png").std() > 0
    with pytest.raises(ValueError, match="that were certified, 40, got 3"):
        plots.uncertified_plot(clf, X[:3], result)


@compiled
def test_theorems_are_drawn_against_sigma_falling_to_the_right(tmp_path: Path) -> None:
    clf = images_16()
    sigmas = (0.1, 0.01)
    one = theory.validate_theorem1([0.0] * 4, [1.0] * 4, n=10, sigmas=sigmas)
    two = theory.validate_theorem2(clf, 10, sigmas=sigmas)
    three = {o: theory.validate_theorem3(clf, 10, sigmas=sigmas, outliers=o, direction=5) for o in ("other", "both")}
    figures = [plots.theorem1_plot(one), plots.theorem2_plot(two, title="two"), plots.theorem3_plot(three)]
    for i, figure in enumerate(figures):
        share, rows = figure.axes
        left, right = share.get_xlim()
        assert left > right > 0
        close(share.lines[0].get_xdata(), sigmas)
        assert [label.get_text() for label in rows.get_xticklabels()] == ["0.1", "0.01"]
        assert drawn(figure, tmp_path / f"{i}.png").std() > 0
    close(figures[1].axes[0].lines[0].get_ydata(), 100 * two.share_half_distance)
    close(np.asarray(figures[1].axes[1].collections[0].get_offsets())[:, 1], two.ratio[0])
    assert "two" in texts(figures[1])
    assert "closed form" in texts(figures[2])
    assert "mean limit, both" in texts(figures[2])
    with pytest.raises(ValueError, match="at least one validation"):
        plots.theorem3_plot({})


def test_discrete_classes_show_samples_levels_and_shares(tmp_path: Path) -> None:
    cases = {
        "smooth": theory.check_lemma_a2(*theory.random_discrete_classes(20, rng=1)),
        "narrow": theory.check_lemma_a2(*theory.random_discrete_classes(20, concentration=0.99999, rng=1)),
    }
    figure = plots.quantization_plot(cases, n_points=30, title="tables")
    assert drawn(figure, tmp_path / "q.png").std() > 0
    samples, levels, histogram = figure.axes[3:6]
    assert samples.get_title() == "narrow"
    assert len(np.asarray(samples.collections[0].get_offsets())) == 30
    case = cases["narrow"]
    np.testing.assert_array_equal(np.abs(levels.images[0].get_array()), case.levels.T)
    assert histogram.patches[0].get_data()[0].sum() == pytest.approx(100)
    assert f"class 0: {100 * case.one_level[0]:.0f}% one level away" in texts(figure)
    flat = theory.check_lemma_a2([0.4, 0.6], [0.6, 0.4])
    with pytest.raises(ValueError, match="two features"):
        plots.quantization_plot({"flat": flat})


def test_lemma_a2s_limit_is_drawn_to_the_right(tmp_path: Path) -> None:
    found = theory.validate_lemma_a2(20, (0.9, 0.999), n=2)
    figure = plots.lemma_a2_plot(found, title="lemma")
    (ax,) = figure.axes
    assert ax.xaxis_inverted()
    assert drawn(figure, tmp_path / "l.png").std() > 0
    means = [line for line in ax.lines if line.get_marker() == "o"]
    close(means[0].get_ydata(), 100 * found.one_level[1:, :, 0].mean(axis=1))
    with pytest.raises(ValueError, match="no concentrations"):
        plots.lemma_a2_plot(theory.validate_lemma_a2(20, (), n=1))


def test_every_name_is_importable() -> None:
    for name in plots.__all__:
        assert getattr(plots, name) is not None


def test_drawing_leaves_matplotlibs_settings_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.distance_histogram({"D": [1.0, 2.0]})
    plots.pixel_histogram({"a": [0.1]})
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [m for m in sys.modules if m.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"mfakit\[plots\]"):
        plots.distance_histogram({"D": [1.0, 2.0]})


def test_a_notebook_shows_what_is_returned() -> None:
    """IPython asks for _repr_png_ where no backend has registered figures."""
    import pickle

    figure = plots.norm_bars({"Bayes": [2.0]}, ["mnist-06"])
    shown = figure._repr_png_()  # type: ignore[attr-defined]
    assert shown.startswith(b"\x89PNG")
    size = np.frombuffer(shown[16:24], ">u4")  # the width and height in the header
    np.testing.assert_allclose(size, figure.get_size_inches() * figure.dpi, atol=1)
    assert pickle.loads(pickle.dumps(figure))._repr_png_() == shown


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plots.norm_bars({"Bayes": [2.0]}, ["mnist-06"], ax=ax),
        lambda ax: plots.bracket_plot([1.0, 2.0], [1.1, 2.0], [1.2, np.nan], ax=ax),
        lambda ax: plots.lemma_a2_plot(mfakit.theory.validate_lemma_a2(5, (0.5,), n=2), ax=ax),
        lambda ax: plots.robustness_curves({"CNN": [1.0, 0.5]}, [0.0, 1.0], ax=ax),
        lambda ax: plots.tradeoff_plot({"Bayes": (1.0, 2.9)}, ax=ax),
    ],
)
def test_pictures_of_one_axes_are_drawn_where_the_caller_says(draw: Any) -> None:
    figure = plots.common.new_figure(6.0, 3.0)
    left, right = figure.subplots(1, 2)
    assert draw(right) is figure
    assert (left.has_data(), right.has_data(), len(figure.axes)) == (False, True, 2)
    assert draw(None) is not figure
