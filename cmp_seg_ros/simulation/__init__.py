"""Procedural buildings seen by simulated lidars and cameras, truth included."""
