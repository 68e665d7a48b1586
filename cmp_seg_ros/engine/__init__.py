"""Runtimes that evaluate a bundle's network on the voxels of one scan."""
