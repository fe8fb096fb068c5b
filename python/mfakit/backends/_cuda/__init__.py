"""The CUDA device: what is missing, sources, launches and uploads. Nothing else knows CuPy beyond arrays."""
