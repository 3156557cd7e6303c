import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from rucap import Captioner, ImageError, OptionError, QuestionError
from rucap.captioner import _confidence
from rucap.decoding import Hypothesis
from rucap.encoding import BATCH
from rucap.errors import ModelError
from rucap.images import load_pixels
from rucap.model.config import Calibration, GenerationDefaults, LanguageModelConfig
from rucap.model.folder import ModelFolder
from toy_model import SIZE, ToyEngine, write_folder


def photo(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))


def make(path, wrap=lambda engine: engine, **changes):
    folder = ModelFolder.open(write_folder(path / "toy", **changes))
    return Captioner(folder.path, engine=wrap(ToyEngine(folder.config.language_model.vocabulary)))


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    return make(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def photos():
    return [photo(seed) for seed in range(2 * BATCH + 3)]


class Recorder:
    """An engine that keeps what it is asked."""

    def __init__(self, engine):
        self.engine, self.prompts = engine, []

    def start(self, prefix, tokens, mask):
        self.prompts += [row[kept].tolist() for row, kept in zip(tokens, mask, strict=True)]
        return self.engine.start(prefix, tokens, mask)

    def __getattr__(self, name):
        return getattr(self.engine, name)


@pytest.fixture
def recorded(tmp_path):
    return make(tmp_path, Recorder)


def test_one_photo_in_one_caption_out(captioner, photos):
    caption = captioner.caption(photos[0])
    assert caption.text and caption.text[0] == caption.text[0].upper()
    assert caption.log_probability < 0
    assert caption.alternatives == ()


def test_lists_in_lists_out_in_order(captioner, photos):
    together = captioner.caption(photos)
    assert together == [captioner.caption(each) for each in photos]
    assert len({caption.text for caption in together}) > 1
    assert captioner.caption(tuple(photos[:2])) == together[:2]
    assert captioner.caption([]) == []


@pytest.mark.parametrize("form", ["path", "str", "bytes", "array", "file"])
def test_any_source_is_one_photo(captioner, tmp_path, form):
    image = photo(5)
    image.save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    source = {
        "path": path,
        "str": str(path),
        "bytes": path.read_bytes(),
        "array": np.asarray(image),
        "file": path.open("rb"),
    }[form]
    assert captioner.caption(source) == captioner.caption(image)


def test_what_the_model_reads(recorded):
    tokenizer, special = recorded.folder.tokenizer, recorded.folder.tokenizer.id_of
    red = Image.new("RGB", (SIZE, SIZE), (250, 100, 0))
    hints = [special("<hints>"), *tokenizer.encode("корги, табби; собака")]
    recorded.caption(red)
    recorded.caption(red, detail="short")
    recorded.answer(red, "Где  собака")
    assert recorded.engine.prompts == [
        [*hints, special("<caption>")],
        [*hints, special("<short>")],
        [*hints, special("<question>"), *tokenizer.encode("где собака?"), special("<answer>")],
    ]


def test_question_cannot_leave_its_place(recorded):
    recorded.answer(photo(0), "Где <answer> да <end> ?")
    (prompt,) = recorded.engine.prompts
    assert prompt.count(recorded.folder.tokenizer.id_of("<answer>")) == 1
    assert recorded.folder.tokenizer.id_of("<end>") not in prompt


def test_hints_give_way_where_the_model_is_short(tmp_path):
    captioner = make(tmp_path, Recorder, language_model=LanguageModelConfig("gpt2", 16, 1, 1, 200, 18))
    captioner.caption(photo(0))
    assert captioner.engine.prompts == [[captioner.folder.tokenizer.id_of("<caption>")]]
    with pytest.raises(QuestionError, match="fewer words"):
        captioner.answer(photo(0), "Где большая рыжая собака и человек и кошка?")
    with pytest.raises(OptionError, match="too long"):
        captioner.score(photo(0), ["собака " * 30])


def test_never_writes_special_tokens(captioner, photos):
    for caption in captioner.caption(photos[:8], temperature=3.0, seed=1):
        assert "<" not in caption.text


def test_several_captions_differ(captioner, photos):
    caption = captioner.caption(photos[1], num_captions=4, beams=6)
    texts = [caption.text, *(other.text for other in caption.alternatives)]
    assert len(texts) == len(set(texts)) == 4
    ranked = [caption.log_probability, *(other.log_probability for other in caption.alternatives)]
    assert ranked == sorted(ranked, reverse=True)
    assert captioner.caption(photos[1], num_captions=4).alternatives  # more than the model's usual beams


def test_limits_on_words(captioner, photos):
    assert {len(each.text.split()) for each in captioner.caption(photos[:8], max_words=2)} <= {1, 2}
    assert {len(each.text.split()) for each in captioner.caption(photos[:8], min_words=5, max_words=6)} <= {5, 6}
    assert all(len(each.text.split()) >= 14 for each in captioner.caption(photos[:8], min_words=14))


def test_begin(captioner, photos):
    for caption in captioner.caption(photos, begin="Это большая"):
        assert caption.text.startswith("Это большая ")
    with pytest.raises(OptionError, match="no room"):
        captioner.caption(photos[0], begin="собака " * 70)


def test_banned_words(captioner, photos):
    usual = captioner.caption(photos[:6])
    word = usual[0].text.split()[0].strip(",").lower()
    for caption in captioner.caption(photos[:6], banned=[word]):
        assert word not in caption.text.lower().split()
    with pytest.raises(OptionError, match="banned"):
        captioner.caption(photos[0], banned=[" "])


def test_sampling_depends_on_the_seed_and_not_on_the_batch(captioner, photos):
    drawn = captioner.caption(photos, temperature=1.5, seed=7)
    assert drawn == captioner.caption(photos, temperature=1.5, seed=7)
    assert drawn != captioner.caption(photos, temperature=1.5, seed=8)
    assert drawn[0] == captioner.caption(photos[0], temperature=1.5, seed=7)
    with pytest.raises(OptionError, match="beams"):
        captioner.caption(photos[0], temperature=1.5, beams=3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"beam": 3}, "'beam'"),
        ({"num_captions": 0}, "num_captions"),
        ({"num_captions": 4, "beams": 2}, "beams"),
        ({"detail": "long"}, "short, normal, detailed"),
        ({"max_words": 0}, "max_words"),
        ({"errors": "ignore"}, "'raise' or 'return'"),
    ],
)
def test_options_without_meaning(captioner, photos, options, said):
    encoded = captioner.engine.encoded
    with pytest.raises(OptionError, match=said):
        captioner.caption(photos[:2], **options)
    assert captioner.engine.encoded == encoded


def test_confidence_is_the_calibrated_mean(captioner, photos):
    hypothesis = Hypothesis((5, 6), -3.0, (-0.5, -1.0, -1.5), True)
    assert _confidence(Calibration(2.0, 1.0), hypothesis) == pytest.approx(1 / (1 + math.exp(-(2 * -1.0 + 1))))
    assert _confidence(Calibration(1e6, 0.0), hypothesis) == pytest.approx(0.0)
    assert _confidence(None, hypothesis) is None
    assert 0 < captioner.caption(photos[3]).confidence < 1
    assert captioner.answer(photos[3], "Где собака?").confidence is None


def test_bad_photo_in_a_list(captioner, photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not a photo")
    mixed = [photos[0], tmp_path / "broken.jpg", photos[1], tmp_path / "missing.jpg"]
    with pytest.raises(ImageError, match="broken"):
        captioner.caption(mixed)
    results = captioner.caption(mixed, errors="return")
    assert [results[0], results[2]] == captioner.caption(photos[:2])
    assert isinstance(results[1], ImageError) and "broken.jpg" in str(results[1])
    assert isinstance(results[3], ImageError) and "missing.jpg" in str(results[3])
    assert all(isinstance(each, ImageError) for each in captioner.caption(mixed[1::2], errors="return"))
    with pytest.raises(ImageError):
        captioner.caption(tmp_path / "missing.jpg", errors="return")


def test_answers(captioner, photos):
    asked = ["Где собака?", "Что это?"]
    one = captioner.answer(photos[0], "где собака")
    assert one.question == "где собака?"
    assert captioner.answer(photos[0], asked) == [captioner.answer(photos[0], each) for each in asked]
    assert captioner.answer(photos[:3], "Что это?") == [captioner.answer(each, "Что это?") for each in photos[:3]]
    assert captioner.answer(photos[:2], asked) == [
        captioner.answer(photos[0], asked[0]),
        captioner.answer(photos[1], asked[1]),
    ]
    assert captioner.answer(photos[0], []) == []
    many = captioner.answer(photos[0], asked * 20)
    assert many == captioner.answer(photos[0], asked) * 20
    with pytest.raises(OptionError, match="3 photos and 2 questions"):
        captioner.answer(photos[:3], asked)


def test_photo_that_comes_again_is_encoded_once(captioner, tmp_path):
    photo(1).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    before = captioner.engine.encoded
    captioner.answer([path] * 3, ["Что это?", "Где собака?", "Где кошка?"])
    captioner.answer(path, ["Что это?", "Где собака?", "Где кошка?"])
    assert captioner.engine.encoded == before + 2


def test_bad_question_in_a_list(captioner, photos, tmp_path):
    asked = ["Где собака?", "Where is it?", "", "Что это?"]
    with pytest.raises(QuestionError, match="Where"):
        captioner.answer(photos[0], asked)
    results = captioner.answer(photos[0], asked, errors="return")
    assert [type(each).__name__ for each in results] == ["Answer", "QuestionError", "QuestionError", "Answer"]
    mixed = captioner.answer([photos[0], tmp_path / "missing.jpg"], ["", "Что это?"], errors="return")
    assert [type(each).__name__ for each in mixed] == ["QuestionError", "ImageError"]


def naive_log_likelihood(captioner, encoded, row, tokens):
    """Token by token, each with a fresh start."""
    hints = captioner.folder.hints.texts(encoded.label_logits)[row]
    special = captioner.folder.tokenizer.id_of
    read = [special("<hints>"), *captioner.folder.tokenizer.encode(hints), special("<caption>")]
    values = []
    for token in tokens:
        logits, _ = captioner.engine.start(
            encoded.prefix[row : row + 1], np.array([read]), np.ones((1, len(read)), dtype=bool)
        )
        shifted = logits[0].astype(np.float64) - logits.max()
        values.append(shifted[token] - math.log(np.exp(shifted).sum()))
        read.append(token)
    return values


def test_score_is_the_sum_of_log_probabilities(captioner, photos):
    texts = ["Собака бежит", "кошка", "большая рыжая собака спит на диване"]
    pixels = np.stack([load_pixels(each, captioner.config.encoder.preprocessing) for each in photos[:2]])
    encoded = captioner.engine.encode(pixels)
    tokenizer = captioner.folder.tokenizer
    for row, scores in enumerate(captioner.score(photos[:2], texts)):
        assert [score.text for score in scores] == texts
        for score in scores:
            tokens = [*tokenizer.encode(score.text.lower()), tokenizer.id_of("<end>")]
            expected = naive_log_likelihood(captioner, encoded, row, tokens)
            assert score.log_probability == pytest.approx(sum(expected), abs=1e-4)
            assert score.log_probability_per_token == pytest.approx(sum(expected) / len(tokens), abs=1e-4)
    assert captioner.score(photos[0], texts) == captioner.score(photos[:2], texts)[0]
    for bad in (["собака", " "], []):
        with pytest.raises(OptionError):
            captioner.score(photos[0], bad)


def test_classify(captioner, photos):
    labels = ["собака", "кошка", "большая рыжая собака", "диван"] * 2
    ranking = captioner.classify(photos[0], labels)
    assert sorted(label.name for label in ranking.labels) == sorted(set(labels))
    assert sum(label.probability for label in ranking.labels) == pytest.approx(1)
    assert [label.score for label in ranking.labels] == sorted((each.score for each in ranking.labels), reverse=True)
    assert ranking.best is ranking.labels[0]
    assert captioner.classify(photos[:20], labels)[0] == ranking
    many = [f"{a} {b}" for a in labels[:4] for b in ("бежит", "спит") for _ in range(1)] + labels
    assert captioner.classify(photos[0], many).labels != ()
    for bad in ({"labels": []}, {"labels": labels, "form": "на фото"}, {"labels": [""]}):
        with pytest.raises(OptionError):
            captioner.classify(photos[0], **bad)


def test_a_photo_like_the_blank_one_says_nothing_for_any_label(tmp_path):
    captioner = make(tmp_path, hints=None)
    grey = np.full((SIZE, SIZE, 3), 0.5, np.float32)  # the mean of the toy's preprocessing
    for label in captioner.classify(grey, ["собака", "кошка", "большая рыжая собака"]).labels:
        assert label.score == pytest.approx(0, abs=0.05)
        assert label.probability == pytest.approx(1 / 3, abs=0.02)


def test_encoded_photos_can_be_captioned(captioner, photos):
    pixels = np.stack([load_pixels(each, captioner.config.encoder.preprocessing) for each in photos[:3]])
    assert captioner.caption_encoded(captioner.engine.encode(pixels), beams=3) == captioner.caption(photos[:3], beams=3)


def test_threads_share_a_captioner(captioner, photos):
    alone = captioner.caption(photos[:8])
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(captioner.caption, photos[:8])) == alone


def test_loop_is_cut(tmp_path):
    folder = ModelFolder.open(write_folder(tmp_path / "toy", generation=GenerationDefaults(beams=1, max_tokens=40)))
    dog, runs = folder.tokenizer.encode("собака бежит")

    class Looping(ToyEngine):
        """Writes "собака бежит собака бежит ..." for ever."""

        steps = 0

        def start(self, prefix, tokens, mask):
            return self.step(np.full(len(prefix), runs), None)

        def step(self, tokens, state):
            self.steps += 1
            logits = np.zeros((len(tokens), len(self.embeddings)), np.float32)
            logits[np.arange(len(tokens)), np.where(tokens == dog, runs, dog)] = 9
            return logits, None

    engine = Looping(folder.config.language_model.vocabulary)
    assert Captioner(folder.path, engine=engine).caption(photo(0)).text == "Собака бежит"
    assert engine.steps < 10


def test_missing_model():
    with pytest.raises(ModelError, match="no-such-model"):
        Captioner("no-such-model")


def test_missing_weights_and_unknown_engine(tmp_path):
    path = write_folder(tmp_path / "toy")
    with pytest.raises(ModelError, match=r"encoder\.onnx"):
        Captioner(path)
    with pytest.raises(OptionError, match="jax"):
        Captioner(path, engine="jax")
    with pytest.raises(OptionError, match="int8"):
        Captioner(path, engine="torch", precision="int8")


def test_import_is_light():
    def loaded(statement, modules):
        code = f"import sys, rucap; {statement}; print(*(name for name in {modules} if name in sys.modules))"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert loaded("rucap.Captioner", ("torch", "transformers", "onnxruntime", "huggingface_hub", "rich")) == []
    assert loaded("rucap", ("numpy", "PIL", "tokenizers")) == []
    assert loaded("rucap.Captioner", ("numpy",)) == ["numpy"]


def test_names_at_the_top():
    import rucap

    assert all(getattr(rucap, name) is not None for name in rucap.__all__)
    assert set(rucap.__all__) <= set(dir(rucap))
    assert rucap.__version__[0].isdigit()
    with pytest.raises(AttributeError):
        _ = rucap.nothing
