"""
Two known classes, and how far apart they are
=============================================

Because the densities of the two classes are known, so is the optimal classifier. We sample digits from a shipped pair,
ask for their log-densities, and attack the optimal classifier: its symmetric variant needs a visible change of the
digit, its asymmetric variant an imperceptible one.
"""

import matplotlib.pyplot as plt

import mfakit

pair = mfakit.datasets.load_bayes_pair("mnist-06")
symmetric = pair.symmetric(sigma=0.01)
variants = {"symmetric": symmetric, "asymmetric": symmetric.asymmetric()}

# %%
# The attack returns evidence: the points, their lengths, and which samples were fooled. The points are verified in
# float64 after they were rounded to the dtype of the samples.

fig, axes = plt.subplots(4, 6, figsize=(7, 5))
for half, (name, clf) in enumerate(variants.items()):
    X, y = clf.sample(6, rng=3, balanced=True)
    attack = mfakit.attacks.gradient_attack(clf, X, y, polish=True)
    print(f"{name}: accuracy {attack.accuracy:.2f}, fooled {attack.success_rate:.2f}, mean l2 {attack.mean_l2:.2f}")
    for row, images in ((2 * half, X), (2 * half + 1, attack.x_adv)):
        for axis, image in zip(axes[row], images, strict=True):
            axis.imshow(image.reshape(28, 28), cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        axes[row, 0].set_ylabel(f"{name}\n{'samples' if images is X else 'fooled'}", fontsize=7)
fig.tight_layout()

# %%
# As the noise vanishes, no perturbation shorter than this fools the symmetric classifier, whatever the attack
# (Theorem 2): half the distance between the two nearest subspaces of its classes. Most samples are further away.

print(f"{mfakit.theory.theorem2_radius(symmetric).radius:.2f}")
plt.show()
