"""2D foundation models that teach: features and masks of camera images. One teacher is one file."""
