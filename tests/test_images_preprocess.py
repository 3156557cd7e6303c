import io

import numpy as np
import pytest
from PIL import Image
from skimage import data

from rucap.errors import ImageError
from rucap.images import Limits, load_pixels, open_photo, preprocess
from rucap.model.config import Preprocessing

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP = Preprocessing(224, "crop", "bicubic", MEAN, STD)
SQUASH = Preprocessing(96, "squash", "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def textured(width: int, height: int) -> Image.Image:
    """A photo with detail at every scale, so that a shift of part of a pixel shows."""
    photo = Image.fromarray(data.astronaut()).resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(width * height).normal(0, 20, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(photo) + grain, 0, 255).astype(np.uint8))


def jpeg(photo: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def clip_processor():
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    return module.CLIPImageProcessorPil()


SHAPES = [(224, 224), (225, 224), (224, 225), (451, 300), (300, 451), (640, 427), (427, 640), (333, 500), (97, 61)]
SHAPES += [(31, 200), (200, 31), (1, 1), (3, 100), (1001, 667), (1023, 341), (223, 447), (224, 449), (683, 1024)]


@pytest.mark.parametrize("shape", SHAPES)
def test_crop_is_the_reference_implementations(clip_processor, shape):
    photo = textured(*shape)
    expected = clip_processor(images=photo, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(preprocess(photo, CLIP), expected, atol=1e-4)


def test_squash_uses_the_whole_photo_and_the_given_numbers():
    photo = textured(300, 120)
    square = np.asarray(photo.resize((96, 96), Image.Resampling.BILINEAR))
    pixels = preprocess(photo, SQUASH)
    assert pixels.dtype == np.float32
    assert pixels.shape == (3, 96, 96)
    assert pixels.flags.c_contiguous
    for channel in range(3):
        expected = (square[:, :, channel] / 255 - SQUASH.mean[channel]) / SQUASH.std[channel]
        np.testing.assert_allclose(pixels[channel], expected, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_interpolations_are_pillows(interpolation):
    photo = textured(150, 150)
    pixels = preprocess(photo, Preprocessing(64, "squash", interpolation, (0, 0, 0), (1, 1, 1)))
    expected = photo.resize((64, 64), Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(np.rint(pixels.transpose(1, 2, 0) * 255), np.asarray(expected))


@pytest.mark.parametrize("size", [(60_000, 2), (2, 60_000)])
@pytest.mark.parametrize("preprocessing", [CLIP, SQUASH])
def test_a_thread_of_pixels_costs_no_more_than_a_photo(size, preprocessing, monkeypatch):
    made, resize = [], Image.Image.resize

    def recorded(image, to, *arguments):
        made.append(to[0] * to[1])
        return resize(image, (min(to[0], 1000), min(to[1], 1000)), *arguments)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    preprocess(Image.new("RGB", size, "red"), preprocessing)
    assert 0 < max(made) < 5_000_000  # and not 224 x 6,720,000


def test_cutting_the_ends_off_a_long_strip_keeps_its_middle():
    strip = np.zeros((2, 1000, 3), np.uint8)
    strip[:, 496:504] = 255
    row = preprocess(Image.fromarray(strip), Preprocessing(8, "crop", "bilinear", (0, 0, 0), (1, 1, 1)))[0, 4]
    np.testing.assert_allclose(row, 1)


@pytest.mark.parametrize("preprocessing", [CLIP, Preprocessing(224, "squash", "bicubic", MEAN, STD)])
@pytest.mark.parametrize("size", [(1800, 904), (912, 1824)])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_reduced_decoding_changes_less_than_a_shift_of_an_eighth_of_a_pixel(preprocessing, size, subsampling):
    encoded = jpeg(textured(*size), subsampling=subsampling)
    whole = open_photo(encoded)
    assert max(open_photo(encoded, target=224).size) == max(size) // 2
    eighth = (whole.width if preprocessing.resize == "squash" else min(whole.size)) / 224 / 8
    shift = (1, 0, eighth, 0, 1, 0)
    shifted = whole.transform(whole.size, Image.Transform.AFFINE, shift, Image.Resampling.BICUBIC)
    expected = preprocess(whole, preprocessing)
    reduced = np.abs(load_pixels(encoded, preprocessing) - expected)
    moved = np.abs(preprocess(shifted, preprocessing) - expected)[:, 4:-4, 4:-4]
    assert 0 < reduced.mean() < moved.mean()
    assert reduced.max() < moved.max() / 2


@pytest.mark.parametrize(
    ("size", "target", "expected"),
    [
        ((4032, 3024), 224, (1008, 756)),  # 1/8 would leave 378, less than twice the target
        ((3584, 3584), 224, (448, 448)),
        ((1792, 904), 224, (896, 452)),
        ((1793, 904), 224, (1793, 904)),  # 2 does not divide the width
        ((1796, 1796), 224, (449, 449)),
        ((1798, 1798), 224, (899, 899)),  # 2 divides it, 4 does not
        ((640, 480), 224, (640, 480)),
        ((640, 480), None, (640, 480)),
    ],
)
def test_scale_of_reduced_decoding(size, target, expected):
    assert open_photo(jpeg(Image.new("RGB", size)), target=target).size == expected


def test_reduced_decoding_is_only_jpegs():
    file = io.BytesIO()
    Image.new("RGB", (1000, 1000)).save(file, "PNG")
    assert open_photo(file, target=32).size == (1000, 1000)


def test_reduced_decoding_and_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = open_photo(jpeg(textured(1600, 800), exif=exif), target=100)
    assert photo.size == (200, 400)
    expected = textured(1600, 800).transpose(Image.Transpose.ROTATE_270).resize((200, 400), Image.Resampling.BOX)
    assert np.abs(np.asarray(photo, float) - np.asarray(expected, float)).mean() < 4


def test_load_pixels_passes_the_limits_on():
    with pytest.raises(ImageError, match="pixels"):
        load_pixels(jpeg(Image.new("RGB", (100, 100))), SQUASH, Limits(max_pixels=9_999))
    assert load_pixels(jpeg(Image.new("RGB", (100, 100))), SQUASH, Limits(max_pixels=10_000)).shape == (3, 96, 96)
