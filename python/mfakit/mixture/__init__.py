"""Mixtures of factor analyzers: parameters, densities, latents, sampling and the components' subspaces."""
