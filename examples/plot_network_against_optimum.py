"""
How far is a network from the optimum?
======================================

On samples of known classes, each perturbation that fools a network can be divided by the certified radius of the same
sample: 1 is as robust as possible. A small convolutional network that classifies every sample rightly is fooled by a
fraction of that.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import mfakit

torch.manual_seed(0)
torch.set_num_threads(2)
optimal = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(sigma=0.01)
X, y = optimal.sample(2000, rng=0, balanced=True)
X_test, y_test = optimal.sample(40, rng=1, balanced=True)

net = nn.Sequential(
    nn.Unflatten(1, (1, 28, 28)),
    nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(),
    nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(),
    nn.Flatten(), nn.Linear(256, 2),
)  # fmt: skip
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
for _ in range(3):
    for rows in torch.randperm(len(X)).split(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.from_numpy(X)[rows]), torch.from_numpy(y)[rows]).backward()
        optimizer.step()
net.eval()

# %%
# The attack runs on the network, the certificate on the optimal classifier, both on the same samples.

attack = mfakit.attacks.carlini_wagner_l2(net, X_test, y_test, max_iterations=300, binary_search_steps=4)
minimal = mfakit.attacks.minimal_perturbation(optimal, X_test, y_test)
grade = attack.grade(minimal)
print(f"accuracy of the network {attack.accuracy:.2f}, fooled {attack.success_rate:.2f}")
print(grade)

fig, axis = plt.subplots(figsize=(4.5, 4))
axis.scatter(minimal.lower, attack.l2, s=12)
top = 1.1 * float(minimal.upper.max())
axis.plot([0, top], [0, top], color="gray", linewidth=1)
axis.set(xlim=(0, top), ylim=(0, top), xlabel="certified radius of the optimum", ylabel="length that fools the network")
fig.tight_layout()
assert np.isfinite(grade.mean)
plt.show()
