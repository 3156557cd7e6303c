"""A model folder exported whole, with photos to calibrate on and to compare."""

import json

import pytest
import torch
from PIL import Image
from skimage.data import astronaut, cat, chelsea, coffee

import rucap.export.export
from rucap import Captioner
from rucap.errors import ModelError
from rucap.export.export import export_model, spread
from rucap.model.config import EncoderConfig, LanguageModelConfig, MapperConfig, Preprocessing, read_config
from rucap.network.prefix_captioner import fresh_network, save_weights
from toy_model import WIDTH, words_tokenizer, write_folder

GRAPHS = ["decoder.int8.onnx", "decoder.onnx", "encoder.int8.onnx", "encoder.onnx"]


@pytest.fixture
def folder(tmp_path):
    vocabulary = words_tokenizer().get_vocab_size()
    settings = {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "vocab_size": vocabulary, "n_positions": 64}
    path = write_folder(
        tmp_path / "model",
        encoder=EncoderConfig(
            "efficientnet_lite", 4, 1328, Preprocessing(64, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3)
        ),
        mapper=MapperConfig("grid", 3, layers=1, heads=2, width=8),
        language_model=LanguageModelConfig("gpt2", WIDTH, 2, 2, vocabulary, 64, settings),
        hints=None,
    )
    torch.manual_seed(0)
    save_weights(fresh_network(read_config(path / "config.json")), path / "model.safetensors")
    return path


@pytest.fixture
def records(tmp_path):
    lines = []
    for number, photo in enumerate((astronaut, cat, chelsea, coffee)):
        Image.fromarray(photo()).resize((80, 80)).save(tmp_path / f"{number}.png")
        split = "train" if number < 2 else "dev"
        lines.append(json.dumps({"image": f"{number}.png", "split": split, "captions": [f"собака спит {number}"]}))
    path = tmp_path / "photos.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_folder_is_exported_compared_and_runs(folder, records):
    report = export_model(folder, [records])
    assert (
        sorted(path.name for path, _ in report.files) == sorted(p.name for p in (folder / "onnx").iterdir()) == GRAPHS
    )
    assert (report.parity.photos, report.parity.same_tokens) == (2, 2)
    assert 0 < report.parity.logits < 1e-4
    assert [(cost.name, cost.photos) for cost in report.costs] == [("photos", 2)]
    assert "2 captions the same" in str(report) and "int8 on photos, 2 dev photos" in str(report)
    assert Captioner(folder).caption(records.parent / "0.png").text
    exact, rounded = ((folder / "onnx" / f"encoder{end}").stat().st_size for end in (".onnx", ".int8.onnx"))
    assert rounded < exact / 3


def test_without_photos_convolutions_stay_as_they_are(folder):
    report = export_model(folder)
    assert report.parity is None and report.costs == ()
    assert "convolutions left in float32" in str(report)
    assert (folder / "onnx" / "encoder.int8.onnx").stat().st_size > (
        folder / "onnx" / "encoder.onnx"
    ).stat().st_size / 2


def test_graphs_unlike_the_network_are_an_error(folder, records, monkeypatch):
    exact = rucap.export.export.decoder_graph

    def another(model, weights):
        changed = fresh_network(read_config(folder / "config.json")).language_model
        return exact(changed, weights)

    monkeypatch.setattr(rucap.export.export, "decoder_graph", another)
    with pytest.raises(ModelError, match="logits differ from the network's"):
        export_model(folder, [records])


def test_records_are_taken_from_all_over_the_list():
    assert spread(list(range(101)), 3) == [0, 50, 100]
    assert spread([1, 2], 5) == [1, 2]
