"""The one door through which anything becomes pixels: files, URLs, bytes, PIL images and arrays.

This layer knows Pillow, limits and the numbers of a model's preprocessing. It does not know what a model is, nor what
is done with the pixels.
"""

from rucap.images.limits import Limits
from rucap.images.photo import is_photo_name, open_photo
from rucap.images.preprocess import load_pixels, preprocess
from rucap.images.source import Source, describe

__all__ = ["Limits", "Source", "describe", "is_photo_name", "load_pixels", "open_photo", "preprocess"]
