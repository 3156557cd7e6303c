import dataclasses
import json

import pytest

from rucap.errors import ModelError, OptionError
from rucap.model import folder as folders
from rucap.model.config import GenerationDefaults, HintsConfig, read_config, write_config
from rucap.model.folder import ModelFolder, bundled, find_model
from rucap.model.names import named_models
from toy_model import write_folder


@pytest.fixture
def path(tmp_path):
    return write_folder(tmp_path / "toy")


def test_open(path):
    folder = ModelFolder.open(path)
    assert folder.config.name == "toy"
    assert folder.tokenizer.id_of("<end>") == 2
    assert folder.hints is not None and folder.hints.labels[0] == ("корги", "собака")


def test_model_without_hints(tmp_path):
    assert ModelFolder.open(write_folder(tmp_path / "toy", hints=None)).hints is None


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "labels.tsv"])
def test_missing_file_is_named(path, name):
    (path / name).unlink()
    with pytest.raises(ModelError, match=f"{name}: no such file"):
        ModelFolder.open(path)


def test_missing_folder(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        ModelFolder.open(tmp_path / "nowhere")


def test_parts_that_do_not_belong_together(tmp_path):
    path = write_folder(tmp_path / "a", generation=GenerationDefaults(end_tokens=("<stop>",)))
    with pytest.raises(ModelError, match="<stop>"):
        ModelFolder.open(path)
    config = read_config(write_folder(tmp_path / "b") / "config.json")
    small = dataclasses.replace(config, language_model=dataclasses.replace(config.language_model, vocabulary=5))
    write_config(small, tmp_path / "b" / "config.json")
    with pytest.raises(ModelError, match="do not belong together"):
        ModelFolder.open(tmp_path / "b")


@pytest.mark.parametrize("file", ["../labels.tsv", "/etc/passwd", "a/b", "..", ""])
def test_hints_file_cannot_lead_out_of_the_folder(tmp_path, file):
    path = write_folder(tmp_path / "toy", hints=HintsConfig(file, 2))
    with pytest.raises(ModelError):
        ModelFolder.open(path)


def test_onnx_files(path):
    folder = ModelFolder.open(path)
    with pytest.raises(ModelError, match=r"encoder\.onnx: no such file; .*export"):
        folder.onnx_file("encoder")
    (path / "onnx").mkdir()
    (path / "onnx" / "encoder.onnx").touch()
    assert folder.onnx_file("encoder").name == "encoder.onnx"
    (path / "onnx" / "encoder.int8.onnx").touch()
    assert folder.onnx_file("encoder").name == "encoder.int8.onnx"
    assert folder.onnx_file("encoder", "float32").name == "encoder.onnx"
    (path / "onnx" / "encoder.onnx").unlink()
    with pytest.raises(ModelError, match=r"encoder\.onnx"):
        folder.onnx_file("encoder", "float32")
    with pytest.raises(OptionError, match="int4"):
        folder.onnx_file("encoder", "int4")


def test_weights_file(path):
    with pytest.raises(ModelError, match="safetensors"):
        _ = ModelFolder.open(path).weights_file
    (path / "model.safetensors").touch()
    assert ModelFolder.open(path).weights_file == path / "model.safetensors"


def test_local_path_comes_first(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    assert find_model(path) == path
    assert find_model("toy").resolve() == path


def test_bundled_name_before_a_folder_that_is_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(folders.resources, "files", lambda _: tmp_path)
    inside = write_folder(tmp_path / "bundled" / "tiny")
    (tmp_path / "elsewhere" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find_model("tiny") == inside
    assert bundled("../bundled/tiny") is None


def test_what_is_not_here_says_what_to_do(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setenv("RUCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="AlexWortega/ruImagecaptioning"):
        find_model("clip-rugpt3-small")
    with pytest.raises(ModelError, match="hf download someone/model"):
        find_model("someone/model")
    with pytest.raises(ModelError, match="tiny, clip-rugpt3-small"):
        find_model("huge")
    with pytest.raises(ModelError, match="no such folder"):
        find_model("./tiny")
    with pytest.raises(ModelError, match="holds no config"):
        find_model(tmp_path)


def test_table():
    assert list(named_models()) == ["tiny", "clip-rugpt3-small"]
    assert named_models()["tiny"].sources == {}


def test_config_survives_a_round_trip(path):
    config = read_config(path / "config.json")
    write_config(config, path / "again.json")
    assert read_config(path / "again.json") == config
    assert not list(path.glob("*.part"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nmae": "x"}, "'nmae'"),
        ({"name": None}, "name: str is expected"),
        ({"language": "de"}, "'ru', 'en'"),
        ({"mapper": {"kind": "mlp"}}, r"mapper: the field 'prefix_length' is missing"),
        ({"generation": {"end_tokens": "<end>"}}, "a list is expected"),
        ({"generation": {"beams": True}}, "beams: int is expected"),
    ],
)
def test_config_at_fault_is_named(path, change, said):
    values = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(values | change))
    with pytest.raises(ModelError, match=said):
        read_config(path / "config.json")
