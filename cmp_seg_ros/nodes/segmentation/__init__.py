"""Parts of the segmentation node: rate, the check of a lidar that leans, a rehearsal before the first."""
