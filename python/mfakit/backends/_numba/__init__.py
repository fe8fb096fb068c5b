"""The kernels in Numba, for installations without the compiled extension."""
