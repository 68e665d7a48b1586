"""The WaffleIron network and its preprocessing; reads the published checkpoints."""
