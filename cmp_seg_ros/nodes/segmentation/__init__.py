"""The rooms of the segmentation node: parameters, sensors, inputs, rate, outputs, report."""
