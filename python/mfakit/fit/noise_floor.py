"""The smallest noise variance that a fit may give, and a warning where it decides."""

from __future__ import annotations

import warnings

import numpy as np

from .source import Source

__all__ = ["NOISE_FLOOR", "lowest_noise"]

# The default floors, as shares of the data's variance. Isotropic noise is a mean over features and rarely near its
# floor. Diagonal noise of a feature that is constant in a component's samples always ends on it: a lower floor raises
# the likelihood of the training data without limit, and a held-out sample that differs there loses thousands of nats.
# Held-out mean log p(x), nats, k = 25, l = 6 (faces: CelebA "Male", standardised, 32 × 32 × 3, k = 10), seed 0:
#
#   floor     1e-6     1e-5     5e-5     1e-4   1.5e-4     2e-4     3e-4     5e-4     1e-3     1e-2     1e-1
#   digit 0  -37,730  -1,492    1,424    1,726    1,815    1,879    1,844    1,818    1,724
#   digit 3  -10,088     582    1,911    2,021    2,016    1,996    1,954    1,884    1,765    1,305      791
#   digit 8  -26,708     108    1,787    1,917    1,972    1,959    1,935    1,873    1,765
#   faces     -2,389                     -2,389                                       -2,389   -2,389   -2,404
#
# With three seeds 2e-4 is within 1.7% of the best floor on each digit. The strokes of digit 1 leave more pixels black:
# its best floor is 1e-3 or more (2,509; 2e-4: 2,003; 1e-4: 1,431), so a floor chosen by held-out samples can do better.
NOISE_FLOOR = {"isotropic": 1e-6, "diagonal": 2e-4}


def lowest_noise(source: Source, noise: str, share: float | None) -> float:
    """The floor in squared units of the data: `share` (None: the default) of the variance's mean over features.

    Warns of features that diagonal noise describes by the floor alone: those without variance and, with the default,
    those whose variance is below it.
    """
    floor = (NOISE_FLOOR[noise] if share is None else share) * source.survey.scale
    floor = max(floor, float(np.finfo(np.float64).tiny))
    if noise == "diagonal":
        variances = source.feature_variances()
        # A floor that the caller chose is meant to be above some variances.
        flat = np.count_nonzero(variances < floor if share is None else variances == 0)
        if flat:
            warnings.warn(
                f"{flat} of {len(variances)} features have no variance, or less than the noise floor, {floor:.3g}: "
                f"with diagonal noise the floor decides what they add to log p(x); leave them out, standardise "
                f"features of different units, or choose noise_floor by held-out samples",
                stacklevel=4,
            )
    return floor
