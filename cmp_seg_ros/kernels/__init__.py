"""What runs in every inner loop, compiled by numba for the processor at hand and kept in a cache."""

COMPILING = "compiling"  # name of the thread that compiles; here, where it can be had without importing numba
