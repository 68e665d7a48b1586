"""One file a runtime, found by its name: `registry.py`. It has RUNTIMES, a tuple of `base.Runtime`, best first."""
