"""Labels ranked by the similarity of CLIP's and SigLIP's halves, against transformers on the same weights."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from PIL import Image  # noqa: E402

import rucap.export.export  # noqa: E402
from clipcap import FEATURES, SIZE, write_checkpoint, write_language_model, write_preprocessor, write_vision  # noqa: E402
from rucap import Captioner  # noqa: E402
from rucap.cli.app import run  # noqa: E402
from rucap.engines.onnx import OnnxEngine  # noqa: E402
from rucap.errors import ModelError, OptionError  # noqa: E402
from rucap.export.text_tower import text_tower_graph  # noqa: E402
from rucap.export.weights import Float32  # noqa: E402
from rucap.images import load_pixels  # noqa: E402
from rucap.importing import import_checkpoint, write_graphs  # noqa: E402
from rucap.model.config import read_config, write_config  # noqa: E402
from rucap.model.folder import ModelFolder  # noqa: E402
from rucap.network.text_tower import build_text_tower, load_text_tower, text_embeddings  # noqa: E402
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
        write_graphs(self.out)
        self.captioner = Captioner(self.out, engine="torch")
        self.exact, self.rounded = (Captioner(self.out, precision=each, threads=1) for each in ("float32", "int8"))

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


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return Model(tmp_path_factory.mktemp("siglip"), write_siglip, RUSSIAN + ENGLISH)


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
    for captioner in (english.captioner, english.exact):
        for method in (None, "similarity"):
            rankings = captioner.classify(photos(), labels, form="a photo of {label}", method=method)
            assert_ranked(rankings, labels, logits, shares)


def test_siglip_s_sigmoid(siglip):
    assert siglip.captioner.config.text_tower.languages == ("ru", "en")
    labels = ["собака", "рыжая кошка на диване", "a dog"]
    logits = siglip.logits(photos(), labels, padding="max_length", truncation=True, max_length=12)
    for captioner in (siglip.captioner, siglip.exact):
        assert_ranked(captioner.classify(photos(), labels), labels, logits, 1 / (1 + np.exp(-logits)))
    upper = siglip.captioner.classify(photos(), [label.upper() for label in labels])
    assert [label.score for label in upper[0].labels] == [
        label.score for label in siglip.captioner.classify(photos(), labels)[0].labels
    ]


def test_int8_ranks_the_same(english, siglip):
    labels = ["red cat", "two people", "a ball in the street"]  # others have scores too near for so small a model
    for model in (english, siglip):
        rankings = (captioner.classify(photos(), labels) for captioner in (model.rounded, model.exact))
        for rounded, exact in zip(*rankings, strict=True):
            assert rounded.method == "similarity"
            assert [label.name for label in rounded.labels] == [label.name for label in exact.labels]
            assert rounded != exact, "another graph"


def test_many_labels_and_any_batch(english, siglip):
    labels = [f"{color} cat {number}" for number in range(30) for color in ("red", "a", "two people in the street,")]
    for model in (english, siglip):
        tokens = model.exact.folder.text_tokens(labels)
        expected = model.captioner.engine.embed_texts(tokens)
        assert np.ptp(expected, axis=0).mean() > 0.05
        np.testing.assert_allclose(model.exact.engine.embed_texts(tokens), expected, atol=1e-4)
        alone = model.rounded.engine.embed_texts(tokens[3:4])
        np.testing.assert_allclose(alone, model.rounded.engine.embed_texts(tokens)[3:4], atol=1e-4)


@pytest.mark.parametrize("end", [2, 5])
def test_the_end_of_a_text(tmp_path, end):
    """OpenAI's files say 2 and mean the token of the highest number; both pad with more of the same."""
    torch.manual_seed(0)
    settings = {"vocab_size": 30, "eos_token_id": end, "max_position_embeddings": 9, "initializer_range": 0.5}
    tower = build_text_tower({"model_type": "clip_text_model", "projection_dim": 7, **TINY, **settings}).eval()
    tokens = torch.randint(6, 29, (8, 9))
    for row, length in zip(tokens, range(1, 9), strict=True):
        row[length:] = 29 if end == 2 else end
    path = tmp_path / "text_tower.onnx"
    path.write_bytes(text_tower_graph(tower, Float32()).SerializeToString())
    engine = OnnxEngine(path, path, text_tower=path, threads=1)
    with torch.inference_mode():
        for length in (9, 8):
            given = tokens[: length - 1, :length]
            expected = text_embeddings(tower, given).numpy()
            np.testing.assert_allclose(engine.embed_texts(given.numpy()), expected, atol=1e-5)


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
    class Other:
        """An engine that runs no tower."""

        def __getattr__(self, name):
            return getattr(english.captioner.engine, name)

        def embed_texts(self, tokens):
            return None

    captioner = Captioner(english.out, engine=Other())
    assert captioner.classify(photos()[0], ["dog", "cat"]).method == "likelihood"
    with pytest.raises(ModelError, match="no text tower for this engine"):
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
    sent = write_upload(english.out, "user/model", tmp_path / "upload")
    assert {path.name for path in sent.iterdir()} >= files
    (sent / "text_tower.safetensors").unlink()
    (sent / "model.safetensors").unlink()
    sent_rankings = Captioner(sent, precision="float32").classify(photos(), ["dog", "cat"])
    assert sent_rankings == english.exact.classify(photos(), ["dog", "cat"])
    assert {path.name for path in (sent / "onnx").iterdir()} >= {"text_tower.onnx", "text_tower.int8.onnx"}
    monkeypatch.setattr(finetune, "run_stages", lambda *_: None)
    records = "".join(f'{{"image": "{n}.jpg", "caption": "Собака"}}\n' for n in range(20))
    (tmp_path / "data.jsonl").write_text(records)
    tuned = finetune.finetune(english.out, tmp_path / "data.jsonl", tmp_path / "tuned", tmp_path, lambda line: None)
    assert ModelFolder.open(tuned).text_tower_file
    rankings = [Captioner(path, engine="torch").classify(photos(), ["dog", "cat"]) for path in (tuned, english.out)]
    for ours, theirs in zip(*rankings, strict=True):
        assert ours.best.score == pytest.approx(theirs.best.score, abs=0.05)  # a tuned model's weights are halves


def test_graphs_without_a_text_tower(english, tmp_path):
    for path in english.out.iterdir():
        if path.name != "onnx":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "onnx").mkdir()
    for part in ("encoder", "decoder"):
        (tmp_path / "onnx" / f"{part}.onnx").symlink_to(english.out / "onnx" / f"{part}.onnx")
    captioner = Captioner(tmp_path, threads=1)
    assert captioner.classify(photos()[0], ["dog", "cat"]).method == "likelihood"
    with pytest.raises(ModelError, match="rucap export"):
        captioner.classify(photos()[0], ["dog", "cat"], method="similarity")


def test_a_graph_unlike_the_tower_is_an_error(english, monkeypatch, tmp_path):
    for path in english.out.iterdir():
        if path.name != "onnx":
            (tmp_path / path.name).symlink_to(path)
    report = rucap.export.export.export_model(tmp_path)
    assert 0 < report.text_tower < 1e-5 and "4 texts" in str(report)
    config = read_config(english.out / "config.json").text_tower
    other = load_text_tower(config, english.out / "text_tower.safetensors")
    other.text_model.encoder.layers[0].self_attn.q_proj.weight.data.mul_(1.1)
    monkeypatch.setattr(rucap.export.export, "text_tower_graph", lambda _, weights: text_tower_graph(other, weights))
    with pytest.raises(ModelError, match="embeddings differ from the tower's"):
        rucap.export.export.export_model(tmp_path)


def test_labels_are_read_once(english, monkeypatch):
    engine, calls = english.rounded.engine, []
    counting = SimpleNamespace(
        encode=engine.encode, embed_texts=lambda tokens: calls.append(len(tokens)) or engine.embed_texts(tokens)
    )
    captioner = Captioner(english.out, engine=counting)
    rankings = [captioner.classify(photos()[0], ["dog", "cat"]) for _ in range(3)]
    assert rankings[0] == rankings[1] == rankings[2] and calls == [2]
    assert captioner.classify(photos()[0], ["cat", "dog", "ball"]).labels != rankings[0].labels
    captioner.classify(photos()[0], ["dog", "cat"], form="a {label}")
    assert calls == [2, 3, 2]


def test_command_line(english, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, photo in enumerate(photos(20)):
        Image.fromarray(photo).save(f"{number:02}.png")
    read, embed_texts = [], OnnxEngine.embed_texts
    monkeypatch.setattr(OnnxEngine, "embed_texts", lambda self, tokens: read.append(1) or embed_texts(self, tokens))

    def classify(*options):
        labels = ["--label", "dog", "--label", "red cat", "--label", "ball"]
        code = run(["classify", "--model", str(english.out), *labels, *options, "."])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    code, rows = classify()
    assert (code, len(rows), read) == (0, 20, [1])
    assert (code, rows) == classify("--method", "similarity")
    assert rows != classify("--method", "likelihood")[1]
    for row, ranking in zip(rows, english.captioner.classify(photos(20), ["dog", "red cat", "ball"]), strict=True):
        found = {each["label"]: each["probability"] for each in row["labels"]}
        assert found == pytest.approx({each.name: each.probability for each in ranking.labels}, abs=0.02)
