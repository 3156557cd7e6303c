"""The exported graphs against the torch network that they are made from."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from skimage.data import astronaut, cat, chelsea, coffee, rocket

from rucap.engines.onnx import OnnxEngine
from rucap.engines.torch import TorchEngine, TorchLanguageModel
from rucap.errors import NoExportError
from rucap.export.decoder import decoder_graph
from rucap.export.efficientnet_lite import SENSITIVE
from rucap.export.encoder import encoder_graph
from rucap.export.quantise import calibrate, quantise_convolutions
from rucap.export.weights import SAFE_WEIGHT, Float32, Int8
from rucap.images import preprocess
from rucap.model.config import (
    EncoderConfig,
    GenerationDefaults,
    HintsConfig,
    LanguageModelConfig,
    MapperConfig,
    ModelConfig,
    Preprocessing,
    PromptsConfig,
)
from rucap.network.prefix_captioner import fresh_network

SIDE, PREFIX, VOCABULARY = 96, 4, 300
GRID = MapperConfig("grid", PREFIX, layers=2, heads=4, width=32)
MAPPERS = {
    "grid": GRID,
    "grid, normalised": replace(GRID, normalize=True),
    "grid, one layer": replace(GRID, layers=1),
}
MIDDLE = (127 / 255,) * 3


def config(mapper=GRID, activation="gelu_pytorch_tanh", width=48, heads=3, layers=3):
    settings = {
        "n_embd": width,
        "n_layer": layers,
        "n_head": heads,
        "vocab_size": VOCABULARY,
        "n_positions": 40,
        "activation_function": activation,
    }
    return ModelConfig(
        "small",
        "ru",
        EncoderConfig("efficientnet_lite", 9, 1328, Preprocessing(SIDE, "squash", "bilinear", MIDDLE, (0.5,) * 3)),
        mapper,
        LanguageModelConfig("gpt2", width, layers, heads, VOCABULARY, 40, settings),
        PromptsConfig("", "{question}"),
        GenerationDefaults(end_tokens=()),
        HintsConfig("labels.tsv", 3),
    )


def network(**changes):
    """Random weights, large enough for attention to choose and for positions to matter."""
    torch.manual_seed(0)
    made = fresh_network(config(**changes)).eval()
    for part in (made.mapper, made.language_model):
        for parameter in part.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def saved(graph, path):
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.fixture(scope="module")
def made():
    return network()


@pytest.fixture(scope="module")
def pixels(made):
    photos = [Image.fromarray(photo()) for photo in (astronaut, cat, chelsea, coffee, rocket)]
    return np.stack([preprocess(photo, made.config.encoder.preprocessing) for photo in photos])


@pytest.fixture(scope="module")
def engines(made, tmp_path_factory):
    """torch, and the float32 and int8 decoders."""
    folder = tmp_path_factory.mktemp("decoders")
    exact = saved(decoder_graph(made.language_model, Float32()), folder / "float32.onnx")
    rounded = saved(decoder_graph(made.language_model, Int8()), folder / "int8.onnx")
    return TorchEngine(made), OnnxEngine(exact, exact, threads=1), OnnxEngine(rounded, rounded, threads=1)


def prompts(seed=0):
    """A prefix and prompts of 7, 3 and no tokens, padded on the left."""
    random = np.random.default_rng(seed)
    prefix = random.normal(size=(3, PREFIX, 48)).astype(np.float32)
    tokens = random.integers(0, VOCABULARY, (3, 7))
    mask = np.arange(7) >= np.array([[0], [4], [7]])
    return prefix, tokens, mask


def test_decoder_writes_as_torch_greedily_after_padded_prompts(engines):
    torch_engine, exact, _ = engines
    wanted, state = torch_engine.start(*prompts())
    found, other = exact.start(*prompts())
    written = set()
    for _ in range(12):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        tokens = wanted.argmax(axis=1)
        written.update(tokens.tolist())
        wanted, state = torch_engine.step(tokens, state)
        found, other = exact.step(tokens, other)
    assert len(written) > 3, "a model that repeats one token shows little"


def test_decoder_goes_on_from_reordered_beams(engines):
    torch_engine, exact, _ = engines
    _, state = torch_engine.start(*prompts())
    _, other = exact.start(*prompts())
    rows = np.array([2, 0, 0, 1])
    state, other = torch_engine.select(state, rows), exact.select(other, rows)
    for tokens in ([5, 6, 7, 8], [9, 9, 10, 11]):
        wanted, state = torch_engine.step(np.array(tokens), state)
        found, other = exact.step(np.array(tokens), other)
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_decoder_scores_given_tokens_as_torch(engines):
    torch_engine, exact, _ = engines
    prefix, tokens, mask = prompts()
    wanted, found = torch_engine.score(prefix, tokens, mask), exact.score(prefix, tokens, mask)
    np.testing.assert_allclose(found[mask], wanted[mask], atol=1e-4)


def test_padding_changes_nothing(engines):
    prefix, tokens, mask = prompts()
    for engine in engines[1:]:
        alone, _ = engine.start(prefix[1:2], tokens[1:2, 4:], mask[1:2, 4:])
        np.testing.assert_allclose(engine.start(prefix, tokens, mask)[0][1:2], alone, atol=1e-4)


@pytest.mark.parametrize(
    "changes", [{"activation": "gelu_new", "width": 64, "heads": 1, "layers": 1}, {"activation": "gelu"}]
)
def test_decoders_of_other_forms_write_as_torch(changes, tmp_path):
    other = network(**changes)
    path = saved(decoder_graph(other.language_model, Float32()), tmp_path / "decoder.onnx")
    random = np.random.default_rng(1)
    prefix = random.normal(size=(2, PREFIX, other.config.language_model.width)).astype(np.float32)
    tokens = random.integers(0, VOCABULARY, (2, 5))
    wanted, _ = TorchEngine(other).start(prefix, tokens, tokens >= 0)
    np.testing.assert_allclose(OnnxEngine(path, path).start(prefix, tokens, tokens >= 0)[0], wanted, atol=1e-4)


@pytest.mark.parametrize("setting", ["scale_attn_by_inverse_layer_idx", "model"])
def test_a_language_model_without_export_is_named(setting):
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"n_embd": 16, "n_layer": 1, "n_head": 1, "vocab_size": 20, "n_positions": 8}
    if setting == "model":
        made = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(
                "gpt_neo", hidden_size=16, num_layers=2, num_heads=2, attention_types=[[["global"], 2]], vocab_size=20
            )
        )
    else:
        settings = AutoConfig.for_model("gpt2", **small, **{setting: True})
        made = AutoModelForCausalLM.from_config(settings)
    with pytest.raises(NoExportError, match=r"no ONNX export.*torch engine"):
        decoder_graph(made, Float32())


def test_a_decoder_may_have_an_output_matrix_of_its_own(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    small = {"n_embd": 48, "n_layer": 1, "n_head": 3, "vocab_size": 60, "n_positions": 40, "initializer_range": 0.3}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **small, tie_word_embeddings=False)).eval()
    prefix, tokens, mask = prompts()
    wanted, _ = TorchLanguageModel(model).start(prefix, tokens % 60, mask)
    for weights, error in ((Float32(), 1e-5), (Int8(), 0.05)):
        path = saved(decoder_graph(model, weights), tmp_path / "decoder.onnx")
        found, _ = OnnxEngine(path, path).start(prefix, tokens % 60, mask)
        assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < error


def test_the_vocabulary_is_stored_once(made):
    for weights, size in ((Float32(), 4), (Int8(), 1)):
        graph = decoder_graph(made.language_model, weights).graph
        tables = [t for t in graph.initializer if sorted(t.dims) == [48, VOCABULARY]]
        assert [len(numpy_helper.to_array(t).tobytes()) for t in tables] == [48 * VOCABULARY * size]
        parameters = sum(p.numel() for p in made.language_model.parameters())
        stored = sum(numpy_helper.to_array(t).nbytes for t in graph.initializer)
        assert stored < parameters * size + 20_000 + 4 * 40 * 48


def test_int8_decoder_is_near_and_independent_of_its_batch(engines):
    torch_engine, _, rounded = engines
    prefix, tokens, mask = prompts()
    wanted, _ = torch_engine.start(prefix, tokens, mask)
    found, _ = rounded.start(prefix, tokens, mask)
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert 0 < error < 0.05
    louder = np.concatenate([prefix[:1], 50 * prefix[1:]])
    np.testing.assert_allclose(rounded.start(louder, tokens, mask)[0][0], found[0], atol=1e-4)


@pytest.mark.parametrize("mapper", MAPPERS.values(), ids=MAPPERS)
def test_encoder_sees_as_torch(mapper, pixels, tmp_path):
    other = network(mapper=mapper)
    path = saved(encoder_graph(other, Float32()), tmp_path / "encoder.onnx")
    wanted, found = TorchEngine(other).encode(pixels), OnnxEngine(path, path).encode(pixels)
    np.testing.assert_allclose(found.prefix, wanted.prefix, atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(found.label_logits, wanted.label_logits, atol=1e-4)


@pytest.mark.parametrize("side", [64, 96, 160])
def test_encoder_of_other_sides_is_as_torch(side, tmp_path):
    settings = config()
    cells = (side // 32) ** 2
    encoder = replace(settings.encoder, cells=cells, preprocessing=replace(settings.encoder.preprocessing, size=side))
    torch.manual_seed(0)
    other = fresh_network(replace(settings, encoder=encoder)).eval()
    path = saved(encoder_graph(other, Float32()), tmp_path / "encoder.onnx")
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, side, side)).astype(np.float32)
    wanted, found = TorchEngine(other).encode(images), OnnxEngine(path, path).encode(images)
    np.testing.assert_allclose(found.prefix, wanted.prefix, atol=1e-4)
    np.testing.assert_allclose(found.label_logits, wanted.label_logits, atol=1e-4)


def test_a_tuned_tail_leaves_the_labels_alone(pixels, tmp_path):
    other = network()
    shared = encoder_graph(other, Float32())
    other.encoder.tail.head.bias.data += 0.5
    path = saved(encoder_graph(other, Float32()), tmp_path / "encoder.onnx")
    wanted, found = TorchEngine(other).encode(pixels), OnnxEngine(path, path).encode(pixels)
    np.testing.assert_allclose(found.prefix, wanted.prefix, atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(found.label_logits, wanted.label_logits, atol=1e-4)
    tail = sum(parameter.numel() for parameter in other.encoder.tail.parameters())
    assert path.stat().st_size - len(shared.SerializeToString()) > 4 * tail, "equal tails are stored and run once"


@pytest.fixture(scope="module")
def int8_encoder(made, pixels):
    graph = encoder_graph(made, Int8())
    return quantise_convolutions(graph, calibrate(graph, (photo[None] for photo in pixels)), SENSITIVE)


def test_int8_encoder_sees_nearly_as_torch(made, pixels, int8_encoder, tmp_path):
    path = saved(int8_encoder, tmp_path / "encoder.int8.onnx")
    engine = OnnxEngine(path, path)
    wanted, found = TorchEngine(made).encode(pixels), engine.encode(pixels)
    assert 0 < np.linalg.norm(found.prefix - wanted.prefix) / np.linalg.norm(wanted.prefix) < 0.1
    assert np.linalg.norm(found.label_logits - wanted.label_logits) / np.linalg.norm(wanted.label_logits) < 0.15
    for row in range(len(pixels)):
        np.testing.assert_allclose(engine.encode(pixels[row : row + 1]).prefix[0], found.prefix[row], atol=1e-5)


def test_int8_encoder_runs_on_integers(int8_encoder, tmp_path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(int8_encoder.SerializeToString(), options, providers=["CPUExecutionProvider"])
    operations = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    convolutions = [node.name for node in int8_encoder.graph.node if node.op_type == "Conv"]
    kept = [name for name in convolutions if name.startswith(SENSITIVE)]
    assert operations.count("Conv") == len(kept) == 12
    assert operations.count("QLinearConv") == len(convolutions) - len(kept)
    assert operations.count("MatMulIntegerToFloat") > 10


def test_int8_products_cannot_saturate_in_16_bits(made, int8_encoder):
    """vpmaddubsw adds two products of uint8 and int8 in int16; depthwise convolutions do without it."""
    checked = 0
    for graph in (int8_encoder.graph, decoder_graph(made.language_model, Int8()).graph):
        constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
        for node in graph.node:
            if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
                continue
            values = constants[node.input[0]]
            if values.dtype == np.int8 and not (values.ndim == 4 and values.shape[1] == 1):
                assert 2 * 255 * int(np.abs(values.astype(np.int32)).max()) <= np.iinfo(np.int16).max
                assert np.abs(values.astype(np.int32)).max() == SAFE_WEIGHT
                checked += 1
    assert checked > 60


def test_graphs_declare_versions_that_the_oldest_onnxruntime_reads(made):
    graph = decoder_graph(made.language_model, Int8())
    assert graph.ir_version <= 10
    assert [(opset.domain, opset.version <= 21) for opset in graph.opset_import] == [("", True)]


@pytest.mark.parametrize(
    "mapper",
    [
        MapperConfig("mlp", PREFIX, 2, width=64),
        MapperConfig("mlp", PREFIX, 1),
        MapperConfig("transformer", PREFIX, 2, heads=4, constant_length=3, normalize=True),
    ],
    ids=["mlp", "linear", "transformer"],
)
def test_clipcap_mappers_give_what_torch_gives(mapper, tmp_path):
    settings = config(mapper=mapper, width=64, heads=4)
    one_cell = replace(settings.encoder, cells=1, preprocessing=replace(settings.encoder.preprocessing, size=32))
    torch.manual_seed(0)
    other = fresh_network(replace(settings, encoder=one_cell)).eval()
    path = saved(encoder_graph(other, Float32()), tmp_path / "encoder.onnx")
    images = np.random.default_rng(0).uniform(-1, 1, (3, 3, 32, 32)).astype(np.float32)
    wanted, found = TorchEngine(other).encode(images), OnnxEngine(path, path).encode(images)
    np.testing.assert_allclose(found.prefix, wanted.prefix, atol=1e-4, rtol=1e-5)
