"""Codecs of ROS messages, for rclpy and for bags alike: nothing here imports ROS."""
