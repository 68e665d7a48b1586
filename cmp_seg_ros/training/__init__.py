"""Training: cached scans, augmentation, losses, schedules and the one loop."""
