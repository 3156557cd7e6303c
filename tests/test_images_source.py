import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rucap.errors import ImageError, OptionError
from rucap.images import Limits, open_photo

RED = Image.new("RGB", (6, 4), (255, 0, 0))


def png(image: Image.Image = RED) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def is_red(photo: Image.Image) -> bool:
    return photo.mode == "RGB" and photo.size == RED.size and photo.tobytes() == RED.tobytes()


def error_of(source, limits: Limits | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        open_photo(source, limits or Limits())
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Where photos come from


def test_paths(tmp_path):
    path = tmp_path / "красный квадрат"  # neither the suffix nor the alphabet of a name matters
    path.write_bytes(png())
    assert is_red(open_photo(path))
    assert is_red(open_photo(str(path)))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes(kind):
    assert is_red(open_photo(kind(png())))


def test_a_file_just_written_is_read_from_its_beginning():
    file = io.BytesIO()
    RED.save(file, "PNG")
    assert is_red(open_photo(file))


def test_a_pipe():
    reading, writing = os.pipe()
    with open(writing, "wb") as file:
        file.write(png())
    with open(reading, "rb") as file:
        assert is_red(open_photo(file))


def test_pil_image():
    assert is_red(open_photo(RED))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64, np.bool_])
def test_arrays(dtype):
    white = {np.uint8: 255, np.uint16: 65535, np.bool_: True}.get(dtype, 1)
    array = np.zeros((4, 6, 3), dtype)
    array[..., 0] = white
    assert is_red(open_photo(array))
    assert is_red(open_photo(np.dstack([array, np.full((4, 6), white, dtype)])))
    transparent = open_photo(np.dstack([array, np.zeros((4, 6), dtype)]))
    assert transparent.getpixel((0, 0)) == (255, 255, 255)
    for grey in (array[..., 0], array[..., :1]):
        assert open_photo(grey).getpixel((0, 0)) == (255, 255, 255)


def test_arrays_are_rounded_and_may_be_views():
    assert open_photo(np.full((1, 1), 0.5)).getpixel((0, 0)) == (128, 128, 128)
    assert open_photo(np.full((1, 1), 32768, np.uint16)).getpixel((0, 0)) == (128, 128, 128)
    assert open_photo(np.full((1, 1), 200, np.uint16)).getpixel((0, 0)) == (1, 1, 1)
    assert open_photo(np.full((1, 1), 1 + 1e-6)).getpixel((0, 0)) == (255, 255, 255)
    ramp = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert open_photo(ramp[:, ::-1]).getpixel((0, 0)) == (9, 10, 11)


# What is no photo


def test_missing_folder_and_empty(tmp_path):
    (tmp_path / "empty.jpg").touch()
    assert error_of(tmp_path / "none.jpg") == f"{tmp_path / 'none.jpg'}: no such file; check the path"
    assert error_of(tmp_path) == f"{tmp_path}: a folder, not a photo; give the photos in it"
    assert error_of(tmp_path / "empty.jpg").startswith(f"{tmp_path / 'empty.jpg'}: empty; ")
    assert error_of(b"").startswith("the given bytes: empty; ")
    assert error_of(io.BytesIO()).startswith("the given BytesIO: empty; ")


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "locked.png"
    path.write_bytes(png())

    def refuse(*_arguments):
        raise PermissionError(13, "Permission denied")

    if getattr(os, "geteuid", lambda: 0)() == 0:  # root may read anything
        monkeypatch.setattr("builtins.open", refuse)
    else:
        path.chmod(0)
    assert error_of(path).startswith(f"{path}: no permission to read it; ")


@pytest.mark.skipif(sys.platform == "win32", reason="names are limited in another way")
@pytest.mark.parametrize("name", ["", "x" * 5000, "a/" * 3000])
def test_names_that_no_file_has(name):
    assert error_of(name).startswith(name + ": ")


def test_names_are_safe_to_print():
    assert error_of("a\0\n\x1b[31mкот\udcff").startswith(r"a\x00\n\x1b[31mкот\udcff: ")


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "half.png"
    path.write_bytes(png()[:45])
    assert error_of(path).startswith(f"{path}: damaged or cut short (")
    with path.open("rb") as file:
        assert error_of(file).startswith(f"{path}: damaged or cut short (")


@pytest.mark.parametrize("source", [None, 7, ["a.jpg"], object()])
def test_other_types(source):
    assert error_of(source).startswith(f"the given {type(source).__name__}: not a photo; give a path, a URL,")


def test_files_that_do_not_read_bytes():
    assert "binary mode" in error_of(io.StringIO("text"))
    closed = io.BytesIO(png())
    closed.close()
    assert "closed file" in error_of(closed)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 6), (4, 6, 2), (4, 6, 5), (1, 4, 6, 3), (0, 4, 3), (4, 0)])
def test_shapes_that_are_no_photo(shape):
    assert "height x width x 3 or 4" in error_of(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("value", [1.5, -0.5, 255.0, np.nan, np.inf])
def test_floats_beyond_one(value):
    assert "floats must lie in 0..1" in error_of(np.full((2, 2, 3), value))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.complex64, object, "U1"])
def test_numbers_that_are_no_pixels(dtype):
    assert "are not pixels; give uint8" in error_of(np.zeros((2, 2, 3), dtype))


# Limits


def test_bytes_are_limited_whatever_the_source(tmp_path):
    content = png()
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    just, below = Limits(max_bytes=len(content)), Limits(max_bytes=len(content) - 1)
    for make in (lambda: path, lambda: content, lambda: io.BytesIO(content)):
        assert is_red(open_photo(make(), just))
        assert f"more than {len(content) - 1:,} bytes" in error_of(make(), below)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero")
def test_an_endless_file_is_read_no_further_than_the_limit():
    assert "more than 1,000,000 bytes" in error_of("/dev/zero", Limits(max_bytes=1_000_000))


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"max_pixels": -1}, {"timeout_seconds": float("nan")}])
def test_limits_must_be_positive(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        Limits(**options)
