"""SceneDINO (Jevtic et al., ICCV 2025): from one image to a field of density, features and classes in space.

The network, its rendering and its voxels; reads the published checkpoints.
"""
