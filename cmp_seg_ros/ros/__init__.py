"""The ROS boundary: message codecs, synchroniser, QoS, diagnostics, stand-ins."""
