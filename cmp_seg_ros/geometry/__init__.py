"""Camera models, calibration files, rigid transforms and projection with visibility."""
