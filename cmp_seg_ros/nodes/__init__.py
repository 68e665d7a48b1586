"""Thin ROS 2 nodes: message in, library call, message out."""
