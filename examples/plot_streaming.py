"""
Fitting to data that does not fit in memory
===========================================

:meth:`mfakit.MixtureOfFactorAnalyzers.fit_blocks` reads the rows in blocks, one pass over them for each EM step, and
holds one block at a time. The mixture is the same as that of all rows at once.
"""

import matplotlib.pyplot as plt
import numpy as np

import mfakit

truth = mfakit.datasets.load_bayes_pair("mnist-45").mixtures[0]


def blocks():
    """The same blocks at every pass; here they are sampled, elsewhere they are read from files."""
    for seed in range(8):
        yield truth.sample(500, rng=seed)[0]


options = dict(n_components=4, n_factors=6, random_state=0, max_iter=15, tol=0.1)
streamed = mfakit.MixtureOfFactorAnalyzers(**options).fit_blocks(blocks)
whole = mfakit.MixtureOfFactorAnalyzers(**options).fit(np.concatenate(list(blocks())))
print(f"streamed {streamed.lower_bound_:.6f} nats, whole {whole.lower_bound_:.6f} nats")
assert abs(streamed.lower_bound_ - whole.lower_bound_) < 1e-3 * abs(whole.lower_bound_)

fig, axes = plt.subplots(1, 5, figsize=(8, 2.4), width_ratios=[2, 1, 1, 1, 1])
axes[0].plot(streamed.history_["log_likelihood"], label="streamed")
axes[0].plot(whole.history_["log_likelihood"], "--", label="whole")
axes[0].set(xlabel="EM step", ylabel="mean log p(x)")
axes[0].legend(fontsize=7)
for axis, mean in zip(axes[1:], streamed.means_, strict=True):
    axis.imshow(mean.reshape(28, 28), cmap="gray")
    axis.axis("off")
fig.tight_layout()
plt.show()
