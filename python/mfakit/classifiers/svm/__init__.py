"""Linear and RBF support vector machines."""
