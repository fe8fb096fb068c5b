"""
Theorem 2, computed
===================

For symmetric classes no perturbation shorter than half a sample's distance to the other class's subspaces (less its
distance to its own) fools the optimal classifier, in the limit of vanishing noise. Certified radii show how the limit
is approached.
"""

import matplotlib.pyplot as plt
import numpy as np

import mfakit

pair = mfakit.datasets.load_bayes_pair("mnist-06")
sigmas = [0.2, 0.1, 0.05, 0.02, 0.01, 0.005]
low, middle, high = [], [], []
for sigma in sigmas:
    clf = pair.symmetric(sigma=sigma)
    X, y = clf.sample(40, rng=0, balanced=True, dtype=np.float64)
    minimal = mfakit.attacks.minimal_perturbation(clf, X, y)
    own, other = mfakit.theory.own_and_other_distances(clf, X, y)
    ratio = (minimal.lower / (0.5 * (other - own)))[~minimal.already_wrong]
    for values, level in ((low, 0.0), (middle, 0.5), (high, 1.0)):
        values.append(np.quantile(ratio, level))
    print(f"sigma {sigma}: certified radius over Theorem 2's, least {low[-1]:.3f}, median {middle[-1]:.3f}")

# %%
# No radius is below the theorem's bound once the noise is small. Radii above it belong to samples whose nearest point
# of the other class's subspaces is one that the class's density does not reach.

fig, axis = plt.subplots(figsize=(5.5, 3.4))
axis.fill_between(sigmas, low, high, alpha=0.2, label="all samples")
axis.semilogx(sigmas, middle, "o-", label="median")
axis.axhline(1.0, color="gray", linewidth=1)
axis.set(xlabel="σ, data units", ylabel="certified radius / Theorem 2")
axis.legend()
fig.tight_layout()
plt.show()
