"""The CUDA backend: the kernel of the CPU backend, written for Numba CUDA."""
