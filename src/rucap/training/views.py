"""Views of a training photo: the whole of it, its mirror image, random crops with changed colours.

A view is a pure function of its number and the photo's content, so that cached features can be found again.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

_SIDES = re.compile(r"\b(?:с|в)?(?:лев|прав)(?:а|о|ый|ая|ое|ые|ой|ую|ого|ому|ым|ом|ых|ыми)\b", re.IGNORECASE)


@dataclass(frozen=True)
class View:
    """What is done to a photo: a box (fractions left, top, right, bottom), mirroring, factors of colour."""

    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    mirrored: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether nothing is cut off."""
        return self.box == (0.0, 0.0, 1.0, 1.0)


def view_of(number: int, digest: str) -> View:
    """View 0 is the whole photo, 1 its mirror image, the others crops of 60 to 100 % of the area.

    `digest` is the hexadecimal SHA-256 of the photo's file.
    """
    if number < 2:
        return View(mirrored=number == 1)
    random = np.random.default_rng([int(digest[:16], 16), number])
    area, aspect = random.uniform(0.6, 1.0), math.exp(random.uniform(-0.2, 0.2))
    width, height = min(math.sqrt(area * aspect), 1.0), min(math.sqrt(area / aspect), 1.0)
    left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
    brightness, contrast, saturation = random.uniform(0.8, 1.25, 3)
    mirrored = bool(random.integers(2))
    return View((left, top, left + width, top + height), mirrored, brightness, contrast, saturation)


def apply(view: View, photo: Image.Image) -> Image.Image:
    """The photo as the view shows it."""
    width, height = photo.size
    if not view.whole:
        left, top, right, bottom = view.box
        photo = photo.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
    if view.mirrored:
        photo = ImageOps.mirror(photo)
    for enhancer, factor in (
        (ImageEnhance.Brightness, view.brightness),
        (ImageEnhance.Contrast, view.contrast),
        (ImageEnhance.Color, view.saturation),
    ):
        if factor != 1.0:
            photo = enhancer(photo).enhance(factor)
    return photo


def names_a_side(text: str) -> bool:
    """Whether a text speaks of left or right, which a mirrored view would make untrue."""
    return _SIDES.search(text) is not None
