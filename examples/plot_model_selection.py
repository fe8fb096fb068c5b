"""
How many components and factors? BIC says
=========================================

The Bayesian information criterion weighs the log-likelihood against the number of free parameters; lower is better.
It finds the numbers that the samples were made with.
"""

import matplotlib.pyplot as plt
import numpy as np

import mfakit

rng = np.random.default_rng(0)
truth = mfakit.MFA(np.full(4, 0.25), 3 * rng.normal(size=(4, 10)), rng.normal(size=(4, 10, 2)), 0.05)
X, _ = truth.sample(2000, rng=1)

components, factors = range(1, 8), (1, 2, 3)
fig, axis = plt.subplots(figsize=(5.5, 3.4))
found = {}
for l in factors:
    for k in components:
        est = mfakit.MixtureOfFactorAnalyzers(k, l, n_init=2, max_iter=300, random_state=0).fit(X)
        found[k, l] = est.bic(X)
    axis.plot(components, [found[k, l] for k in components], "o-", label=f"l = {l}")
axis.set(xlabel="components k", ylabel="BIC")
axis.legend()
fig.tight_layout()
print("lowest BIC at (k, l) =", min(found, key=found.get))
plt.show()
