"""CW-L2 with a search for each sample, on any torch module."""
