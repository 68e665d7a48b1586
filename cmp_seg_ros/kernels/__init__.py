"""Kernels for all inner loops, compiled by numba for this processor and cached."""

COMPILING = "compiling"  # name of the compiling thread; defined here to be importable without numba
