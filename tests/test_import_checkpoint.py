"""ClipCap's checkpoints to model folders: every form of them, and every way in which a file can be wrong."""

import json
import os
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from clipcap import (  # noqa: E402
    FEATURES,
    PREFIX,
    SIZE,
    WIDTH,
    byte_tokenizer,
    write_checkpoint,
    write_language_model,
    write_preprocessor,
    write_vision,
)
from rucap.errors import ModelError  # noqa: E402
from rucap.importing import import_checkpoint  # noqa: E402
from rucap.importing.checkpoint import read_tensors  # noqa: E402
from rucap.importing.vision import read_preprocessing  # noqa: E402
from rucap.model.folder import ModelFolder  # noqa: E402
from rucap.network.prefix_captioner import load_network  # noqa: E402


@pytest.fixture
def parts(tmp_path):
    torch.manual_seed(0)
    gpt = write_language_model(tmp_path / "lm")
    vision = write_vision(tmp_path / "vision")
    return tmp_path, gpt, vision


def imported(path, checkpoint="captioner.pt", name="out", **options):
    return ModelFolder.open(import_checkpoint(path / checkpoint, path / "lm", path / "vision", path / name, **options))


def assert_same(folder, captioner, vision):
    """The imported network computes what the original does."""
    network = load_network(folder.config, folder.weights_file)
    pixels = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        expected = captioner.prefix(vision(pixels).image_embeds)
        torch.testing.assert_close(network.encode(pixels)[0], expected, atol=1e-5, rtol=1e-5)
        tokens = torch.tensor([[5, 6, 7]])
        theirs, ours = captioner.gpt(tokens).logits, network.language_model(tokens).logits
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "linear", "transformer"])
@pytest.mark.parametrize("old_buffers", [False, True])
def test_every_mapper(parts, kind, old_buffers):
    path, gpt, vision = parts
    captioner = write_checkpoint(path / "captioner.pt", gpt, kind, old_buffers, prefix_length=4)
    folder = imported(path)
    mapper = folder.config.mapper
    assert mapper.prefix_length == 4
    hidden = {"mlp": 4 * WIDTH // 2, "linear": 0, "transformer": 0}[kind]
    assert (mapper.kind, mapper.width) == ("mlp" if kind == "linear" else kind, hidden)
    if kind == "transformer":
        assert (mapper.layers, mapper.constant_length, mapper.heads) == (2, 2, 8)
    assert_same(folder, captioner, vision)


def test_tied_matrix_may_be_left_out_and_is_written_once(parts):
    path, gpt, vision = parts
    captioner = write_checkpoint(path / "captioner.pt", gpt, change=lambda state: state.pop("gpt.lm_head.weight"))
    folder = imported(path)
    assert_same(folder, captioner, vision)
    whole = sum(p.numel() for p in [*captioner.parameters(), *vision.parameters()]) * 4
    assert whole < folder.weights_file.stat().st_size < whole + 20_000


def test_half_precision(parts):
    path, gpt, _ = parts
    write_checkpoint(path / "captioner.pt", gpt)
    single, half = imported(path), imported(path, name="half", half=True)
    assert half.weights_file.stat().st_size < 0.7 * single.weights_file.stat().st_size
    ours = load_network(half.config, half.weights_file).language_model.transformer.wte.weight
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, gpt.transformer.wte.weight, atol=1e-3, rtol=1e-3)


def test_mapper_alone_takes_the_language_model_of_the_folder(parts):
    path, _, vision = parts
    gpt = write_language_model(path / "whole", weights=True)
    (path / "lm").rename(path / "unused")
    (path / "whole").rename(path / "lm")

    def mapper_alone(state):
        for name in [name for name in state if name.startswith("gpt.")]:
            del state[name]

    captioner = write_checkpoint(path / "captioner.pt", gpt, change=mapper_alone)
    assert_same(imported(path), captioner, vision)


def test_several_gpus_and_safetensors(parts):
    from safetensors.torch import save_file

    path, gpt, vision = parts

    def wrapped(state):
        for name in list(state):
            state["module." + name] = state.pop(name)

    captioner = write_checkpoint(path / "captioner.pt", gpt, change=wrapped)
    assert_same(imported(path), captioner, vision)
    save_file(torch.load(path / "captioner.pt", weights_only=True), path / "captioner.safetensors")
    assert_same(imported(path, "captioner.safetensors", "again"), captioner, vision)


def test_old_file_format(parts):
    path, gpt, vision = parts
    captioner = write_checkpoint(path / "captioner.pt", gpt)
    state = torch.load(path / "captioner.pt", weights_only=True)
    torch.save(state, path / "captioner.pt", _use_new_zipfile_serialization=False)
    assert_same(imported(path), captioner, vision)


def llama(**sizes):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))


def qwen3(**sizes):
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**sizes, head_dim=8, tie_word_embeddings=True))


@pytest.mark.parametrize("build", [llama, qwen3])
def test_other_language_models(parts, build):
    path, _, vision = parts
    tokenizer = byte_tokenizer()
    model = build(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    ).eval()  # fmt: skip
    (path / "lm").rename(path / "gpt")
    model.config.save_pretrained(path / "lm")
    tokenizer.save(str(path / "lm" / "tokenizer.json"))
    captioner = write_checkpoint(path / "captioner.pt", model, "linear")
    folder = imported(path)
    assert folder.config.language_model.positions == 64
    assert_same(folder, captioner, vision)


def test_normalised_prefix(parts):
    path, gpt, vision = parts
    captioner = write_checkpoint(path / "captioner.pt", gpt)
    folder = imported(path, normalize_prefix=True)
    network = load_network(folder.config, folder.weights_file)
    pixels = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        embedding = vision(pixels).image_embeds
        expected = captioner.prefix(embedding / embedding.norm(2, -1, keepdim=True))
        torch.testing.assert_close(network.encode(pixels)[0], expected, atol=1e-5, rtol=1e-5)


def test_configuration(parts):
    path, gpt, _ = parts
    write_checkpoint(path / "captioner.pt", gpt)
    folder = imported(path)
    config = folder.config
    assert (config.name, config.language, config.encoder.width) == ("out", "ru", FEATURES)
    assert config.encoder.preprocessing.resize == "crop"
    assert config.encoder.preprocessing.size == SIZE
    assert config.encoder.preprocessing.mean == (0.48145466, 0.4578275, 0.40821073)
    assert config.generation.end_tokens[0] == "."
    assert {"</s>", "Ċ", "!", "?"} <= set(config.generation.end_tokens)
    assert set(config.generation.suppressed_tokens) == {"<pad>", "<s>", "<unk>", "<mask>"}
    assert config.prompts.question == "{question}"
    assert config.prompts.first_letter == "as_written"
    assert str(path) not in (folder.path / "config.json").read_text()
    labelled = imported(path, name="labelled", question_form="labelled").config
    assert labelled.prompts.question == "Вопрос: {question} Ответ:"
    english = imported(path, name="english", language="en", question_form="labelled").config
    assert (english.language, english.prompts.question) == ("en", "Question: {question} Answer:")


def test_older_tokenizer_files_are_converted(parts):
    path, gpt, _ = parts
    (path / "lm").rename(path / "new")
    torch.manual_seed(0)
    write_language_model(path / "lm", old_tokenizer=True)
    write_checkpoint(path / "captioner.pt", gpt)
    converted = imported(path).tokenizer
    (path / "lm").rename(path / "old")
    (path / "new").rename(path / "lm")
    copied = imported(path, name="again").tokenizer
    for text in ("Собака бежит по траве.", " Что делает собака?", "Ёж и 2 кота — «вместе»\n"):
        assert converted.encode(text) == copied.encode(text)
        assert converted.decode(converted.encode(text)) == text
    assert converted.id_of("</s>") == 2


def test_nothing_is_left_and_nothing_overwritten(parts):
    path, gpt, _ = parts
    write_checkpoint(path / "captioner.pt", gpt)
    imported(path)
    assert not list(path.glob("*.part"))
    assert (path / "out" / "model.safetensors").stat().st_mode == (path / "out" / "config.json").stat().st_mode
    with pytest.raises(ModelError, match="is there already"):
        imported(path)
    write_checkpoint(path / "bad.pt", gpt, change=lambda state: state.pop("clip_project.model.2.bias"))
    with pytest.raises(ModelError):
        imported(path, "bad.pt", "bad")
    assert not (path / "bad").exists()


def shrunk(name):
    def change(state):
        state[name] = state[name][:-1].clone()

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("gpt.transformer.h.1.ln_1.bias"), r"gpt\.transformer\.h\.1\.ln_1\.bias is missing"),
        (lambda s: s.pop("gpt.transformer.wte.weight"), r"gpt\.(transformer\.wte|lm_head)\.weight is missing"),
        (lambda s: s.pop("clip_project.model.0.weight"), r"clip_project\.model\.0\.weight is missing"),
        (lambda s: s.pop("clip_project.model.0.bias"), r"clip_project\.model\.0\.bias is missing"),
        (lambda s: s.update({"gpt.extra": torch.ones(1)}), r"unexpected tensor gpt\.extra"),
        (lambda s: s.update({"clip_project.model.4.bias": torch.ones(1)}), r"unexpected .*clip_project\.model\.4"),
        (lambda s: s.update({"clip.visual": torch.ones(1)}), r"unexpected tensor clip\.visual"),
        (shrunk("gpt.transformer.wpe.weight"), r"gpt\.transformer\.wpe\.weight has the shape \(95, 16\), not"),
        (shrunk("clip_project.model.0.bias"), r"clip_project\.model\.0\.bias has the shape"),
        (shrunk("clip_project.model.2.weight"), r"clip_project\.model\.2\.weight has 47 rows, no multiple"),
        (lambda s: s["gpt.lm_head.weight"].add_(1), r"lm_head\.weight differs from gpt\.transformer\.wte\.weight"),
        (lambda s: s.update({"epoch": 3}), r"'epoch' is a int, not a tensor"),
    ],
)
def test_tensor_at_fault_is_named(parts, change, said):
    path, gpt, _ = parts
    write_checkpoint(path / "captioner.pt", gpt, change=change)
    with pytest.raises(ModelError, match=said):
        imported(path)


def test_parts_that_do_not_fit(parts):
    path, gpt, _ = parts
    write_checkpoint(path / "captioner.pt", gpt, features=FEATURES + 1)
    with pytest.raises(ModelError, match=r"takes 13 features and .*vision gives 12"):
        imported(path)
    write_checkpoint(path / "captioner.pt", gpt)
    (path / "lm").rename(path / "right")
    write_language_model(path / "lm", width=10)
    with pytest.raises(ModelError, match="no multiple of the language model's width 10"):
        imported(path)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_is_refused_before_it_runs(tmp_path, new_format):
    file, marker = tmp_path / "captioner.pt", tmp_path / "marker"
    state = {"clip_project.weight": torch.ones(2, 2), "x": Malicious(marker)}
    torch.save(state, file, _use_new_zipfile_serialization=new_format)
    with pytest.raises(ModelError, match="refused: it holds something besides tensors"):
        read_tensors(file)
    assert not marker.exists()
    torch.load(file, weights_only=False)  # the file does what the test says it does
    assert marker.exists()


def test_torchscript_is_refused_and_the_way_out_said(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "RN50x4.pt")
    with pytest.raises(ModelError, match=r"RN50x4\.pt: refused: a TorchScript archive.*state_dict"):
        read_tensors(tmp_path / "RN50x4.pt")
    torch.save(torch.jit.load(tmp_path / "RN50x4.pt").state_dict(), tmp_path / "tensors.pt")
    assert read_tensors(tmp_path / "tensors.pt")["weight"].shape == (2, 2)


def test_code_in_a_language_models_folder_is_not_run(parts):
    path, gpt, _ = parts
    write_checkpoint(path / "captioner.pt", gpt)
    config = json.loads((path / "lm" / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (path / "lm" / "config.json").write_text(json.dumps(config))
    (path / "lm" / "own.py").write_text(f"import os; os.mkdir({str(path / 'marker')!r})")
    with pytest.raises(ModelError, match=r"cannot read its config\.json"):
        imported(path)
    assert not (path / "marker").exists()


def test_damaged_files(parts):
    path, gpt, _ = parts
    write_checkpoint(path / "captioner.pt", gpt)
    whole = (path / "captioner.pt").read_bytes()
    for name, content in {
        "cut.pt": whole[: len(whole) // 2],
        "empty.pt": b"",
        "text.pt": b"hello",
        "x.safetensors": b"x",
    }.items():
        (path / name).write_bytes(content)
        with pytest.raises(ModelError, match=rf"{name}: cannot be read"):
            read_tensors(path / name)
    with zipfile.ZipFile(path / "photos.zip", "w") as archive:
        archive.writestr("photo.jpg", b"\xff\xd8")
    with pytest.raises(ModelError, match=r"photos\.zip: cannot be read"):
        read_tensors(path / "photos.zip")
    with pytest.raises(ModelError, match="no such file"):
        read_tensors(path / "missing.pt")
    torch.save(torch.ones(3), path / "tensor.pt")
    with pytest.raises(ModelError, match="not a state dict but a Tensor"):
        read_tensors(path / "tensor.pt")


def test_vision_half_alone_and_wrong_folders(parts):
    path, gpt, _ = parts
    captioner = write_checkpoint(path / "captioner.pt", gpt)
    (path / "vision").rename(path / "whole")
    vision = write_vision(path / "vision", whole=False)
    assert_same(imported(path), captioner, vision)
    (path / "vision" / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"preprocessor_config\.json: no such file"):
        imported(path, name="a")
    write_preprocessor(path / "vision", size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    with pytest.raises(ModelError, match="64 pixels wide and the encoder takes 32"):
        imported(path, name="b")
    (path / "vision" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot load its vision tower"):
        imported(path, name="c")
    with pytest.raises(ModelError, match="type 'gpt2'"):
        import_checkpoint(path / "captioner.pt", path / "lm", path / "lm", path / "d")
    (path / "lm" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        imported(path, name="e")
    with pytest.raises(ModelError, match="no such folder"):
        import_checkpoint(path / "captioner.pt", path / "nowhere", path / "vision", path / "f")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"size": 224, "crop_size": 224, "do_center_crop": True, "resample": 3}, ("crop", "bicubic", 224)),
        ({"size": {"height": 256, "width": 256}, "resample": 2}, ("squash", "bilinear", 256)),
        (
            {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, "do_center_crop": True},
            ("crop", "bicubic", 336),
        ),
    ],
)
def test_preprocessing(tmp_path, values, expected):
    values |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    for name, written in (("preprocessor_config.json", values), ("processor_config.json", {"image_processor": values})):
        (tmp_path / name).write_text(json.dumps(written))
        found = read_preprocessing(tmp_path)
        assert (found.resize, found.interpolation, found.size) == expected
        assert (found.mean, found.std) == ((0.5,) * 3, (0.25,) * 3)
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    "values",
    [
        {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True},
        {"size": {"shortest_edge": 256}},
        {"size": {"height": 256, "width": 128}},
        {"crop_size": 224},
        {"size": 224, "resample": 0},
        {"size": 224, "image_mean": "x"},
    ],
)
def test_preprocessing_that_is_not_supported(tmp_path, values):
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3} | values)
    )
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        read_preprocessing(tmp_path)


def test_prefix_length_is_read_from_the_tensors(parts):
    path, gpt, _ = parts
    write_checkpoint(path / "captioner.pt", gpt, prefix_length=PREFIX + 4)
    assert imported(path).config.mapper.prefix_length == PREFIX + 4
    assert np.isfinite(gpt.transformer.wte.weight.detach().numpy()).all()
