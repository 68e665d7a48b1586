"""Stands in for ROS packages that are not installed: the part of their interface that is used here."""
