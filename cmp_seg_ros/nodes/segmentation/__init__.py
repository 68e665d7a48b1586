"""Parts of the segmentation node: rate, remarks on odd scans, a rehearsal before the first."""
