"""Parts of the pseudo-label node."""
