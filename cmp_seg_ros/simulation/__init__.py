"""Procedural buildings, scanned by simulated lidars and cameras, with ground truth."""
