"""The Bayes-optimal classifier of classes that are mixtures, and its symmetric and asymmetric variants."""
