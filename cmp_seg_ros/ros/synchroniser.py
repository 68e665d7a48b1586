"""Joins scans with the images of nearest stamp. A scan is never held up by a camera that is late, slow or absent."""

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

Image = TypeVar("Image")

MEMORY = 16  # images
JUMP_BACK = 1_000_000_000  # ns; a stamp this much before the latest one means that time ran backwards


@dataclass(frozen=True)
class Match(Generic[Image]):
    """An image and how much later than the scan it was taken, in nanoseconds."""

    image: Image
    offset: int


class Synchroniser(Generic[Image]):
    """Finds the image of nearest stamp for each scan.

    A match is final when an image at or after the scan's stamp is there (none nearer can follow), when the deadline has
    passed since the scan came, or when no camera is alive. Stamps are nanoseconds; `now` is any clock in seconds that
    does not jump.

    Args:
        deadline: seconds. An image further from the scan than this is no match, nor is one waited for longer.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.scans = self.matched = self.resets = 0
        self._images: deque[tuple[int, Image]] = deque(maxlen=MEMORY)
        self._offsets: deque[int] = deque(maxlen=100)
        self._image_came: float | None = None
        self._latest_scan = 0

    def add_image(self, stamp: int, image: Image, now: float) -> None:
        """Remember an image; the oldest are forgotten."""
        if self._images and stamp < self._images[-1][0] - JUMP_BACK:
            self._images.clear()
        self._images.append((stamp, image))
        self._image_came = now

    def add_scan(self, stamp: int) -> bool:
        """Note a scan; true where time ran backwards, as when a bag starts again: older images are forgotten then."""
        backwards = 0 < stamp < self._latest_scan
        if backwards:
            self.resets += 1
            kept = [(s, image) for s, image in self._images if s <= stamp + JUMP_BACK]
            self._images = deque(kept, maxlen=MEMORY)
        if stamp > 0:
            self._latest_scan = stamp
        return backwards

    def decided(self, stamp: int, waiting_since: float, now: float) -> bool:
        """Whether the nearest image of the scan is known for good."""
        alive = self._image_came is not None and now - self._image_came < max(1.0, 2 * self.deadline)
        if stamp == 0 or not alive or now - waiting_since >= self.deadline:
            return True
        return any(s >= stamp for s, _ in self._images)

    def match(self, stamp: int) -> Match[Image] | None:
        """The nearest image inside the deadline, which counts for the match rate; None where there is none."""
        self.scans += 1
        found = min(self._images, key=lambda item: abs(item[0] - stamp), default=None) if stamp else None
        if found is None or abs(found[0] - stamp) > self.deadline * 1e9:
            return None
        self.matched += 1
        self._offsets.append(found[0] - stamp)
        return Match(found[1], found[0] - stamp)

    @property
    def match_rate(self) -> float:
        """Share of the scans that have an image, 0..1."""
        return self.matched / self.scans if self.scans else 0.0

    @property
    def median_offset(self) -> int | None:
        """Nanoseconds, of the last hundred matches."""
        return int(median(self._offsets)) if self._offsets else None
