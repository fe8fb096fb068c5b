"""What the paper shows of two noisy images and of classes in the plane; from ``fig4`` and ``fig6``."""

from __future__ import annotations

import numpy as np

from ..._io.report import number, percent
from .. import fig4, fig6
from .claim import BRITTLE, Claim, Decision, NotMeasuredError, Results, decided, percents
from .learned import ACCURATE, FOOLED, brittle

__all__ = ["CLAIMS"]

# Standard errors that a mean may be off by, and the largest standard error that decides, as a share of the radius.
ERRORS, SHARP = 3, 1e-3


def _theorem1(results: Results) -> Decision:
    (found,) = (result for result in results.values() if isinstance(result, fig4.Result))
    share = found.radii / found.half_distance
    if not (fig4.standard_error(share) <= SHARP):
        raise NotMeasuredError(
            f"the mean of {share.size} certified radii has a standard error above {percent(SHARP)}% of ‖d‖/2; raise "
            "--certified-samples"
        )
    off = float(share.mean() - 1) / fig4.standard_error(share)
    return decided(
        abs(off) <= ERRORS,
        f"The mean certified radius is {number(float(share.mean()), 4)} of ‖d‖/2, with a standard error of "
        f"{number(fig4.standard_error(share), 4)}; the smallest is {number(float(share.min()), 3)} of it",
        f"{share.size} samples of two images in {int(np.prod(found.shape)):,} dimensions",
    )


def _two_causes(results: Results) -> Decision:
    (found,) = (result for result in results.values() if isinstance(result, fig6.Result))
    asymmetric, symmetric = found.cases
    if fig6.MISLED not in symmetric.radii:
        raise NotMeasuredError("no network was misled first; leave out --misled 0")
    optimal, misled, usual = (symmetric.nearest(name) for name in (fig6.OPTIMAL, fig6.MISLED, fig6.CONTROL))
    near, right = asymmetric.nearest(fig6.OPTIMAL), list(symmetric.accuracy.values())
    return decided(
        near < optimal / 2 and misled < min(BRITTLE * optimal, usual) and min(right) >= ACCURATE,
        f"The nearest 5% of the samples are within {number(near, 3)} of the optimal boundary where the classes are "
        f"asymmetric, and within {number(optimal, 3)} where they are symmetric; there a network that was misled first "
        f"has {number(misled / optimal)} of that, one that starts as usual {number(usual / optimal)}; all three are "
        f"right on {percents(right)}%",
        f"{found.config.n} samples a class in the plane, one seed",
    )


CLAIMS = (
    Claim(
        "theorem-1",
        "Two spheres: robust up to half their distance, in any dimension",
        "For two Gaussians of equal and small isotropic noise almost every sample is robust to any perturbation "
        "shorter than half the distance of their means, whatever the dimension.",
        "Theorem 1, Figure 4",
        ("fig4",),
        f"the mean certified radius is within {ERRORS} standard errors of ‖d‖/2, and these are at most "
        f"{100 * SHARP:g}% of it",
        _theorem1,
    ),
    Claim(
        "two-images-cnn",
        "A CNN that learns two noisy images is brittle",
        "A CNN that learns the noisy versions of two images is fooled by small perturbations, though the optimal "
        "classifier is robust.",
        "section 2.2, Figure 4",
        ("fig4",),
        f"it is right on {100 * ACCURATE:g}% of the samples, resists on at most {100 * FOOLED:g}%, and is fooled below "
        f"{BRITTLE:g} of the certified Bayes radius (median over samples)",
        brittle("cnn", "The CNN", ACCURATE, {}),
    ),
    Claim(
        "two-causes",
        "Brittleness has two causes: asymmetric classes, or training",
        "Either the classes are asymmetric and the optimal classifier itself is brittle; or they are symmetric, the "
        "optimal classifier is robust, and training from a bad start finds a brittle one.",
        "section 3, Figure 6",
        ("fig6",),
        "of the nearest 5% of the samples: the optimal boundary of asymmetric classes is less than half as far as that "
        f"of symmetric ones, where a network that first learned random labels, right on {100 * ACCURATE:g}%, has less "
        f"than {BRITTLE:g} of the optimal distance, and less than a network with the usual start",
        _two_causes,
    ),
)
