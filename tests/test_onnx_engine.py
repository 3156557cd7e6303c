from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

from rucap.engines.onnx import OnnxEngine
from rucap.errors import ModelError, OptionError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WIDTH, VOCABULARY, PREFIX = 32, 50, 3


@pytest.fixture(scope="module")
def language_model():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=WIDTH, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    return model


@pytest.fixture(scope="module")
def decoder(language_model, tmp_path_factory):
    from rucap.export.decoder import decoder_graph
    from rucap.export.weights import Float32

    path = tmp_path_factory.mktemp("onnx") / "decoder.onnx"
    onnx.save(decoder_graph(language_model, Float32()), path)
    return path


@pytest.fixture(scope="module")
def engine(decoder, tmp_path_factory):
    return OnnxEngine(decoder.with_name("none.onnx"), decoder, threads=1)


@pytest.fixture(scope="module")
def reference(language_model):
    from rucap.engines.torch import TorchLanguageModel

    return TorchLanguageModel(language_model)


@pytest.fixture
def prompts():
    """Four photos: full prompts, a padded one, and one of padding alone."""
    random = np.random.default_rng(0)
    prefix = random.normal(size=(4, PREFIX, WIDTH)).astype(np.float32)
    mask = np.ones((4, 5), dtype=bool)
    mask[1, :3] = mask[2] = False
    return prefix, random.integers(0, VOCABULARY, (4, 5)), mask


def test_reads_and_writes_as_torch_does(engine, reference, prompts):
    random = np.random.default_rng(1)
    logits, state = engine.start(*prompts)
    expected, expected_state = reference.start(*prompts)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    for _ in range(5):
        rows, tokens = random.integers(0, 4, 4), random.integers(0, VOCABULARY, 4)
        state, expected_state = engine.select(state, rows), reference.select(expected_state, rows)
        logits, state = engine.step(tokens, state)
        expected, expected_state = reference.step(tokens, expected_state)
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_reads_no_prompt_at_all(engine, reference, prompts):
    prefix, tokens, mask = prompts
    nothing = prefix, tokens[:, :0], mask[:, :0]
    np.testing.assert_allclose(engine.start(*nothing)[0], reference.start(*nothing)[0], atol=1e-5)


def test_padding_changes_nothing(engine, prompts):
    prefix, tokens, mask = prompts
    logits, state = engine.start(*prompts)
    alone, alone_state = engine.start(prefix[1:2], tokens[1:2, 3:], mask[1:2, 3:])
    np.testing.assert_allclose(logits[1:2], alone, atol=1e-5)
    following = np.array([7])
    row = engine.select(state, np.array([1]))
    np.testing.assert_allclose(engine.step(following, row)[0], engine.step(following, alone_state)[0], atol=1e-5)


def test_scores_as_torch_does(engine, reference, prompts):
    mask = prompts[2]
    np.testing.assert_allclose(engine.score(*prompts)[mask], reference.score(*prompts)[mask], atol=1e-5)


def test_scores_what_it_would_write(engine, prompts):
    prefix, tokens, _ = prompts
    read = np.ones_like(tokens, dtype=bool)
    scores = engine.score(prefix, tokens, read)
    logits, state = engine.start(prefix, tokens[:, :0], read[:, :0])
    for place in range(tokens.shape[1]):
        np.testing.assert_allclose(scores[:, place], logits, atol=1e-5)
        logits, state = engine.step(tokens[:, place], state)


def test_states_are_never_changed(engine, prompts):
    _, state = engine.start(*prompts)
    first = engine.step(np.array([1, 2, 3, 4]), state)[0]
    engine.step(np.array([5, 6, 7, 8]), state)
    np.testing.assert_array_equal(engine.step(np.array([1, 2, 3, 4]), state)[0], first)


def test_threads_share_an_engine(decoder, prompts):
    engine = OnnxEngine(decoder, decoder, threads=1, spin=False)
    expected = engine.start(*prompts)[0]
    with ThreadPoolExecutor(8) as pool:
        for logits, _ in pool.map(lambda _: engine.start(*prompts), range(16)):
            np.testing.assert_allclose(logits, expected, atol=1e-6)


@pytest.fixture
def encoder(tmp_path):
    """Means of the channels, as the prefix and as label logits."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axes"], ["prefix"], keepdims=0),
        helper.make_node("ReduceMean", ["prefix", "rows"], ["label_logits"], keepdims=0),
    ]
    constants = [
        helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [3]),
        helper.make_tensor("rows", onnx.TensorProto.INT64, [1], [2]),
    ]

    def save(outputs):
        graph = helper.make_graph(
            nodes[: len(outputs)],
            "encoder",
            [helper.make_tensor_value_info("pixels", floats, ["batch", 3, 4, 4])],
            [helper.make_tensor_value_info(*each) for each in outputs],
            constants[: len(outputs)],
        )
        path = tmp_path / "encoder.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        return path

    return save


def test_encodes_with_and_without_labels(encoder):
    floats = onnx.TensorProto.FLOAT
    pixels = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    outputs = [("prefix", floats, ["batch", 3, 4]), ("label_logits", floats, ["batch", 3])]
    path = encoder(outputs)
    encoded = OnnxEngine(path, path, threads=1).encode(pixels)
    np.testing.assert_allclose(encoded.prefix, pixels.mean(axis=3), atol=1e-6)
    np.testing.assert_allclose(encoded.label_logits, pixels.mean(axis=(2, 3)), atol=1e-6)
    path = encoder(outputs[:1])
    assert OnnxEngine(path, path, threads=1).encode(pixels).label_logits is None


def test_loads_when_first_needed(decoder, tmp_path, prompts):
    engine = OnnxEngine(tmp_path / "missing.onnx", decoder, threads=1)
    engine.start(*prompts)
    with pytest.raises(ModelError, match=r"missing\.onnx"):
        engine.encode(np.zeros((1, 3, 4, 4), np.float32))


def test_files_that_are_no_models(encoder, tmp_path, prompts):
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        OnnxEngine(tmp_path / "broken.onnx", tmp_path / "broken.onnx", threads=1).start(*prompts)
    path = encoder([("prefix", onnx.TensorProto.FLOAT, ["batch", 3, 4])])
    with pytest.raises(ModelError, match="not a decoder"):
        OnnxEngine(path, path, threads=1).start(*prompts)


def test_options_without_meaning(tmp_path):
    for options, said in (({"threads": 0}, "threads"), ({"device": "tpu"}, "tpu"), ({"device": "cuda:x"}, "cuda:N")):
        with pytest.raises(OptionError, match=said):
            OnnxEngine(tmp_path, tmp_path, **options)


def test_cuda_that_is_not_there(tmp_path, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(OptionError, match="onnxruntime-gpu"):
        OnnxEngine(tmp_path, tmp_path, device="cuda")
