import io
import struct
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, features
from skimage import data

from rucap.errors import ImageError
from rucap.images import Limits, is_photo_name, open_photo

CAT = Image.fromarray(data.chelsea()[:96, 100:228])  # 128 x 96


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.mode == other.mode == "RGB"
    assert one.size == other.size
    return float(np.asarray(ImageChops.difference(one, other)).mean())


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and ends there: whoever decodes it finds it cut short."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100))]
    body = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_undone(orientation, kind):
    # How a camera held so stores the upright CAT; the inverse of each is written out, not taken from the code tested.
    turn = Image.Transpose
    stored = {1: None, 2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM}
    stored |= {5: turn.TRANSPOSE, 6: turn.ROTATE_90, 7: turn.TRANSVERSE, 8: turn.ROTATE_270}
    image = CAT if stored[orientation] is None else CAT.transpose(stored[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert difference(open_photo(encode(image, kind, exif=exif)), CAT) < 6


def test_broken_metadata_leaves_the_photo_as_it_lies():
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 500) + b"\x12\x01\x03"
    assert open_photo(encode(CAT, "JPEG", exif=exif)).size == CAT.size
    exif = b"Exif\0\0neither II nor MM"
    image, other = CAT.copy(), CAT.copy()  # Pillow raises once an image, then says that there is no metadata
    image.info["exif"] = other.info["exif"] = exif
    with pytest.raises(SyntaxError):
        other.getexif()
    assert open_photo(image).size == CAT.size


# Colour modes


def half_transparent() -> tuple[Image.Image, Image.Image]:
    """An image whose left half is see-through, and what it is over white."""
    alpha = Image.new("L", CAT.size, 255)
    alpha.paste(0, (0, 0, 64, 96))
    expected = CAT.copy()
    expected.paste("white", (0, 0, 64, 96))
    image = CAT.copy()
    image.putalpha(alpha)
    return image, expected


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_over_white(kind):
    image, expected = half_transparent()
    options = {"lossless": True} if kind == "WEBP" else {}
    assert difference(open_photo(encode(image, kind, **options)), expected) == 0


def test_partial_transparency_is_mixed_with_white():
    pixel = open_photo(encode(Image.new("RGBA", (2, 2), (255, 0, 0, 51)))).getpixel((0, 0))
    assert pixel == (255, 204, 204)


def test_grey_with_alpha():
    image, expected = half_transparent()
    assert difference(open_photo(encode(image.convert("LA"))), expected.convert("L").convert("RGB")) == 0


def test_premultiplied_alpha_of_an_image_in_memory():
    image, expected = half_transparent()
    assert difference(open_photo(image.convert("RGBa")), expected) == 0


def test_palette_with_a_transparent_entry_and_with_many():
    palette = Image.new("P", (3, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.putdata([0, 1, 2])
    one = open_photo(encode(palette, transparency=1))
    assert [one.getpixel((x, 0)) for x in range(3)] == [(255, 0, 0), (255, 255, 255), (0, 0, 255)]
    many = open_photo(encode(palette, transparency=bytes([255, 0, 51])))
    assert [many.getpixel((x, 0)) for x in range(3)] == [(255, 0, 0), (255, 255, 255), (204, 204, 255)]


@pytest.mark.parametrize(("mode", "key"), [("RGB", (10, 20, 30)), ("L", 10)])
def test_a_transparent_colour(mode, key):
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), 40 if mode == "L" else (40, 40, 40))
    photo = open_photo(encode(image, transparency=key))
    assert photo.getpixel((0, 0)) == (255, 255, 255)
    assert photo.getpixel((1, 0)) == (40, 40, 40)


def test_one_bit():
    photo = open_photo(encode(Image.fromarray(np.array([[True, False]]))))
    assert [photo.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (0, 0, 0)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut(kind):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    photo = open_photo(encode(Image.fromarray(values), kind))
    assert [photo.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


def test_dark_sixteen_bits_stay_dark():
    photo = open_photo(encode(Image.fromarray(np.full((2, 2), 200, np.uint16))))
    assert photo.getpixel((0, 0)) == (1, 1, 1)


def test_big_endian_sixteen_bits_and_a_transparent_value():
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 65535 // 3, 65535))
    assert open_photo(image).getpixel((0, 0)) == (85, 85, 85)
    transparent = Image.fromarray(np.array([[1000, 2000]], np.uint16))
    transparent.info["transparency"] = 1000
    assert [open_photo(transparent).getpixel((x, 0))[0] for x in range(2)] == [255, 8]


def test_sixteen_bit_colour():
    rows = b"\0" + struct.pack(">HHH", 65535, 32768, 0)
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    assert open_photo(b"\x89PNG\r\n\x1a\n" + body).getpixel((0, 0)) == (255, 128, 0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0, np.nan]], np.float32), [0, 128, 255, 0]),
        (np.array([[-5.0, 0.0, 100.0, 255.0]], np.float32), [0, 0, 100, 255]),
        (np.array([[0, 100, 255, -1]], np.int32), [0, 100, 255, 0]),
        (np.array([[0, 257, 32768, 65535]], np.int32), [0, 1, 128, 255]),
        (np.array([[0, 0, 0, 1 << 30]], np.int32), [0, 0, 0, 255]),
    ],
)
def test_wide_grey(values, expected):
    photo = open_photo(encode(Image.fromarray(values), "TIFF"))
    assert [photo.getpixel((x, 0))[0] for x in range(4)] == expected


def test_cmyk_jpeg_as_adobe_writes_it():
    # Pillow writes CMYK JPEGs as Photoshop does, inverted and marked with Adobe's APP14.
    encoded = encode(CAT.convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in encoded
    assert difference(open_photo(encoded), CAT) < 6


def test_cmyk_and_ycbcr_and_planar_tiff():
    assert difference(open_photo(encode(CAT.convert("CMYK"), "TIFF")), CAT) < 1
    assert difference(open_photo(CAT.convert("YCbCr")), CAT) < 2


# Formats


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "PPM", "MPO"])
def test_formats(kind):
    assert difference(open_photo(encode(CAT, kind)), CAT) < 8


@pytest.mark.skipif("avif" not in features.modules or not features.check("avif"), reason="a Pillow without AVIF")
def test_avif():
    assert difference(open_photo(encode(CAT, "AVIF")), CAT) < 8


def test_avif_that_cannot_be_read_says_what_may_help():
    with pytest.raises(ImageError, match="pip install -U pillow"):
        open_photo(b"\0\0\0\x1cftypavif" + b"\0" * 100)


def heic(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    pytest.importorskip("pillow_heif").from_pillow(image).save(file, quality=95, **options)
    return file.getvalue()


def test_heic_and_that_pillow_is_left_as_it_was():
    registered = set(Image.registered_extensions())
    assert difference(open_photo(heic(CAT)), CAT) < 8
    assert set(Image.registered_extensions()) == registered


def test_heic_limits_and_damage():
    encoded = heic(CAT)
    with pytest.raises(ImageError, match="128 x 96 is more than 1,000 pixels"):
        open_photo(encoded, Limits(max_pixels=1000))
    with pytest.raises(ImageError):
        open_photo(encoded[: len(encoded) // 2])


def test_heic_without_its_library_says_what_to_install(monkeypatch):
    encoded = heic(CAT)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"the given bytes: .*pip install 'rucap\[heic\]'"):
        open_photo(encoded)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    encoded = encode(CAT, kind, save_all=True, append_images=[Image.new("RGB", CAT.size, "red")], **options)
    assert difference(open_photo(encoded), CAT) < 8


# What is refused


def test_pixels_are_counted_before_decoding():
    with pytest.raises(ImageError, match="12001 x 10000 is more than 120,000,000 pixels"):
        open_photo(png_header(12001, 10000))
    with pytest.raises(ImageError, match="damaged or cut short"):
        open_photo(png_header(1000, 1000))


def test_a_bomb_beyond_pillows_own_limit():
    with pytest.raises(ImageError, match="MAX_IMAGE_PIXELS"):
        open_photo(png_header(100_000, 100_000), Limits(max_pixels=10**12))


def test_a_side_too_long_for_a_resampling_table():
    with pytest.raises(ImageError, match="a side longer than 65,535"):
        open_photo(png_header(70_000, 1))


def test_an_image_in_memory_is_limited_and_must_have_pixels():
    with pytest.raises(ImageError, match="more than 10 pixels"):
        open_photo(Image.new("RGB", (11, 1)), Limits(max_pixels=10))
    with pytest.raises(ImageError, match="no pixels"):
        open_photo(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_photo_cut_short(kind):
    encoded = encode(CAT, kind)
    with pytest.raises(ImageError, match=r"the given bytes: .*copy or download it again"):
        open_photo(encoded[: len(encoded) * 2 // 3])


@pytest.mark.parametrize("content", [b"not an image", b"\0" * 5000, b"%PDF-1.7\n", b"PK\x03\x04" + b"\0" * 100])
def test_not_an_image(content):
    with pytest.raises(ImageError, match="the given bytes: not an image that can be read; save the photo as"):
        open_photo(content)


def test_a_web_page_instead_of_a_photo():
    with pytest.raises(ImageError, match="web page"):
        open_photo(b"\n<!DOCTYPE html><html></html>")


def test_postscript_is_not_run():
    with pytest.raises(ImageError, match="not an image that can be read"):
        open_photo(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


def test_a_closed_image():
    image = CAT.copy()
    image.close()
    with pytest.raises(ImageError, match=r"the given Image: .*closed"):
        open_photo(image)


# What is left alone


def test_the_callers_image_is_left_alone():
    image, _ = half_transparent()
    image.getexif()[0x0112] = 6
    before = image.tobytes()
    assert open_photo(image).size == (96, 128)
    assert image.mode == "RGBA"
    assert image.size == CAT.size
    assert image.tobytes() == before
    assert image.getexif()[0x0112] == 6


def test_warnings_are_silent_here_and_nowhere_else():
    encoded = encode(Image.new("RGB", (64, 64)), "TIFF")
    entry = encoded.index(struct.pack("<HHI", 279, 4, 1))  # strip byte counts: as if there were 200,000
    odd = encoded[: entry + 4] + struct.pack("<I", 200_000) + encoded[entry + 8 :]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(UserWarning), warnings.catch_warnings():
            warnings.simplefilter("error")
            Image.open(io.BytesIO(odd)).load()
        filters = list(warnings.filters)
        try:
            open_photo(odd)
        except ImageError as error:
            assert not isinstance(error.__cause__, Warning)
        assert warnings.filters == filters
        assert not caught
        warnings.warn("mine", stacklevel=1)
        assert [str(w.message) for w in caught] == ["mine"]


def test_two_threads_do_not_mix_up_the_warning_filters(monkeypatch):
    second_inside, first_done, opened, original = threading.Event(), threading.Event(), [], Image.open

    def slow_open(*arguments, **options):
        opened.append(None)
        if len(opened) == 1:
            second_inside.wait(0.3)
        else:
            second_inside.set()
            first_done.wait(0.3)
        return original(*arguments, **options)

    monkeypatch.setattr(Image, "open", slow_open)
    encoded, filters = encode(CAT), list(warnings.filters)
    first = threading.Thread(target=lambda: (open_photo(encoded), first_done.set()))
    second = threading.Thread(target=open_photo, args=(encoded,))
    first.start()
    while not opened:
        time.sleep(0.001)
    second.start()
    first.join()
    second.join()
    assert len(opened) == 2
    assert warnings.filters == filters


def test_many_threads_at_once():
    sources = [encode(CAT, kind) for kind in ("JPEG", "PNG", "TIFF", "GIF")] + [b"junk"]
    expected = [open_photo(source).tobytes() for source in sources[:-1]] + [None]

    def work(i: int) -> bytes | None:
        try:
            return open_photo(sources[i % 5]).tobytes()
        except ImageError:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(200))) == expected * 40


# Any bytes at all

SMALL = CAT.resize((24, 16))
SEEDS = [encode(SMALL, "JPEG"), encode(SMALL, "JPEG", progressive=True), encode(SMALL.convert("CMYK"), "JPEG")]
SEEDS += [encode(SMALL, "PNG"), encode(SMALL.quantize(8), transparency=b"\0\x80"), encode(SMALL, "GIF")]
SEEDS += [encode(SMALL, "WEBP"), encode(SMALL, "TIFF"), encode(SMALL, "BMP")]


def photo_or_image_error(content: bytes) -> None:
    try:
        photo = open_photo(content, target=4)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert photo.mode == "RGB"
        photo.tobytes()


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0"]))
def test_random_bytes(content, magic):
    photo_or_image_error(magic + content)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    st.floats(0, 1),
)
def test_mutated_photos(seed, changes, kept):
    content = bytearray(seed)
    for place, value in changes:
        content[int(place * len(content))] = value
    photo_or_image_error(bytes(content[: int(len(content) * kept) + 1]))


# Names


@pytest.mark.parametrize("name", ["a.jpg", "A.JPEG", "фото 1.png", "b.webp", "c.HEIC", "d.avif", "e.tif", "x/y.z.gif"])
def test_photo_names(name):
    assert is_photo_name(name)


@pytest.mark.parametrize(
    "name", ["a.txt", "jpg", ".jpg", "._IMG_1.jpg", "a.jpg.part", "a.svg", "x.jpg/readme", "a.mp4"]
)
def test_other_names(name):
    assert not is_photo_name(name)
