"""Readers: one file per kind of input, each an iterable of scans."""
