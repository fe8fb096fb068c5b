"""Certified minima of linear classifiers, machines of RBF kernels and nearest neighbours."""
