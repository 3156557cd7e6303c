"""An upright RGB photo out of anything that Pillow decodes. This module does not know what models want, but for a size.

Colour profiles are not applied: the encoders that the photos are for were trained on pixels as stored.
"""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.Image import Transpose
from PIL.JpegImagePlugin import JpegImageFile

from rucap.errors import ImageError
from rucap.images.limits import DEFAULT_LIMITS, Limits
from rucap.images.source import Source, describe, read_source
from rucap.images.wording import detail

# Only what photos come in: of Pillow's other readers some start programs (EPS), which is nothing for strangers' files.
_AVIF = ("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()  # since Pillow 11.3
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "PPM", *_AVIF)
_PHOTO_NAME = re.compile(
    r"[^.].*\.(jpe?g|jpe|jfif|mpo|a?png|webp|avif|hei[cf]|hif|gif|tiff?|bmp|jp2|p[gp]m)", re.IGNORECASE | re.DOTALL
)
_LONGEST_SIDE = 65_535
"""JPEG's own. A resampling filter's table grows with the side, so pixels alone do not bound the memory."""
_REDUCTIONS = (8, 4, 2)
"""The scales at which libjpeg decodes for less, but for 1."""
_OVERSAMPLING = 2
"""A reduced JPEG keeps this many pixels a pixel wanted, so that the last resize still decides how it looks."""
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""EXIF 2.32, tag 0x0112: what makes a photo of that orientation upright."""

_filters = threading.Lock()


def is_photo_name(path: str | os.PathLike[str]) -> bool:
    """Whether a file in a folder looks like a photo by its name; hidden files (macOS's `._IMG.jpg`) do not."""
    return _PHOTO_NAME.fullmatch(os.path.basename(os.fspath(path))) is not None


def open_photo(source: Source, limits: Limits = DEFAULT_LIMITS, target: int | None = None) -> Image.Image:
    """Opens `source` as an upright RGB image: EXIF's orientation, transparency over white, an animation's first frame.

    With `target` (pixels of the shortest side that are wanted) a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size,
    at least twice the target, and only where that divides both sides, so that proportions stay exact.
    Raises ImageError, one line with the name and the remedy, whatever is wrong with the source.
    """
    name = describe(source)
    given = read_source(source, limits)
    image = given if isinstance(given, Image.Image) else _identify(given, name)
    _check_size(image.size, name, limits)
    try:
        if target is not None and image is not given and isinstance(image, JpegImageFile):
            _reduce(image, target)
        # Pillow reads the rest of a TIFF's tags, and warns of them, only as it decodes.
        with _silence() if image.format == "TIFF" else nullcontext():
            image.load()
        turn = _UPRIGHT.get(_orientation(image))
        photo = _rgb(image)
        return photo if turn is None else photo.transpose(turn)
    except MemoryError:
        raise ImageError(
            f"{name}: {image.width} x {image.height} needs more memory than there is; make it smaller"
        ) from None
    except Exception as error:  # decoders raise anything: struct.error, SyntaxError, KeyError ...
        raise ImageError(f"{name}: damaged or cut short ({detail(error)}); copy or download it again") from error


def _identify(data: bytes, name: str) -> Image.Image:
    """Reads the header only."""
    with _silence():
        try:
            return Image.open(io.BytesIO(data), formats=_FORMATS)
        except UnidentifiedImageError:
            if data[4:8] == b"ftyp":
                return _identify_heif(data, name)
        except Image.DecompressionBombError:
            raise ImageError(f"{name}: more pixels than PIL.Image.MAX_IMAGE_PIXELS allows; make it smaller") from None
        except Exception as error:
            raise ImageError(f"{name}: damaged or cut short ({detail(error)}); copy or download it again") from error
    if data.lstrip()[:1] == b"<":
        raise ImageError(f"{name}: a web page or other markup; give the address or path of the photo itself")
    raise ImageError(f"{name}: not an image that can be read; save the photo as JPEG, PNG or WebP")


def _identify_heif(data: bytes, name: str) -> Image.Image:
    if data[8:12] in (b"avif", b"avis"):
        raise ImageError(f"{name}: a damaged AVIF photo, or Pillow is too old for it; try pip install -U pillow")
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise ImageError(f"{name}: HEIC photos need pillow-heif; pip install 'rucap[heic]'") from None
    try:
        image: Image.Image = HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ImageError(f"{name}: not a HEIC photo, or damaged ({detail(error)}); save it as JPEG") from error
    return image


def _check_size(size: tuple[int, int], name: str, limits: Limits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: has no pixels ({width} x {height}); give a photo")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name}: {width} x {height} is more than {limits.max_pixels:,} pixels; make it smaller or raise the limit"
        )
    if max(size) > _LONGEST_SIDE:
        raise ImageError(f"{name}: {width} x {height} has a side longer than {_LONGEST_SIDE:,}; make it smaller")


def _reduce(image: JpegImageFile, target: int) -> None:
    """Makes the decoder give 1/scale of `image`.

    Where a scale does not divide a side, libjpeg fills up the last pixel, the proportions change and centre crops move.
    """
    width, height = image.size
    for scale in _REDUCTIONS:
        wide_enough = min(width, height) >= _OVERSAMPLING * target * scale
        if wide_enough and width % scale == 0 and height % scale == 0:
            image.draft(None, (width // scale, height // scale))
            return


def _orientation(image: Image.Image) -> int:
    """EXIF's, or 1 where it cannot be read: a photo with broken metadata is still a photo."""
    with _silence():
        try:
            return int(image.getexif().get(Base.Orientation, 1))
        except Exception:
            return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _grey(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        photo = Image.new("RGB", image.size, "white")
        photo.paste(image, mask=image.getchannel("A"))
        return photo
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """8-bit grey of a mode with more bits, scaled; Pillow's own conversion cuts everything above 255 to white."""
    values = np.nan_to_num(np.asarray(image).astype(np.float32))
    largest = float(values.max())
    if image.mode.startswith("I;16"):
        white = 65_535.0
    else:  # the file does not say what white is: the first usual one that holds all values
        usual = (1.0, 255.0, 65_535.0) if image.mode == "F" else (255.0, 65_535.0)
        white = next((top for top in usual if largest <= top), largest)
    grey = np.rint(np.clip(values * (255 / white), 0, 255)).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps Pillow's warnings on odd metadata from the user, who gets the photo or an ImageError.

    The list of warning filters belongs to the whole process, so one thread at a time changes it and puts it back;
    decoding (but of TIFF) stays outside.
    """
    with _filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.|pillow_heif")
        yield
