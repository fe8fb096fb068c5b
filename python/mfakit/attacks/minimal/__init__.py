"""Smallest perturbations with certificates: the factor path, and the feature path for any noise."""
