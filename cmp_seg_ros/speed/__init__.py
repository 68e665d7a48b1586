"""How fast the engines are: scans of every size, rivals in turns, the bare matrix products as the floor."""
