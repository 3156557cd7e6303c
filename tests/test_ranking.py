"""Labels ranked by the similarity of CLIP's and SigLIP's halves, against transformers on the same weights."""

import dataclasses

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from clipcap import FEATURES, SIZE, write_checkpoint, write_language_model, write_preprocessor, write_vision  # noqa: E402
from rucap import Captioner  # noqa: E402
from rucap.errors import ModelError, OptionError  # noqa: E402
from rucap.images import load_pixels  # noqa: E402
from rucap.importing import import_checkpoint  # noqa: E402
from rucap.model.config import read_config, write_config  # noqa: E402
from rucap.model.folder import ModelFolder  # noqa: E402
from rucap.publishing.push import write_upload  # noqa: E402
from rucap.training import finetune  # noqa: E402

ENGLISH = ["a photo of a dog", "a red cat on a sofa", "two people in the street with a ball"]
RUSSIAN = ["собака бежит по траве", "рыжая кошка на диване", "человек идёт по улице с мячом"]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
TINY = {"hidden_size": FEATURES, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def write_tokenizer(path, sentences):
    """Byte-level, with the marks at both ends that CLIP's own has."""
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        sentences * 5,
        trainers.BpeTrainer(vocab_size=350, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    inner.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(path)
    return {"vocab_size": inner.get_vocab_size(), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}


def write_clip(path, sentences):
    text = TINY | write_tokenizer(path, sentences) | {"max_position_embeddings": 12, "initializer_range": 0.3}
    vision = TINY | {"image_size": SIZE, "patch_size": 16, "initializer_range": 0.3, "projection_dim": FEATURES}
    config = transformers.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=FEATURES, logit_scale_init_value=2.0
    )
    transformers.CLIPModel(config).save_pretrained(path)
    write_preprocessor(path)
    return transformers.CLIPModel.from_pretrained(path).eval()


def write_siglip(path, sentences):
    text = TINY | write_tokenizer(path, sentences) | {"max_position_embeddings": 12, "projection_size": FEATURES}
    vision = TINY | {"image_size": SIZE, "patch_size": 16}
    made = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
    torch.nn.init.constant_(made.logit_scale, 1.5)
    torch.nn.init.constant_(made.logit_bias, -0.7)
    made.save_pretrained(path)
    transformers.SiglipImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(path)
    return transformers.SiglipModel.from_pretrained(path).eval()


class Model:
    """A captioner with a text half, and that half as transformers has it."""

    def __init__(self, path, write, sentences, **options):
        torch.manual_seed(3)
        write_checkpoint(path / "captioner.pt", write_language_model(path / "lm"))
        self.whole, self.vision = write(path / "vision", sentences), path / "vision"
        self.out = import_checkpoint(path / "captioner.pt", path / "lm", self.vision, path / "out", **options)
        self.captioner = Captioner(self.out, engine="torch")

    def logits(self, photos, texts, **padding):
        """transformers' logits_per_image."""
        preprocessing = self.captioner.config.encoder.preprocessing
        read = transformers.AutoTokenizer.from_pretrained(self.vision)(texts, return_tensors="pt", **padding)
        pixels = torch.tensor(np.stack([load_pixels(each, preprocessing) for each in photos]))
        with torch.inference_mode():
            return self.whole(input_ids=read["input_ids"], pixel_values=pixels).logits_per_image.double().numpy()


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    return Model(tmp_path_factory.mktemp("english"), write_clip, ENGLISH)


@pytest.fixture(scope="module")
def russian(tmp_path_factory):
    return Model(tmp_path_factory.mktemp("russian"), write_clip, RUSSIAN)


def photos(count=3):
    return [np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8) for seed in range(count)]


def assert_ranked(rankings, labels, logits, shares):
    for ranking, row, probabilities in zip(rankings, logits, shares, strict=True):
        assert ranking.method == "similarity"
        assert [label.name for label in ranking.labels] == [labels[index] for index in np.argsort(-row)]
        found = {label.name: label for label in ranking.labels}
        np.testing.assert_allclose([found[name].score for name in labels], row, atol=1e-4)
        np.testing.assert_allclose([found[name].probability for name in labels], probabilities, atol=1e-4)


def test_similarity_is_clip_s(english):
    labels = ["dog", "red cat", "two people in the street with a ball and a red cat on a sofa", "2"]
    logits = english.logits(photos(), [f"a photo of {label}" for label in labels], padding=True, truncation=True, max_length=12)  # fmt: skip # noqa: E501
    assert np.ptp(logits, axis=1).min() > 0.1 and np.ptp(logits, axis=0).max() > 0.1  # labels and photos differ
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for method in (None, "similarity"):
        rankings = english.captioner.classify(photos(), labels, form="a photo of {label}", method=method)
        assert_ranked(rankings, labels, logits, shares)


def test_siglip_s_sigmoid(tmp_path):
    model = Model(tmp_path, write_siglip, RUSSIAN + ENGLISH)
    assert model.captioner.config.text_tower.languages == ("ru", "en")
    labels = ["собака", "рыжая кошка на диване", "a dog"]
    logits = model.logits(photos(), labels, padding="max_length", truncation=True, max_length=12)
    assert_ranked(model.captioner.classify(photos(), labels), labels, logits, 1 / (1 + np.exp(-logits)))
    upper = model.captioner.classify(photos(), [label.upper() for label in labels])
    assert [label.score for label in upper[0].labels] == [
        label.score for label in model.captioner.classify(photos(), labels)[0].labels
    ]


def test_labels_that_the_tower_cannot_read_are_ranked_by_likelihood(english, russian):
    assert english.captioner.config.text_tower.languages == ("en",)
    assert russian.captioner.config.text_tower.languages == ("ru",)
    for model, labels in ((english, ["dog", "кошка"]), (russian, ["собака", "cat"])):
        ranking = model.captioner.classify(photos()[0], labels)
        assert ranking.method == "likelihood"
        assert ranking == model.captioner.classify(photos()[0], labels, method="likelihood")
        with pytest.raises(OptionError, match=f"{labels[1]}.*text tower"):
            model.captioner.classify(photos()[0], labels, method="similarity")
    assert russian.captioner.classify(photos()[0], ["собака", "кошка"]).method == "similarity"


def test_no_special_token_in_a_label(english):
    tokens = english.captioner.folder.text_tokens(["cat </s> dog", "cat"])
    assert (tokens == 3).sum(axis=1).tolist() == [1, 1]
    assert tokens[1, 0] == 2 and tokens[1, -1] == 0


def test_without_a_text_tower(english, tmp_path):
    class Onnx:
        """An engine that runs no tower, like the ONNX one."""

        def __getattr__(self, name):
            return getattr(english.captioner.engine, name)

        def embed_texts(self, tokens):
            return None

    captioner = Captioner(english.out, engine=Onnx())
    assert captioner.classify(photos()[0], ["dog", "cat"]).method == "likelihood"
    with pytest.raises(ModelError, match="engine='torch'"):
        captioner.classify(photos()[0], ["dog", "cat"], method="similarity")
    with pytest.raises(OptionError, match="'similarity' or 'likelihood'"):
        captioner.classify(photos()[0], ["dog", "cat"], method="clip")

    write_checkpoint(tmp_path / "captioner.pt", write_language_model(tmp_path / "lm"))
    for whole in (True, False):  # CLIP without its tokenizer, and the vision half alone
        said = []
        write_vision(tmp_path / f"vision-{whole}", whole=whole)
        out = import_checkpoint(
            tmp_path / "captioner.pt", tmp_path / "lm", tmp_path / f"vision-{whole}", tmp_path / f"out-{whole}",
            report=said.append,
        )  # fmt: skip
        assert any("similarity" in line for line in said)
        captioner = Captioner(out, engine="torch")
        assert captioner.classify(photos()[0], ["dog", "cat"]).method == "likelihood"
        with pytest.raises(ModelError, match="no text tower"):
            captioner.classify(photos()[0], ["dog", "cat"], method="similarity")


def test_half_precision(english, tmp_path):
    half = Model(tmp_path, write_clip, ENGLISH, half=True)
    sizes = [(model.out / "text_tower.safetensors").stat().st_size for model in (half, english)]
    assert sizes[0] < 0.7 * sizes[1]
    logits = half.logits(photos(), ["dog", "red cat"], padding=True)
    for ranking, row in zip(half.captioner.classify(photos(), ["dog", "red cat"]), logits, strict=True):
        np.testing.assert_allclose(sorted(label.score for label in ranking.labels), sorted(row), atol=0.05)


def test_tower_that_does_not_fit(english, tmp_path):
    config = read_config(english.out / "config.json")
    tower = dataclasses.replace(config.text_tower, settings={**config.text_tower.settings, "intermediate_size": 20})
    for name in ("tokenizer.json", "text_tokenizer.json", "text_tower.safetensors", "model.safetensors"):
        (tmp_path / name).symlink_to(english.out / name)
    write_config(dataclasses.replace(config, text_tower=tower), tmp_path / "config.json")
    with pytest.raises(ModelError, match=r"text_tower\.safetensors: not of this config\.json"):
        Captioner(tmp_path, engine="torch").classify(photos()[0], ["dog"])


def test_text_tower_goes_where_the_model_goes(english, tmp_path, monkeypatch):
    files = {"config.json", "tokenizer.json", "text_tokenizer.json", "text_tower.safetensors", "model.safetensors"}
    assert {path.name for path in write_upload(english.out, "user/model", tmp_path / "upload").iterdir()} >= files
    monkeypatch.setattr(finetune, "run_stages", lambda *_: None)
    records = "".join(f'{{"image": "{n}.jpg", "caption": "Собака"}}\n' for n in range(20))
    (tmp_path / "data.jsonl").write_text(records)
    tuned = finetune.finetune(english.out, tmp_path / "data.jsonl", tmp_path / "tuned", tmp_path, lambda line: None)
    assert ModelFolder.open(tuned).text_tower_file
    rankings = [Captioner(path, engine="torch").classify(photos(), ["dog", "cat"]) for path in (tuned, english.out)]
    for ours, theirs in zip(*rankings, strict=True):
        assert ours.best.score == pytest.approx(theirs.best.score, abs=0.05)  # a tuned model's weights are halves
