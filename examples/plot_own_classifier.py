"""
A Bayes classifier of one's own images, with certified radii
============================================================

:class:`mfakit.MFAClassifier` fits a mixture to each class. What it decides by, ``bayes_``, can be attacked and
certified: for every image, a length below which nothing changes the decision, and a point that does.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mfakit

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16.0, y, test_size=0.3, random_state=0)
clf = mfakit.MFAClassifier(n_components=3, n_factors=6, random_state=0).fit(X_train, y_train)
print(f"accuracy on test images: {clf.score(X_test, y_test):.3f}")

# %%
# The bracket [lower, upper] of each sample is a proof from below and a verified point from above.

minimal = mfakit.attacks.minimal_perturbation(clf.bayes_, X_test[:60], y_test[:60])
print(minimal)

order = np.argsort(minimal.lower)
fig, axis = plt.subplots(figsize=(6, 3.2))
axis.plot(minimal.upper[order], label="verified point")
axis.plot(minimal.lower[order], "--", label="proven lower bound")
axis.set_xlabel("test image, sorted")
axis.set_ylabel("length of the perturbation")
axis.legend()
fig.tight_layout()

# %%
# The image whose decision is hardest to change, and the nearest point that changes it.

i = int(np.nanargmax(np.where(minimal.success, minimal.lower, -1)))
fig, axes = plt.subplots(1, 2, figsize=(4, 2.2))
for axis, image, label in ((axes[0], X_test[i], minimal.y[i]), (axes[1], minimal.x_adv[i], minimal.y_adv[i])):
    axis.imshow(image.reshape(8, 8), cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"decided as {label}", fontsize=9)
    axis.axis("off")
fig.tight_layout()
plt.show()
