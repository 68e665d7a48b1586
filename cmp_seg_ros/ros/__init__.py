"""The ROS boundary: synchroniser, QoS, diagnostics, stand-ins."""
