"""The whole captioner's weights: what is written, what comes back, and what is said of a file at fault."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from rucap.errors import ModelError  # noqa: E402
from rucap.model.config import (  # noqa: E402
    EncoderConfig,
    GenerationDefaults,
    HintsConfig,
    LanguageModelConfig,
    MapperConfig,
    ModelConfig,
    Preprocessing,
    PromptsConfig,
)
from rucap.network.prefix_captioner import (  # noqa: E402
    PrefixCaptioner,
    fresh_network,
    load_network,
    load_weights,
    save_weights,
)

SIZE, WIDTH = 64, 16
PHOTOS = Preprocessing(SIZE, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3)
GPT = {"n_embd": WIDTH, "n_layer": 1, "n_head": 2, "vocab_size": 30, "n_positions": 40}
TOWER = {
    "model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "image_size": SIZE, "patch_size": 32, "projection_dim": 12, "labels": 3,
}  # fmt: skip
EFFICIENTNET = EncoderConfig("efficientnet_lite", 4, 1328, PHOTOS), MapperConfig("grid", 3, 1, 2, width=8)
CLIP = EncoderConfig("clip", 1, 12, PHOTOS, TOWER), MapperConfig("mlp", 3, 2, width=8)


def config_of(encoder, mapper):
    return ModelConfig(
        name="test", language="ru", encoder=encoder, mapper=mapper,
        language_model=LanguageModelConfig("gpt2", WIDTH, 1, 2, 30, 40, {**GPT, "bos_token_id": 1, "eos_token_id": 2}),
        prompts=PromptsConfig("", "{question}"), generation=GenerationDefaults(), hints=HintsConfig("labels.tsv", 2),
    )  # fmt: skip


def trained(config):
    """A network whose every tensor that training may change differs from where it starts."""
    torch.manual_seed(0)
    network = fresh_network(config) if config.encoder.kind == "efficientnet_lite" else PrefixCaptioner(config)
    for name, tensor in network.state_dict().items():
        if not network.is_frozen(name):
            tensor.add_(0.01 * torch.randn_like(tensor))
    return network.eval()


@pytest.mark.parametrize("parts", [EFFICIENTNET, CLIP])
@pytest.mark.parametrize("reader", ["load_network", "load_weights"])
def test_what_is_written_comes_back(tmp_path, parts, reader):
    config = config_of(*parts)
    network = trained(config)
    save_weights(network, tmp_path / "model.safetensors")
    if reader == "load_network":
        again = load_network(config, tmp_path / "model.safetensors")
    else:
        again = PrefixCaptioner(config).eval()
        load_weights(again, tmp_path / "model.safetensors")
    pixels = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        for ours, theirs in zip(again.encode(pixels), network.encode(pixels), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor)
    assert not list(tmp_path.glob("*.part"))


def test_only_a_package_s_tensors_are_left_out(tmp_path):
    for parts in (EFFICIENTNET, CLIP):
        save_weights(trained(config_of(*parts)), tmp_path / f"{parts[0].kind}.safetensors")
    of_package, of_clip = (load_file(tmp_path / f"{kind}.safetensors") for kind in ("efficientnet_lite", "clip"))
    assert {name.split(".")[1] for name in of_package if name.startswith("encoder.")} == {"tail"}
    assert {name.split(".")[1] for name in of_clip if name.startswith("encoder.")} == {"tower", "label_embeddings"}
    assert "language_model.transformer.wte.weight" in of_clip
    assert "language_model.lm_head.weight" not in of_clip


def test_what_training_leaves_alone():
    network = PrefixCaptioner(config_of(*CLIP))
    frozen = {name for name, _ in network.named_parameters() if network.is_frozen(name)}
    assert frozen == {name for name, _ in network.named_parameters() if name.startswith("encoder.")}
    assert not any(network.is_packaged(name) for name in network.state_dict())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("mapper.model.0.bias"), r"mapper\.model\.0\.bias is missing"),
        (lambda t: t.pop("encoder.tower.visual_projection.weight"), r"visual_projection\.weight is missing"),
        (lambda t: t.update(extra=torch.ones(1)), "unexpected tensor extra"),
        (lambda t: t.update({"mapper.model.0.bias": torch.ones(3)}), r"mapper\.model\.0\.bias has the shape \(3,\)"),
    ],
)
def test_tensor_at_fault_is_named(tmp_path, change, said):
    file, config = tmp_path / "model.safetensors", config_of(*CLIP)
    save_weights(trained(config), file)
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(ModelError, match=said):
        load_network(config, file)


def test_file_that_is_no_safetensors(tmp_path):
    for content in (b"", b"not safetensors at all"):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read"):
            load_network(config_of(*CLIP), tmp_path / "model.safetensors")


def test_language_model_that_transformers_lacks():
    config = config_of(*CLIP)
    object.__setattr__(config, "language_model", LanguageModelConfig("nothing", WIDTH, 1, 2, 30, 40, {}))
    with pytest.raises(ModelError, match="language_model"):
        PrefixCaptioner(config)
