"""Labels of points from the masks of an image teacher: projected, mapped to a label space, refined."""
