"""One file per runtime, found by name (`registry.py`); each has RUNTIMES, a tuple of `base.Runtime`, best first."""
