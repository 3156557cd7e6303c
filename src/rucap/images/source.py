"""Whatever a caller holds, as encoded bytes or as a PIL image. This module does not decode."""

from __future__ import annotations

import os
import re
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from rucap.errors import ImageError
from rucap.images.download import download
from rucap.images.limits import Limits, read_within, too_large
from rucap.images.wording import detail, printable

Source: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | npt.NDArray[Any]
"""A path, an http(s) URL, an encoded photo's bytes, a binary file object, a PIL image, or an array [height, width],
[height, width, 1 | 3 | 4] of bool, uint8, uint16 or floats in 0..1."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def describe(source: Source) -> str:
    """What errors call `source`."""
    if isinstance(source, str | os.PathLike):
        return printable(os.fspath(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return "the given bytes"
    if isinstance(source, np.ndarray):
        return "the given array"
    name = getattr(source, "filename" if isinstance(source, Image.Image) else "name", None)
    return printable(name) if isinstance(name, str) and name else f"the given {type(source).__name__}"


def read_source(source: Source, limits: Limits) -> bytes | Image.Image:
    """Encoded bytes where `source` has them, else a PIL image of any mode.

    Raises ImageError when it is missing, unreadable, empty, too large, or of a type or shape that is no photo.
    """
    name = describe(source)
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    data = _read_bytes(source, name, limits)
    if not data:
        raise ImageError(f"{name}: empty; copy or download the photo again")
    return data


def _read_bytes(source: object, name: str, limits: Limits) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        if memoryview(source).nbytes > limits.max_bytes:
            raise too_large(name, limits)
        return bytes(source)
    if isinstance(source, str) and (scheme := _SCHEME.match(source)):
        if scheme[1].lower() not in ("http", "https"):
            raise ImageError(f"{name}: addresses of {scheme[1]} are not opened; give an http(s) URL or a path")
        return download(source, limits)
    if isinstance(source, str | os.PathLike):
        return _read_file(source, name, limits)
    if hasattr(source, "read"):
        return _read_object(cast(BinaryIO, source), name, limits)
    raise ImageError(f"{name}: not a photo; give a path, a URL, bytes, a file object, a PIL image or a NumPy array")


def _read_file(path: str | os.PathLike[str], name: str, limits: Limits) -> bytes:
    try:
        if os.path.isdir(path):
            raise ImageError(f"{name}: a folder, not a photo; give the photos in it")
        with open(path, "rb") as file:
            return read_within(file.read, name, limits)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file; check the path") from None
    except PermissionError:
        raise ImageError(f"{name}: no permission to read it; change the file's permissions or its owner") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else detail(error)
        raise ImageError(f"{name}: cannot be read ({reason}); check the path") from None


def _read_object(file: BinaryIO, name: str, limits: Limits) -> bytes:
    try:
        # As Pillow does, so that a buffer that was just written opens too.
        if hasattr(file, "seekable") and file.seekable():
            file.seek(0)
        return read_within(file.read, name, limits)
    except ImageError:
        raise
    except TypeError:
        raise ImageError(f"{name}: gives text, not bytes; open the file in binary mode ('rb')") from None
    except Exception as error:
        raise ImageError(f"{name}: cannot be read ({detail(error)}); give an open binary file") from error


def _from_array(array: npt.NDArray[Any], name: str) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        shape = "x".join(map(str, array.shape)) or "one number"
        raise ImageError(f"{name}: its shape is {shape}; give height x width, or height x width x 3 or 4")
    if array.dtype == np.bool_:
        pixels = np.where(array, np.uint8(255), np.uint8(0))
    elif array.dtype == np.uint16:
        pixels = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        # `not` and not `or`, so that NaN is refused too; a hair beyond is what interpolation leaves.
        if not (array.min() >= -1e-3 and array.max() <= 1 + 1e-3):
            raise ImageError(f"{name}: floats must lie in 0..1; divide by the largest value, or give uint8")
        pixels = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    elif array.dtype == np.uint8:
        pixels = array
    else:
        raise ImageError(f"{name}: numbers of type {array.dtype} are not pixels; give uint8 or floats in 0..1")
    return Image.fromarray(np.ascontiguousarray(pixels))
