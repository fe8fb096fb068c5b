"""
In-painting: the mean, and samples of what could be there
=========================================================

Given some pixels, the others have a density too, and it is again a mixture of factor analyzers.
:meth:`mfakit.MFA.impute` fills in its mean; :meth:`mfakit.MFA.conditional` returns the density itself, and its samples
show what could be there.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import mfakit

X, y = load_digits(return_X_y=True)
X = X / 16.0
test, train = X[:8], X[100:]
mfa = mfakit.MixtureOfFactorAnalyzers(n_components=20, n_factors=6, random_state=0).fit(train).mfa_

mask = np.zeros((8, 8), bool)
mask[:, 4:] = True  # the right half is missing
mask = mask.ravel()
means = mfa.impute(test, mask)

fig, axes = plt.subplots(5, 8, figsize=(7, 4.6))
names = ("original", "seen", "mean", "a sample", "another")
for i in range(8):
    given = mfa.conditional(~mask, test[i, ~mask])
    drawn = np.tile(test[i], (2, 1))
    drawn[:, mask] = given.sample(2, rng=i)[0]
    seen = np.where(mask, 0.5, test[i])
    for row, image in enumerate((test[i], seen, means[i], *drawn)):
        axes[row, i].imshow(image.reshape(8, 8), cmap="gray", vmin=0, vmax=1)
        axes[row, i].set_xticks([])
        axes[row, i].set_yticks([])
        axes[row, 0].set_ylabel(names[row], fontsize=8)
fig.tight_layout()
plt.show()
