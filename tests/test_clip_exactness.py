"""An imported captioner against transformers and against the original's loop, on the same weights and pixels."""

import dataclasses
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from clipcap import SIZE, original_loop, write_checkpoint, write_language_model, write_vision  # noqa: E402
from rucap import Captioner  # noqa: E402
from rucap.decoding import GenerationSettings, generate  # noqa: E402
from rucap.engines.torch import TorchEngine  # noqa: E402
from rucap.errors import OptionError  # noqa: E402
from rucap.images import load_pixels  # noqa: E402
from rucap.importing import import_checkpoint, write_graphs  # noqa: E402
from rucap.model.config import write_config  # noqa: E402
from rucap.model.folder import ModelFolder  # noqa: E402
from rucap.model.sentence import clean_answer, clean_caption  # noqa: E402
from rucap.network.prefix_captioner import load_network  # noqa: E402
from rucap.options import WritingOptions, generation_settings  # noqa: E402

PHOTOS = 6
NOTHING = np.zeros((PHOTOS, 0), np.int64), np.zeros((PHOTOS, 0), bool)


class Model:
    """The original's parts, and the same imported."""

    def __init__(self, path, kind):
        torch.manual_seed(1)
        gpt = write_language_model(path / "lm")
        self.clip = write_vision(path / "vision")
        self.original = write_checkpoint(path / "captioner.pt", gpt, kind)
        self.gpt = gpt
        self.state = torch.load(path / "captioner.pt", weights_only=True)
        out = import_checkpoint(path / "captioner.pt", path / "lm", path / "vision", path / "out")
        self.folder = ModelFolder.open(out)
        self.engine = TorchEngine(load_network(self.folder.config, self.folder.weights_file))
        self.captioner = Captioner(out, engine=self.engine)
        self.pixels = torch.randn(PHOTOS, 3, SIZE, SIZE)
        with torch.no_grad():
            self.prefix = self.original.prefix(self.clip(self.pixels).image_embeds)

    def encoded(self):
        return self.engine.encode(self.pixels.numpy()).prefix


@pytest.fixture(scope="module", params=["mlp", "transformer"])
def model(request, tmp_path_factory):
    return Model(tmp_path_factory.mktemp(request.param), request.param)


@torch.no_grad()
def naive_greedy(gpt, prefix, tokens, ends, never, steps):
    """One sequence, no cache: the whole of it again for every token. Returns what is written before an end."""
    tokens, written = list(tokens), []
    for _ in range(steps):
        embedded = gpt.transformer.wte(torch.tensor(tokens, dtype=torch.long))
        logits = gpt(inputs_embeds=torch.cat([prefix, embedded])[None]).logits[0, -1]
        logits[list(never)] = -torch.inf
        token = int(logits.argmax())
        if token in ends:
            break
        tokens.append(token)
        written.append(token)
    return written


@torch.no_grad()
def log_probabilities(gpt, prefix, tokens):
    """Of each token after the prefix [length, width] and the tokens before it."""
    inputs = torch.cat([prefix, gpt.transformer.wte(torch.tensor(tokens))])[None]
    logits = gpt(inputs_embeds=inputs).logits[0, len(prefix) - 1 : -1].double()
    return logits.log_softmax(-1)[torch.arange(len(tokens)), torch.tensor(tokens)].numpy()


def test_encoder_and_prefix(model):
    network = model.engine.network
    with torch.inference_mode():
        embeddings = network.encoder.trunk(model.pixels)
        torch.testing.assert_close(embeddings, model.clip(model.pixels).image_embeds, atol=1e-5, rtol=0)
    np.testing.assert_allclose(model.encoded(), model.prefix, atol=1e-5, rtol=1e-4)
    assert np.abs(model.encoded()[0] - model.encoded()[1]).max() > 0.1  # photos do differ


def test_prefix_is_the_formula(tmp_path):
    model = Model(tmp_path, "mlp")
    first, second = (
        (model.state[f"clip_project.model.{n}.weight"], model.state[f"clip_project.model.{n}.bias"]) for n in (0, 2)
    )
    with torch.no_grad():
        embedding = model.clip(model.pixels).image_embeds
    formula = torch.tanh(embedding @ first[0].T + first[1]) @ second[0].T + second[1]
    np.testing.assert_allclose(model.encoded(), formula.view(model.prefix.shape), atol=1e-5, rtol=1e-5)


def test_greedy_equals_a_loop_without_cache(model):
    settings = GenerationSettings(end_tokens=(2, 17), max_tokens=40)
    found = generate(model.engine, model.encoded(), *NOTHING, settings)
    expected = [naive_greedy(model.gpt, prefix, [], {2, 17}, (), 40) for prefix in model.prefix]
    assert [list(hypotheses[0].tokens) for hypotheses in found] == expected
    assert len({tuple(tokens) for tokens in expected}) > 1


@pytest.mark.parametrize("beams", [2, 3, 5])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_beams_equal_transformers(model, beams, length_penalty):
    end, most = 2, 12
    settings = GenerationSettings(
        end_tokens=(end,), max_tokens=most, beams=beams, hypotheses=beams, length_penalty=length_penalty
    )
    found = generate(model.engine, model.encoded(), *NOTHING, settings)
    theirs = model.gpt.generate(
        inputs_embeds=model.prefix,
        attention_mask=torch.ones(model.prefix.shape[:2], dtype=torch.long),
        num_beams=beams, num_return_sequences=beams, length_penalty=length_penalty, max_new_tokens=most,
        eos_token_id=end, pad_token_id=0, do_sample=False, early_stopping=False,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    rows = theirs.sequences.view(PHOTOS, beams, -1).tolist()
    expected = [[tuple(row[: row.index(end)] if end in row else row) for row in photo] for photo in rows]
    assert [[h.tokens for h in photo] for photo in found] == expected
    scores = [[h.score(length_penalty) for h in photo] for photo in found]
    np.testing.assert_allclose(scores, theirs.sequences_scores.view(PHOTOS, beams), atol=1e-4)


def stopping(model, path, stop):
    """A captioner of the same weights, whose original ended at the text `stop`."""
    path.mkdir()
    generation = dataclasses.replace(model.folder.config.generation, original_stop=stop)
    write_config(dataclasses.replace(model.folder.config, generation=generation), path / "config.json")
    shutil.copy(model.folder.path / "tokenizer.json", path)
    return Captioner(path, engine=model.engine)


def test_original_stop_reproduces_the_original(model, tmp_path):
    tokenizer = Tokenizer.from_file(str(model.folder.path / "tokenizer.json"))
    photos = [photo(seed) for seed in range(PHOTOS)]
    prefixes = [prefix_of(model, each)[None] for each in photos]
    whole = [original_loop(model.gpt, prefix, -1) for prefix in prefixes]
    assert all(len(tokens) == 67 for tokens in whole)
    texts = [[tokenizer.decode([token]) for token in tokens] for tokens in whole]
    stops = ["", ".", *(text for row in texts[:2] for text in row[5:] if len(tokenizer.encode(text).ids) == 1)][:5]
    cut = 0
    for number, stop in enumerate(stops):
        token = tokenizer.encode(stop).ids[0] if stop else -1
        expected = [original_loop(model.gpt, prefix, token) for prefix in prefixes]
        cut += sum(len(tokens) < 67 for tokens in expected)
        captioner = stopping(model, tmp_path / str(number), stop)
        found = generate(
            model.engine, np.stack([each[0].numpy() for each in prefixes]), *NOTHING,
            generation_settings(captioner.folder, {"stop": "original"}, WritingOptions),
        )  # fmt: skip
        assert [list(h.tokens) for (h,) in found] == expected
        captions = captioner.caption(photos, stop="original")
        for caption, prefix, tokens in zip(captions, prefixes, expected, strict=True):
            assert caption.text == tokenizer.decode(tokens, skip_special_tokens=False)
            likelihood = log_probabilities(model.gpt, prefix[0], tokens).sum()
            assert caption.log_probability == pytest.approx(likelihood, abs=1e-3)
    assert cut > 1


def test_original_s_answer(model, tmp_path):
    tokenizer = Tokenizer.from_file(str(model.folder.path / "tokenizer.json"))
    captioner = stopping(model, tmp_path / "out", "")
    question = "Кто на фото?"
    with torch.no_grad():
        asked = model.gpt.transformer.wte(torch.tensor(tokenizer.encode(question).ids))
    expected = original_loop(model.gpt, torch.cat([prefix_of(model, photo()), asked])[None], -1)
    answer = captioner.answer(photo(), question, stop="original")
    assert answer.text == tokenizer.decode(expected, skip_special_tokens=False)


def test_original_stop_goes_with_nothing_else(model):
    for options in ({"beams": 1}, {"num_captions": 2}, {"seed": 1}):
        with pytest.raises(OptionError, match=f"leave out {next(iter(options))}"):
            model.captioner.caption(photo(), stop="original", **options)
    with pytest.raises(OptionError, match="'sentence' or 'original'"):
        model.captioner.caption(photo(), stop="end")
    assert model.captioner.caption(photo(), stop="sentence") == model.captioner.caption(photo())


class Scripted:
    """Writes given tokens, for every photo and beam."""

    def __init__(self, engine, script, vocabulary):
        self.encode, self.script, self.vocabulary, self.steps = engine.encode, script, vocabulary, 0

    def start(self, prefix, tokens, mask):
        return self.logits(len(prefix), 0), 0

    def step(self, tokens, state):
        self.steps += 1
        return self.logits(len(tokens), state + 1), state + 1

    def select(self, state, rows):
        return state

    def logits(self, rows, place):
        logits = np.zeros((rows, self.vocabulary), np.float32)
        logits[:, self.script[place % len(self.script)]] = 30
        return logits


@pytest.mark.parametrize(
    ("written", "end", "beams"),
    [
        *(("Собака бежит", end, beams) for end in ("</s>", ".", "!", "\n") for beams in (1, 3)),
        ("Кошка спит, рядом лежит мяч", ", рядом лежит мяч", 1),  # of beams, those that loop lose to others
    ],
)
def test_default_stops(model, written, end, beams):
    tokenizer, vocabulary = model.folder.tokenizer, model.folder.config.language_model.vocabulary
    before = [*tokenizer.encode_prompt(written), *tokenizer.encode_prompt(end)]
    engine = Scripted(model.engine, [*before, *tokenizer.encode(" Человек идёт по улице" + end)], vocabulary)
    assert Captioner(model.folder.path, engine=engine).caption(photo(), beams=beams).text == written
    if beams == 1:
        assert engine.steps == len(before) - 1


def photo(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def prefix_of(model, picture=None):
    """What the original makes of a photo, or of a blank one."""
    preprocessing = model.folder.config.encoder.preprocessing
    pixels = np.zeros((3, SIZE, SIZE), np.float32) if picture is None else load_pixels(picture, preprocessing)
    with torch.no_grad():
        return model.original.prefix(model.clip(torch.tensor(pixels)[None]).image_embeds)[0]


def ends_and_never(model):
    id_of, generation = model.folder.tokenizer.id_of, model.folder.config.generation
    beyond = range(len(model.folder.tokenizer), model.folder.config.language_model.vocabulary)
    return {id_of(t) for t in generation.end_tokens}, {*map(id_of, generation.suppressed_tokens), *beyond}


def test_score_is_the_log_likelihood(model):
    texts = ["Собака бежит", "кошка спит на диване, рядом лежит мяч", "1"]
    tokenizer = model.folder.tokenizer
    for seed, found in enumerate(model.captioner.score([photo(0), photo(1)], texts)):
        for text, score in zip(texts, found, strict=True):
            tokens = [*tokenizer.encode(text), tokenizer.id_of(".")]
            expected = log_probabilities(model.gpt, prefix_of(model, photo(seed)), tokens)
            assert score.text == text
            assert score.log_probability == pytest.approx(expected.sum(), abs=1e-4)
            assert score.log_probability_per_token == pytest.approx(expected.mean(), abs=1e-4)


def test_classify_is_the_information_that_the_photo_adds(model):
    labels = ["кошка", "рыжая собака", "человек"]
    tokenizer = model.folder.tokenizer
    ranking = model.captioner.classify(photo(), labels, form="на фото {label}")
    expected = {}
    for label in labels:
        tokens = tokenizer.encode(f"на фото {label}")
        seen, blank = (log_probabilities(model.gpt, prefix_of(model, each), tokens) for each in (photo(), None))
        expected[label] = (seen - blank).mean()
    assert [label.name for label in ranking.labels] == sorted(labels, key=lambda label: -expected[label])
    for label in ranking.labels:
        assert label.score == pytest.approx(expected[label.name], abs=1e-4)
    shares = np.exp([expected[label.name] for label in ranking.labels])
    np.testing.assert_allclose([label.probability for label in ranking.labels], shares / shares.sum(), atol=1e-4)


@pytest.mark.parametrize("question", ["Кто на фото?", "Что делает собака?"])
def test_question_follows_the_prefix(model, question):
    ends, never = ends_and_never(model)
    tokens = model.folder.tokenizer.encode(question)
    # 12 tokens at most, so that the loop's stop at a repeat, which the original lacks, has no say in it.
    written = naive_greedy(model.gpt, prefix_of(model, photo()), tokens, ends, never, 12)
    (found,) = model.captioner._writer.write(
        model.engine.encode(load_pixels(photo(), model.folder.config.encoder.preprocessing)[None]),
        [tokens],
        GenerationSettings(end_tokens=tuple(ends), suppressed=tuple(never), max_tokens=12),
        [0],
    )
    assert list(found[0].tokens) == written
    answer = model.captioner.answer(photo(), question, beams=1)
    assert answer.text == clean_answer(answer.text, "ru")
    assert "\n" not in answer.text and len(answer.text) < 200


def test_caption_is_clean_and_is_what_was_written(model):
    caption = model.captioner.caption(photo(), beams=1)
    assert caption.text == clean_caption(caption.text, "ru")
    assert caption.log_probability < 0


def test_onnx_writes_the_same(model):
    write_graphs(model.folder.path)
    onnx = Captioner(model.folder.path, precision="float32")
    photos = [photo(seed) for seed in range(20)]
    np.testing.assert_allclose(onnx.engine.encode(model.pixels.numpy()).prefix, model.encoded(), atol=1e-4)
    for beams in (1, 3):
        theirs = [caption.text for caption in model.captioner.caption(photos, beams=beams)]
        assert [caption.text for caption in onnx.caption(photos, beams=beams)] == theirs
