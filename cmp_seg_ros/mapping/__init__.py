"""Semantic maps: odometry, labels fused over time in voxels, floor plan and occupancy grid. Knows nothing of ROS."""
