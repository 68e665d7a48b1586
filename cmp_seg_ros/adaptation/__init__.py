"""`cmp-seg adapt`: from recordings of a robot, and no labels, to a bundle for it and a verdict on that bundle."""
