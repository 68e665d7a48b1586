"""Benchmark suites: which scans a bundle is measured on, the run, its scores, tables and picture."""
