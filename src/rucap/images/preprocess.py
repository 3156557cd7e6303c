"""Photos to the encoder's pixels, by the numbers in a model's configuration; training and captioning both come here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.Image import Resampling

from rucap.images.limits import DEFAULT_LIMITS, Limits
from rucap.images.photo import open_photo
from rucap.images.source import Source
from rucap.model.config import Preprocessing

_FILTERS = {"bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC, "lanczos": Resampling.LANCZOS}
_SLIMMEST = 64
"""Long to short side beyond which `crop` first cuts the ends off: 1 x 65,535 would be resized to 3 gigapixels."""


def load_pixels(
    source: Source, preprocessing: Preprocessing, limits: Limits = DEFAULT_LIMITS
) -> npt.NDArray[np.float32]:
    """Opens and preprocesses a photo: float32 [3, size, size]. Raises ImageError when it cannot be opened."""
    return preprocess(open_photo(source, limits, target=preprocessing.size), preprocessing)


def preprocess(photo: Image.Image, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Resizes an RGB image to the encoder's square and normalises it: float32 [3, size, size].

    `crop` gives what transformers' CLIPImageProcessor gives, rounding included.
    """
    interpolation = _FILTERS[preprocessing.interpolation]
    if preprocessing.resize == "squash":
        square = photo.resize((preprocessing.size, preprocessing.size), interpolation)
    else:
        square = _resize_and_crop(photo, preprocessing.size, interpolation)
    mean, std = (np.asarray(values, np.float32) for values in (preprocessing.mean, preprocessing.std))
    pixels = (np.asarray(square, np.float32) / 255 - mean) / std
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _resize_and_crop(photo: Image.Image, size: int, interpolation: Resampling) -> Image.Image:
    photo = _without_ends(photo)
    short = min(photo.size)
    # Truncated, not rounded, as in transformers' get_resize_output_image_size and torchvision's Resize.
    width, height = (int(size * side / short) for side in photo.size)
    left, top = (width - size) // 2, (height - size) // 2
    return photo.resize((width, height), interpolation).crop((left, top, left + size, top + size))


def _without_ends(photo: Image.Image) -> Image.Image:
    longest = _SLIMMEST * min(photo.size)
    left, top = (max(0, side - longest) // 2 for side in photo.size)
    return photo.crop((left, top, photo.width - left, photo.height - top)) if left or top else photo
