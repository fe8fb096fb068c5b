"""The numbers that the paper prints, in its own counting."""

from __future__ import annotations

__all__ = ["TABLE1", "TABLE2", "TABLE3"]

# Table 1, symmetric data: clean (adversarial) accuracy in per cent. "Adversarial" is over all samples, those included
# that were wrong before and that an untargeted attack turns right.
_SYMMETRIC = {
    "celeba-Bangs": ((100, 0), (100, 0), (100, 0), (96, 18)),
    "celeba-Black_Hair": ((100, 0), (98, 2), (100, 0), (96, 26)),
    "celeba-Brown_Hair": ((100, 0), (99, 1), (100, 0), (86, 16)),
    "celeba-Heavy_Makeup": ((100, 0), (100, 0), (100, 0), (96, 14)),
    "celeba-High_Cheekbones": ((100, 0), (100, 0), (100, 0), (96, 10)),
    "celeba-Male": ((100, 0), (100, 0), (100, 0), (100, 8)),
    "celeba-Mouth_Slightly_Open": ((100, 0), (100, 0), (100, 0), (94, 8)),
    "celeba-No_Beard": ((100, 0), (100, 0), (100, 0), (94, 10)),
    "celeba-Smiling": ((100, 0), (100, 0), (100, 0), (96, 10)),
    "celeba-Wearing_Earrings": ((100, 0), (99, 1), (100, 0), (94, 16)),
    "celeba-Wearing_Lipstick": ((100, 0), (100, 0), (100, 0), (92, 18)),
    "celeba-Eyeglasses": ((100, 0), (100, 0), (100, 0), (100, 22)),
    "mnist-06": ((100, 0), (100, 0), (100, 0), (100, 4)),
    "mnist-27": ((100, 0), (100, 0), (100, 0), (100, 7)),
    "mnist-45": ((100, 0), (100, 0), (100, 0), (100, 8)),
}
# Table 2, real images.
_REAL = {
    "celeba-Male": ((94.7, 5.30), (89.7, 10.3), (89.7, 11.3)),
    "celeba-Smiling": ((88.0, 12.0), (88.3, 11.7), (84.3, 16.3)),
    "celeba-Bangs": ((94.0, 6.00), (87.0, 13.0), (93.7, 24.7)),
    "celeba-Heavy_Makeup": ((86.0, 14.0), (83.7, 16.3), (85.7, 20.7)),
    "celeba-Eyeglasses": ((100.0, 0.00), (93.7, 6.33), (96.3, 32.3)),
}

Accuracies = dict[str, dict[str, tuple[float, float]]]

TABLE1: Accuracies = {
    name: dict(zip(("bayes", "cnn", "linear-svm", "rbf-svm"), row, strict=True)) for name, row in _SYMMETRIC.items()
}
TABLE2: Accuracies = {
    name: dict(zip(("cnn", "linear-svm", "rbf-svm"), row, strict=True)) for name, row in _REAL.items()
}
# Table 3: accuracy on real test images of CNNs trained on real and on symmetric data, in per cent.
TABLE3 = {
    "celeba-Male": (92.3, 88.0),
    "celeba-Smiling": (89.5, 85.6),
    "celeba-Bangs": (94.3, 90.4),
    "celeba-Heavy_Makeup": (86.3, 79.9),
    "celeba-Eyeglasses": (98.4, 91.7),
}
