"""Semantic occupancy: grids, simulated views with true occupancy, scores and pictures. Knows no network."""
