"""The torch engine against one uncached pass of the same model over unpadded sequences."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rucap.engines.torch import TorchEngine, TorchLanguageModel  # noqa: E402

WIDTH, VOCABULARY, PREFIX = 16, 40, 3


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=WIDTH, n_layer=2, n_head=2, initializer_range=0.3
    )
    return transformers.GPT2LMHeadModel(config)


def llama():
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def qwen_with_sliding_window():
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, use_sliding_window=True,
        sliding_window=32, max_window_layers=1,
    )  # fmt: skip
    return transformers.Qwen2ForCausalLM(config)


@pytest.fixture(params=[gpt2, llama, qwen_with_sliding_window])
def model(request):
    torch.manual_seed(0)
    return request.param()


def prompts(lengths=(4, 1, 0, 3), seed=0):
    """A prefix and left-padded tokens; the padding holds tokens that would be noticed if they were read."""
    generator = np.random.default_rng(seed)
    longest = max(lengths)
    prefix = generator.normal(size=(len(lengths), PREFIX, WIDTH)).astype(np.float32)
    tokens = generator.integers(0, VOCABULARY, size=(len(lengths), longest))
    mask = np.arange(longest) >= longest - np.array(lengths)[:, None]
    return prefix, tokens, mask


def reference(model, prefix, tokens):
    """Logits after every vector of one unpadded sequence: [prefix_length + length, vocabulary]."""
    with torch.no_grad():
        embedded = model.get_input_embeddings()(torch.tensor(tokens, dtype=torch.long))
        inputs = torch.cat([torch.tensor(prefix), embedded])[None]
        return model(inputs_embeds=inputs).logits[0].numpy()


def test_start_and_steps_equal_one_uncached_pass(model):
    engine = TorchLanguageModel(model)
    prefix, tokens, mask = prompts()
    written = np.random.default_rng(1).integers(0, VOCABULARY, size=(len(tokens), 3))
    logits, state = engine.start(prefix, tokens, mask)
    steps = [logits]
    for t in range(3):
        logits, state = engine.step(written[:, t], state)
        steps.append(logits)
    assert logits.dtype == np.float32
    for row in range(len(tokens)):
        whole = reference(model, prefix[row], [*tokens[row][mask[row]], *written[row]])
        np.testing.assert_allclose(np.stack(steps)[:, row], whole[-4:], atol=2e-5)


def test_start_without_any_tokens(model):
    engine = TorchLanguageModel(model)
    prefix, tokens, mask = prompts(lengths=(0, 0))
    logits, _ = engine.start(prefix, tokens, mask)
    np.testing.assert_allclose(logits[1], reference(model, prefix[1], [])[-1], atol=2e-5)


def test_score_predicts_each_token_from_what_precedes_it(model):
    engine = TorchLanguageModel(model)
    prefix, tokens, mask = prompts()
    logits = engine.score(prefix, tokens, mask)
    assert logits.shape == (*tokens.shape, VOCABULARY)
    for row in range(len(tokens)):
        whole = reference(model, prefix[row], tokens[row][mask[row]])
        np.testing.assert_allclose(logits[row][mask[row]], whole[PREFIX - 1 : -1], atol=2e-5)


def test_select_reorders_and_older_states_stay_good(model):
    engine = TorchLanguageModel(model)
    _, state = engine.start(*prompts())
    following = np.array([5, 6, 7, 8])
    expected, later = engine.step(following, state)
    rows = np.array([3, 0, 0])
    for _ in range(2):  # twice: neither a step nor a selection may change the state they start from
        logits, _ = engine.step(following[rows], engine.select(state, rows))
        np.testing.assert_allclose(logits, expected[rows], atol=2e-5)
        np.testing.assert_allclose(engine.step(following, state)[0], expected, atol=2e-5)
    again, _ = engine.step(following, engine.select(later, np.arange(4)))
    np.testing.assert_allclose(again, engine.step(following, later)[0], atol=2e-5)


def test_autocast_is_near_and_float32_comes_out():
    torch.manual_seed(0)
    model = gpt2()
    exact, _ = TorchLanguageModel(model).start(*prompts())
    near, _ = TorchLanguageModel(model, autocast=torch.bfloat16).start(*prompts())
    assert near.dtype == np.float32
    assert not np.array_equal(near, exact)
    np.testing.assert_allclose(near, exact, atol=0.1 * np.abs(exact).max())


class Network(torch.nn.Module):
    """A stand-in for PrefixCaptioner: the pixels' mean makes the prefix; dropout shows if training mode is left on."""

    def __init__(self, labels):
        super().__init__()
        self.language_model = gpt2()
        self.mapper = torch.nn.Sequential(torch.nn.Linear(3, PREFIX * WIDTH), torch.nn.Dropout(0.5))
        self.labels = torch.nn.Linear(3, labels) if labels else None
        self.encoder = SimpleNamespace(trunk=lambda pixels: pixels.mean(dim=(2, 3)))
        self.config = SimpleNamespace(text_tower=None)

    def heads(self, means):
        prefix = self.mapper(means).view(-1, PREFIX, WIDTH)
        return prefix, None if self.labels is None else self.labels(means)


@pytest.mark.parametrize("labels", [0, 7])
def test_engine_encodes_with_its_network(labels):
    torch.manual_seed(0)
    network = Network(labels).train()
    engine = TorchEngine(network, device="cpu")
    pixels = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    encoded = engine.encode(pixels)
    with torch.no_grad():
        prefix, label_logits = network.heads(torch.tensor(pixels).mean(dim=(2, 3)))
    np.testing.assert_array_equal(encoded.prefix, prefix.numpy())
    if labels:
        np.testing.assert_array_equal(encoded.label_logits, label_logits.numpy())
    else:
        assert encoded.label_logits is None
    logits, _ = engine.start(encoded.prefix, np.zeros((2, 0), np.int64), np.zeros((2, 0), bool))
    assert logits.shape == (2, VOCABULARY)
