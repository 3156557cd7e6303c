"""ONNX graphs of CLIP's family, imported from files of transformers and OpenAI: the same numbers and the same words."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
onnx = pytest.importorskip("onnx")

from onnx import numpy_helper  # noqa: E402
from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402

from clipcap import (  # noqa: E402
    PREFIX,
    SIZE,
    WIDTH,
    byte_tokenizer,
    write_checkpoint,
    write_language_model,
    write_preprocessor,
)
from rucap import Captioner  # noqa: E402
from rucap.decoding import GenerationSettings, generate  # noqa: E402
from rucap.engines.onnx import OnnxEngine  # noqa: E402
from rucap.engines.torch import TorchEngine  # noqa: E402
from rucap.errors import NoExportError  # noqa: E402
from rucap.export.encoder import encoder_graph  # noqa: E402
from rucap.export.export import export_model  # noqa: E402
from rucap.export.weights import Float32, Int8  # noqa: E402
from rucap.importing import import_checkpoint, write_graphs  # noqa: E402
from rucap.model.config import HintsConfig, TextTowerConfig  # noqa: E402
from rucap.model.folder import ModelFolder  # noqa: E402
from rucap.network.prefix_captioner import PrefixCaptioner, load_network  # noqa: E402
from test_network_clip import OpenAIResNet  # noqa: E402

FEATURES = PREFIX * WIDTH  # so that a mapper can hand the embedding on as it is
TOWERS = ("clip", "clip, gelu", "siglip", "siglip 2", "resnet")
PHOTOS, WORDS = 100, 20
TEXTS = TextTowerConfig(("en",), 1.0, None, {})
SHAPE = {
    "hidden_size": FEATURES, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 3,
    "image_size": SIZE, "patch_size": 16,
}  # fmt: skip


def write_tower(kind, path):
    """Writes a tower's files; returns their place and what maps pixels to embeddings."""
    path.mkdir()
    if kind == "resnet":
        model = loud(OpenAIResNet((2, 1, 3, 1), FEATURES, heads=4, resolution=64, width=8)).train()
        for _ in range(10):  # gives the batch norms means and variances of their own
            model(smooth(8, 64))
        torch.save({f"visual.{name}": t for name, t in model.eval().state_dict().items()}, path / "rn.pt")
        return path / "rn.pt", model
    if kind.startswith("clip"):
        activation = {"hidden_act": "gelu"} if "gelu" in kind else {}
        vision = transformers.CLIPVisionConfig(**SHAPE, **activation, projection_dim=FEATURES)
        model = loud(transformers.CLIPVisionModelWithProjection(vision))
        model.save_pretrained(path)
        write_preprocessor(path)
        return path, lambda pixels: model(pixels).image_embeds
    # Patches that leave a border, as of so400m's 384 pixels by 14.
    vision = transformers.SiglipVisionConfig(**SHAPE | {"patch_size": 12 if "2" in kind else 16})
    if "2" in kind:  # a whole one, as SigLIP 2's of a fixed size are published
        text = {"vocab_size": 9, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 2, "max_position_embeddings": 8, "projection_size": FEATURES,
                "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip
        whole = loud(
            transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision.to_dict()))
        )
        whole.save_pretrained(path)
        model = whole.vision_model
    else:
        model = loud(transformers.SiglipVisionModel(vision))
        model.save_pretrained(path)
    transformers.SiglipImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(path)
    return path, lambda pixels: model(pixels).pooler_output


def smooth(count, side):
    """Random images that differ as wholes: what is noise alone, a network averages away."""
    return nn.functional.interpolate(2 * torch.randn(count, 3, 3, 3), side, mode="bilinear")


def loud(model):
    """Random weights, large enough for attention to choose, and for biases and positions to matter."""
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="module", params=TOWERS)
def made(request, tmp_path_factory):
    """An imported captioner with its graphs, and the parts that it is made of."""
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("captioner")
    gpt = write_language_model(path / "lm")
    vision, reference = write_tower(request.param, path / "vision")
    original = write_checkpoint(path / "captioner.pt", gpt, features=FEATURES)
    folder = ModelFolder.open(import_checkpoint(path / "captioner.pt", path / "lm", vision, path / "out"))
    write_graphs(folder.path)
    side = folder.config.encoder.preprocessing.size
    network = load_network(folder.config, folder.weights_file)
    pixels = smooth(PHOTOS, side)
    with torch.inference_mode():
        embeddings = reference(pixels)
        prefix = original.prefix(embeddings).numpy()
    return SimpleNamespace(
        folder=folder, network=network, torch=TorchEngine(network), pixels=pixels.numpy(), prefix=prefix,
        embeddings=embeddings.numpy(),
    )  # fmt: skip


def graphs(folder, precision):
    return OnnxEngine(folder.onnx_file("encoder", precision), folder.onnx_file("decoder", precision), threads=1)


def saved(graph, path):
    path.write_bytes(graph.SerializeToString())
    return OnnxEngine(path, path, threads=1)


def greedy(engine, prefix):
    nothing = np.zeros((len(prefix), 0), np.int64)
    settings = GenerationSettings(end_tokens=(2,), max_tokens=WORDS)
    return [found[0].tokens for found in generate(engine, prefix, nothing, nothing.astype(bool), settings)]


def test_embeddings_and_prefixes_equal_the_sources(made, tmp_path):
    exact = graphs(made.folder, "float32").encode(made.pixels).prefix
    np.testing.assert_allclose(exact, made.prefix, atol=1e-5, rtol=1e-5)
    assert made.embeddings.std(axis=0).mean() > 0.1, "photos do differ"
    mapper = replace(made.folder.config.mapper, layers=1, width=0)
    network = PrefixCaptioner(replace(made.folder.config, mapper=mapper)).eval()
    network.encoder.load_state_dict(made.network.encoder.state_dict())
    nn.init.eye_(network.mapper.model[0].weight)
    nn.init.zeros_(network.mapper.model[0].bias)
    found = saved(encoder_graph(network, Float32()), tmp_path / "encoder.onnx").encode(made.pixels).prefix
    np.testing.assert_allclose(found.reshape(PHOTOS, FEATURES), made.embeddings, atol=1e-5, rtol=1e-5)


def test_the_same_words_for_every_photo(made):
    exact = graphs(made.folder, "float32")
    expected = greedy(made.torch, made.torch.encode(made.pixels).prefix)
    assert greedy(exact, exact.encode(made.pixels).prefix) == expected
    assert len(set(expected)) > PHOTOS / 5


def test_int8_mostly_agrees_and_does_not_look_at_neighbours(made):
    rounded, exact = graphs(made.folder, "int8"), graphs(made.folder, "float32")
    prefixes = [engine.encode(made.pixels).prefix for engine in (exact, rounded)]
    np.testing.assert_allclose(rounded.encode(made.pixels[:1]).prefix[0], prefixes[1][0], atol=1e-5)
    error = np.linalg.norm(prefixes[1] - prefixes[0]) / np.linalg.norm(prefixes[0])
    assert 0 < error < 0.05
    tokens = np.random.default_rng(0).integers(5, 300, (PHOTOS, WORDS))
    mask = np.ones(tokens.shape, bool)
    wanted, found = (
        engine.score(prefix, tokens, mask).argmax(axis=2)
        for engine, prefix in zip((exact, rounded), prefixes, strict=True)
    )
    assert 0.9 < (wanted == found).mean() <= 1


def test_matrices_are_int8_and_convolutions_are_not(made):
    graph = encoder_graph(made.network, Int8()).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolutions = [stored[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    assert convolutions and all(weight.dtype == np.float32 for weight in convolutions)
    assert sum(node.op_type == "MatMul" and node.input[1] in stored for node in graph.node) == 0


def test_labels_and_embeddings_are_torch_s(made, tmp_path):
    encoder = replace(made.folder.config.encoder, settings={**made.folder.config.encoder.settings, "labels": 7})
    mapper = replace(made.folder.config.mapper, normalize=True)
    config = replace(
        made.folder.config, encoder=encoder, mapper=mapper, hints=HintsConfig("labels.tsv", 2), text_tower=TEXTS
    )
    network = PrefixCaptioner(config).eval()
    network.load_state_dict(made.network.state_dict(), strict=False)
    network.encoder.label_embeddings.normal_()
    wanted = TorchEngine(network).encode(made.pixels[:9])
    found = saved(encoder_graph(network, Float32()), tmp_path / "encoder.onnx").encode(made.pixels[:9])
    np.testing.assert_allclose(found.label_logits, wanted.label_logits, atol=1e-4)
    np.testing.assert_allclose(found.embedding, wanted.embedding, atol=1e-5, rtol=1e-5)
    assert np.linalg.norm(found.embedding, axis=1).std() > 1e-3, "not normalised"
    np.testing.assert_allclose(found.prefix, wanted.prefix, atol=1e-5, rtol=1e-5)


def test_graphs_are_compared_on_photos(made):
    folder = made.folder.path
    for number in range(4):
        photo = np.random.default_rng(number).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(photo).save(folder / f"{number}.png")
    lines = [
        {"image": f"{number}.png", "split": ("train", "dev")[number % 2], "captions": ["собака спит"]}
        for number in range(4)
    ]
    data = folder / "photos.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    report = export_model(folder, [data])
    assert (report.parity.photos, report.parity.same_tokens) == (2, 2)
    assert report.parity.logits < 1e-4
    stored = onnx.load(made.folder.onnx_file("encoder", "int8")).graph.node
    assert not [node for node in stored if node.op_type == "Conv" and node.input[1].endswith(".read")]


def test_a_tower_without_export_is_named(tmp_path):
    write_language_model(tmp_path / "lm")
    vision = transformers.CLIPVisionConfig(**SHAPE, hidden_act="relu", projection_dim=FEATURES)
    transformers.CLIPVisionModelWithProjection(vision).save_pretrained(tmp_path / "vision")
    write_preprocessor(tmp_path / "vision")
    gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config.from_pretrained(tmp_path / "lm"))
    write_checkpoint(tmp_path / "captioner.pt", gpt, features=FEATURES)
    folder = import_checkpoint(tmp_path / "captioner.pt", tmp_path / "lm", tmp_path / "vision", tmp_path / "out")
    with pytest.raises(NoExportError, match=r"hidden_act: relu has no ONNX export.*torch engine"):
        export_model(folder)
    assert not (folder / "onnx").exists()


def test_a_language_model_without_graphs_runs_in_torch_by_itself(tmp_path):
    tokenizer = byte_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=96, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    llama = transformers.LlamaForCausalLM(config)
    config.save_pretrained(tmp_path / "lm")
    tokenizer.save(str(tmp_path / "lm" / "tokenizer.json"))
    vision, _ = write_tower("clip", tmp_path / "vision")
    write_checkpoint(tmp_path / "captioner.pt", llama, features=FEATURES)
    folder = import_checkpoint(tmp_path / "captioner.pt", tmp_path / "lm", vision, tmp_path / "out")
    said = []
    write_graphs(folder, said.append)
    assert "LlamaForCausalLM" in said[-1] and "torch engine" in said[-1]
    assert not (folder / "onnx").exists()
    captioner = Captioner(folder)
    assert isinstance(captioner.engine, TorchEngine)
    assert isinstance(captioner.caption(np.zeros((40, 40, 3), np.uint8)).text, str)
