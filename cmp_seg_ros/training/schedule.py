"""Learning-rate schedule of the published training."""

import math


def warmup_cosine(iteration: int, warmup: int, total: int, minimum: float) -> float:
    """Factor on the learning rate: linear from 0 to 1 over `warmup` iterations, then a cosine down to `minimum`.

    Args:
        iteration: 0..total; later iterations stay at `minimum`.
        minimum: final factor, 0..1.
    """
    if iteration < warmup:
        return iteration / warmup
    progress = min((iteration - warmup) / max(total - warmup, 1), 1.0)
    return minimum + 0.5 * (1 - minimum) * (1 + math.cos(math.pi * progress))
