"""Engines that run a bundle's network on the voxels of one scan."""
