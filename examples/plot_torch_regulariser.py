"""
A density as a regulariser in torch
===================================

:class:`mfakit.torch.MFAModule` is a density with our kernels behind autograd. Here it denoises: the image that is
near the noisy one and likely under the density is found by gradient descent.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

import mfakit

X, _ = load_digits(return_X_y=True)
X = (X / 16.0).astype("float32")
train, clean = X[100:], torch.from_numpy(X[:8])
mfa = mfakit.MixtureOfFactorAnalyzers(n_components=20, n_factors=6, random_state=0).fit(train).mfa_
density = mfakit.torch.MFAModule(mfa)

torch.manual_seed(0)
sigma = 0.25
noisy = clean + sigma * torch.randn_like(clean)

image = noisy.clone().requires_grad_()
optimizer = torch.optim.Adam([image], lr=0.02)
for _ in range(150):
    optimizer.zero_grad()
    loss = (image - noisy).square().sum() / (2 * sigma**2) - density(image).sum()
    loss.backward()
    optimizer.step()
restored = image.detach()

# %%
# The mean square error falls, although the loop has never seen the clean images.

for name, images in (("noisy", noisy), ("restored", restored)):
    print(f"{name}: mean square error {(images - clean).square().mean():.4f}")

fig, axes = plt.subplots(3, 8, figsize=(7, 2.8))
for row, images in enumerate((clean, noisy, restored)):
    for axis, pixels in zip(axes[row], images, strict=True):
        axis.imshow(pixels.reshape(8, 8), cmap="gray", vmin=0, vmax=1)
        axis.axis("off")
fig.tight_layout()
plt.show()
