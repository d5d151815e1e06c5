"""The CPU backend: a Numba kernel that interprets a table of layers."""
