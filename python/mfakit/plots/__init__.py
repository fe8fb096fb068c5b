"""Pictures of samples, perturbations, distances and theorems as matplotlib figures; needs ``mfakit[plots]``.

Every function returns a :class:`matplotlib.figure.Figure` without a window or global state, safe in
threads. Save it with ``figure.savefig(path)``.
"""

from __future__ import annotations

from .certificates import bracket_plot, uncertified_plot
from .common import BLACK, BLUE, COLORS, DPI, GREEN, PURPLE, STYLE, VERMILION
from .comparison import comparison_panel
from .histograms import PixelChanges, distance_histogram, pixel_histogram
from .images import image_shape, magnification, show_images
from .panels import Perturbations, perturbation_panel
from .quantization import lemma_a2_plot, quantization_plot
from .robustness import norm_bars, norm_sweeps, robustness_curves, tradeoff_plot
from .theorems import theorem1_plot, theorem2_plot, theorem3_plot

__all__ = [
    "BLACK",
    "BLUE",
    "COLORS",
    "DPI",
    "GREEN",
    "PURPLE",
    "STYLE",
    "VERMILION",
    "Perturbations",
    "PixelChanges",
    "bracket_plot",
    "comparison_panel",
    "distance_histogram",
    "image_shape",
    "lemma_a2_plot",
    "magnification",
    "norm_bars",
    "norm_sweeps",
    "perturbation_panel",
    "pixel_histogram",
    "quantization_plot",
    "robustness_curves",
    "show_images",
    "theorem1_plot",
    "theorem2_plot",
    "theorem3_plot",
    "tradeoff_plot",
    "uncertified_plot",
]


def __dir__() -> list[str]:
    return sorted(__all__)
