"""
Attacks of other libraries, verified and graded
===============================================

:func:`mfakit.attacks.run_external` runs an attack of foolbox, of adv-lib, or any function of a model, inputs and
labels; :func:`mfakit.attacks.evaluate` judges points that were found elsewhere. Either way the result is verified as
our own attacks' are, and its lengths can be divided by the certified minima.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import mfakit
from mfakit.attacks import carlini_wagner_l2, gradient_attack, minimal_perturbation, run_external

clf = mfakit.datasets.load_bayes_pair("mnist-27").symmetric(sigma=0.01)
X, y = clf.sample(30, rng=0, balanced=True)
X = X.clip(0, 1)

# %%
# An attack as adv-lib writes them: it gets a torch module, a batch of inputs and their labels. An instance of a foolbox
# attack can be passed in the same place.


def projected_gradient(model, inputs, labels, radius=4.0, steps=40):
    """Steps along the gradient of the margin, projected on a ball around the sample."""
    x = inputs.clone()
    for _ in range(steps):
        x.requires_grad_()
        logits = model(x)
        margin = logits.gather(1, 1 - labels[:, None]) - logits.gather(1, labels[:, None])
        (gradient,) = torch.autograd.grad(margin.sum(), x)
        change = x.detach() + 0.3 * gradient / gradient.norm(dim=1, keepdim=True) - inputs
        x = inputs + change * (radius / change.norm(dim=1, keepdim=True)).clamp(max=1.0)
    return x


results = {
    "projected gradient": run_external(projected_gradient, clf, X, y, bounds=(-1, 2)),
    "Carlini-Wagner": carlini_wagner_l2(clf, X, y, max_iterations=200, binary_search_steps=3),
    "gradient, polished": gradient_attack(clf, X, y, polish=True),
}
minimal = minimal_perturbation(clf, X, y)

fig, axis = plt.subplots(figsize=(6, 3))
for name, result in results.items():
    grade = result.grade(minimal)
    print(f"{name}: fooled {result.success_rate:.2f}, {grade.mean:.3f} times the minimum")
    axis.plot(np.sort(grade.over_upper), label=name)  # what was not fooled, NaN, comes last
axis.axhline(1.0, color="gray", linewidth=1)
axis.set(xlabel="sample, sorted", ylabel="length over certified minimum")
axis.legend()
fig.tight_layout()
plt.show()
