"""Random materials of each family: paint, wood, metal, glass, ..."""

from collections.abc import Callable

import numpy as np

from cmp_seg_ros.simulation.mesh import Material, Rng

GLASS = Material((0.75, 0.85, 0.85), 0.08, gloss=0.5, transmission=0.9, texture="glass")
MIRROR = Material((0.7, 0.75, 0.8), 0.02, gloss=1.0, texture="mirror")
SCREEN = Material((0.05, 0.05, 0.07), 0.06, gloss=0.5)
BLACK_PLASTIC = Material((0.08, 0.08, 0.09), 0.08, gloss=0.1)
CHROME = Material((0.75, 0.75, 0.78), 0.5, gloss=0.7)
STEEL = Material((0.55, 0.56, 0.58), 0.45, gloss=0.3)
WHITE_PLASTIC = Material((0.9, 0.9, 0.88), 0.75)
WHITE_ENAMEL = Material((0.94, 0.94, 0.94), 0.8, gloss=0.15)
LAMP_SHADE = Material((1.0, 0.98, 0.88), 0.7, texture="emissive")
SKIN = Material((0.78, 0.58, 0.46), 0.5)
LEAF = Material((0.18, 0.42, 0.14), 0.6, texture="leaves")
CARDBOARD = Material((0.68, 0.52, 0.34), 0.55)
ASPHALT = Material((0.35, 0.35, 0.36), 0.2, texture="noise")
GRASS = Material((0.3, 0.45, 0.2), 0.5, texture="noise")


def _shade(rng: Rng, low: float, high: float, spread: float = 0.04) -> tuple[float, float, float]:
    r, g, b = np.clip(rng.uniform(low, high) + rng.uniform(-spread, spread, 3), 0.02, 0.98)
    return (round(float(r), 3), round(float(g), 3), round(float(b), 3))


def _tinted(rng: Rng, saturation: float, low: float = 0.2, high: float = 0.9) -> tuple[float, float, float]:
    gray, tint = rng.uniform(low, high), rng.uniform(-1, 1, 3)
    r, g, b = np.clip(gray + saturation * tint, 0.03, 0.97)
    return (round(float(r), 3), round(float(g), 3), round(float(b), 3))


def paint(rng: Rng) -> Material:
    """A wall's paint, mostly light."""
    color = _tinted(rng, 0.06, 0.65, 0.93) if rng.random() < 0.8 else _tinted(rng, 0.2, 0.3, 0.7)
    return Material(color, rng.uniform(0.55, 0.9), texture=str(rng.choice(["", "", "noise", "bricks", "panels"])))


def ceiling_paint(rng: Rng) -> Material:
    return Material(_shade(rng, 0.75, 0.95, 0.02), rng.uniform(0.6, 0.9), texture=str(rng.choice(["", "panels"])))


def wood(rng: Rng) -> Material:
    tone = rng.uniform(0.25, 0.85)
    color = (round(0.9 * tone, 3), round(0.68 * tone, 3), round(0.45 * tone, 3))
    return Material(color, float(0.25 + 0.45 * tone), gloss=rng.uniform(0, 0.15), texture="wood")


def floor(rng: Rng) -> Material:
    kind = rng.choice(["wood", "tiles", "carpet", "concrete", "linoleum"])
    if kind == "wood":
        plank = wood(rng)
        return Material(plank.color, plank.reflectivity, gloss=rng.uniform(0, 0.3), texture="planks")
    if kind == "tiles":
        return Material(_shade(rng, 0.3, 0.9), rng.uniform(0.3, 0.8), rng.uniform(0, 0.4), texture="tiles")
    if kind == "carpet":
        return Material(_tinted(rng, 0.15, 0.15, 0.6), rng.uniform(0.15, 0.6), texture="carpet")
    gloss = rng.uniform(0, 0.3)
    return Material(_shade(rng, 0.3, 0.75), rng.uniform(0.2, 0.6), gloss, texture="noise")


def fabric(rng: Rng) -> Material:
    return Material(_tinted(rng, 0.25, 0.1, 0.85), rng.uniform(0.15, 0.85), texture="fabric")


def lacquer(rng: Rng) -> Material:
    """Painted furniture, plastic."""
    color = _shade(rng, 0.75, 0.95) if rng.random() < 0.5 else _tinted(rng, 0.3, 0.1, 0.8)
    return Material(color, rng.uniform(0.15, 0.9), gloss=rng.uniform(0, 0.15))


def package(rng: Rng, cardboard: float = 0.5) -> Material:
    """Cardboard, in that share of cases, or lacquer."""
    return CARDBOARD if rng.random() < cardboard else lacquer(rng)


def metal(rng: Rng) -> Material:
    return STEEL if rng.random() < 0.5 else Material(_shade(rng, 0.1, 0.7), rng.uniform(0.1, 0.5), gloss=0.15)


def furniture(rng: Rng) -> Material:
    """Wood or lacquer."""
    return wood(rng) if rng.random() < 0.55 else lacquer(rng)


def glass(rng: Rng) -> Material:
    """A pane, from clear to tinted or frosted."""
    passing = rng.uniform(0.75, 0.97) if rng.random() < 0.85 else rng.uniform(0.2, 0.6)
    return Material(GLASS.color, rng.uniform(0.03, 0.15), gloss=0.5, transmission=passing, texture="glass")


def one_of(rng: Rng, *families: Callable[[Rng], Material]) -> Material:
    return families[int(rng.integers(len(families)))](rng)
