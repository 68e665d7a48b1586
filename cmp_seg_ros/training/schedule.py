"""Learning-rate schedules of the published trainings."""

import math


def warmup_cosine(iteration: int, warmup: int, total: int, minimum: float) -> float:
    """Factor on the learning rate: linear from 0 to 1 over `warmup` iterations, then a cosine down to `minimum`.

    WaffleIron and ScaLR.

    Args:
        iteration: 0..total; later iterations stay at `minimum`.
        minimum: final factor, 0..1.
    """
    if iteration < warmup:
        return iteration / warmup
    progress = min((iteration - warmup) / max(total - warmup, 1), 1.0)
    return minimum + 0.5 * (1 - minimum) * (1 + math.cos(math.pi * progress))


def warmup_rsqrt(iteration: float, warmup: float, timescale: float, cooldown: float, total: float) -> float:
    """Factor on the learning rate: linear over `warmup`, then 1 / sqrt, then linear to 0 from `cooldown` to `total`.

    ScaLR+ (branch scalr_plus). As published, the line of the cool-down begins where the curve would be without its
    warm-up, a jump of one per cent.

    Args:
        iteration, warmup, timescale, cooldown, total: in the same unit, iterations or epochs.
    """
    if iteration < warmup:
        return iteration / warmup
    if iteration < cooldown:
        return 1 / math.sqrt(1 + (iteration - warmup) / timescale)
    left = max(0.0, (total - iteration) / (total - cooldown))
    return left / math.sqrt(1 + cooldown / timescale)
