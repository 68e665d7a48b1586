"""Parts of the segmentation node: its rate, and the check of a lidar that leans."""
