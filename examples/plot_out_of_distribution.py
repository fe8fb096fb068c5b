"""
Out-of-distribution detection
=============================

A density fitted to one kind of image gives other images lower log-densities. Here a mixture of factor analyzers is
fitted to the digits 0 to 4 and asked about the digits 5 to 9.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

import mfakit

X, y = load_digits(return_X_y=True)
X = X / 16.0
train, known, new = X[y < 5][::2], X[y < 5][1::2], X[y >= 5]

est = mfakit.MixtureOfFactorAnalyzers(n_components=10, n_factors=6, random_state=0).fit(train)
diagonal = GaussianMixture(10, covariance_type="diag", reg_covar=1e-3, random_state=0).fit(train)

# %%
# The area under the ROC curve is the chance that a known digit has the higher log-density of a random pair. Six
# factors for each component describe how strokes move together, which a diagonal covariance cannot.

truth = np.r_[np.ones(len(known)), np.zeros(len(new))]
for name, model in (("mixture of factor analyzers", est), ("diagonal Gaussian mixture", diagonal)):
    print(f"{name}: area under the ROC curve {roc_auc_score(truth, model.score_samples(np.r_[known, new])):.3f}")

fig, axis = plt.subplots(figsize=(6, 3.5))
for name, rows in (("digits 0 to 4, not trained on", known), ("digits 5 to 9", new)):
    axis.hist(est.score_samples(rows).clip(-200), bins=40, alpha=0.6, density=True, label=name)
axis.set_xlabel("log p(x), nats")
axis.set_yticks([])
axis.legend()
fig.tight_layout()
plt.show()
