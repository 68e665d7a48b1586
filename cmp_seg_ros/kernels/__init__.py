"""What runs in every inner loop, compiled by numba for the processor at hand and kept in a cache."""
