"""
Samples along a subspace
========================

Each component of a mixture is a flat piece of the space of images: its mean plus combinations of its factors. Moving
along one factor changes the slant or the width of a digit and leaves it a digit.
"""

import matplotlib.pyplot as plt
import numpy as np

import mfakit

mfa = mfakit.datasets.load_bayes_pair("mnist-27").mixtures[1]
component = int(mfa.weights.argmax())
A = mfa.loadings[component].astype(np.float64)
directions, lengths, _ = np.linalg.svd(A, full_matrices=False)

fig, axes = plt.subplots(3, 7, figsize=(7, 3.2))
for row in range(3):
    for axis, z in zip(axes[row], np.linspace(-2, 2, 7), strict=True):
        image = mfa.means[component] + z * lengths[row] * directions[:, row]
        axis.imshow(image.reshape(28, 28), cmap="gray", vmin=0, vmax=1)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(f"{z:+.1f} σ" if row == 0 else "", fontsize=8)
    axes[row, 0].set_ylabel(f"factor {row}", fontsize=8)
fig.tight_layout()

# %%
# How far apart the subspaces of the two classes are decides how robust their optimal classifier can be.

pair = mfakit.datasets.load_bayes_pair("mnist-27")
distances, pairs = mfakit.subspace_distances(*pair.mixtures, reduce="smallest", n_smallest=3)
for distance, (i, j) in zip(distances, pairs, strict=True):
    print(f"component {i} of one class and {j} of the other are {distance:.2f} apart")
plt.show()
