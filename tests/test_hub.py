"""Models from the hub, played here by local folders: fetched once, whole or not at all, one process at a time."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub")

from rucap.errors import ModelError  # noqa: E402
from rucap.model import hub  # noqa: E402
from rucap.model.folder import ModelFolder, find_model  # noqa: E402
from rucap.model.names import named_models  # noqa: E402
from toy_model import write_folder  # noqa: E402


class Hub:
    """`snapshot_download` over folders `root/owner/name`; keeps what was asked for. `down` is an error to raise."""

    def __init__(self, root, cache):
        self.root, self.cache, self.asked, self.down = root, cache, [], None

    def snapshot_download(self, repository, *, allow_patterns, local_dir=None):
        self.asked.append((repository, tuple(allow_patterns)))
        if self.down is not None:
            raise self.down
        source = self.root / repository
        place = Path(local_dir or self.cache / repository.replace("/", "--"))
        place.mkdir(parents=True, exist_ok=True)
        for file in source.rglob("*"):
            name = file.relative_to(source)
            if file.is_file() and any(name.match(pattern) for pattern in allow_patterns):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place / name)
        return str(place)


@pytest.fixture
def remote(tmp_path, monkeypatch):
    monkeypatch.setenv("RUCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    played = Hub(tmp_path / "remote", tmp_path / "hf")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", played.snapshot_download)
    return played


def published(remote, name="someone/captioner", files=("model.safetensors", "onnx/encoder.onnx", "onnx/decoder.onnx")):
    path = write_folder(remote.root / name)
    for file in (*files, "README.md", "notes/large.bin"):
        (path / file).parent.mkdir(exist_ok=True)
        (path / file).write_bytes(b"x")
    return path


def test_published_model_is_fetched_once_and_opens(remote):
    published(remote)
    folder = find_model("someone/captioner")
    assert folder == hub.cached("someone/captioner")
    assert ModelFolder.open(folder).onnx_file("encoder").is_file()
    assert not (folder / "README.md").exists() and not (folder / "notes").exists()
    remote.asked.clear()
    remote.down = ConnectionError("no network")
    assert find_model("someone/captioner") == folder
    assert remote.asked == []


def test_afterwards_the_hub_library_is_not_even_imported(remote):
    published(remote)
    find_model("someone/captioner")
    code = (
        "import sys; from rucap.model.folder import find_model; find_model('someone/captioner');"
        "print([name for name in ('huggingface_hub', 'torch', 'filelock', 'rucap.importing') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_offline_says_what_to_fetch_and_where_to_put_it(remote):
    remote.down = ConnectionError("Failed to resolve 'huggingface.co'")
    with pytest.raises(
        ModelError, match=r"someone/captioner: no such folder here.*huggingface\.co.*hf download"
    ) as told:
        find_model("someone/captioner")
    assert "\n" not in str(told.value)
    assert not hub.cached("someone/captioner").exists()


def test_download_that_was_cut_is_no_model_and_goes_on(remote):
    path = published(remote, files=("onnx/encoder.onnx",))
    with pytest.raises(ModelError, match="not all of its files"):
        find_model("someone/captioner")
    assert not hub.cached("someone/captioner").exists()
    (path / "onnx" / "decoder.onnx").write_bytes(b"x")
    assert (find_model("someone/captioner") / "onnx" / "decoder.onnx").is_file()


def test_repository_that_is_no_captioner(remote):
    (remote.root / "someone/bert").mkdir(parents=True)
    (remote.root / "someone/bert/config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match=r"someone/bert: not a captioner of rucap's .*rucap models import"):
        find_model("someone/bert")
    assert all(patterns == ("config.json",) for _, patterns in remote.asked)


def test_two_at_once_fetch_it_once(remote):
    published(remote)
    found = []
    threads = [threading.Thread(target=lambda: found.append(hub.fetch("someone/captioner"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [hub.cached("someone/captioner")] * 4
    assert len(remote.asked) == 2  # one for the configuration, one for the rest


def test_cache_that_cannot_be_written(remote, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RUCAP_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot be written: .*RUCAP_CACHE"):
        find_model("someone/captioner")


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("RUCAP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert hub.cache_folder() == tmp_path / "xdg" / "rucap"
    monkeypatch.setenv("RUCAP_CACHE", "~/kept")
    assert hub.cache_folder() == Path("~/kept").expanduser()


@pytest.fixture
def parts(remote):
    """The parts of clip-rugpt3-small, tiny, under their ids."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from clipcap import write_checkpoint, write_language_model, write_vision

    torch.manual_seed(0)
    row = named_models()["clip-rugpt3-small"]
    gpt = write_language_model(remote.root / row.sources["language model"], old_tokenizer=True)
    write_vision(remote.root / row.sources["vision encoder"])
    (remote.root / row.sources["captioner weights"]).mkdir(parents=True)
    write_checkpoint(remote.root / row.sources["captioner weights"] / row.checkpoint, gpt, old_buffers=True)
    (remote.root / row.sources["language model"] / "pytorch_model.bin").write_bytes(b"large, and not needed")
    return row


def test_named_model_is_put_together_from_its_parts(remote, parts):
    from rucap import Captioner

    captioner = Captioner("clip-rugpt3-small")
    folder = hub.cached("clip-rugpt3-small")
    assert captioner.folder.path == folder
    assert captioner.config.name == "clip-rugpt3-small"
    assert not list(folder.parent.glob("*.making*"))
    language_model = remote.cache / parts.sources["language model"].replace("/", "--")
    assert not (language_model / "pytorch_model.bin").exists()
    remote.asked.clear()
    remote.down = ConnectionError("no network")
    assert Captioner("clip-rugpt3-small").folder.path == folder
    assert remote.asked == []


def test_named_model_captions_and_answers(remote, parts):
    import numpy as np

    from rucap import Captioner
    from rucap.engines.onnx import OnnxEngine

    captioner = Captioner("clip-rugpt3-small")
    assert isinstance(captioner.engine, OnnxEngine)
    photo = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    assert isinstance(captioner.caption(photo).text, str)
    assert isinstance(captioner.answer(photo, "Кто на фото?").text, str)
    exact = Captioner("clip-rugpt3-small", precision="float32").caption(photo)
    same = Captioner("clip-rugpt3-small", engine="torch").caption(photo)
    assert exact.text == same.text
    assert exact.log_probability == pytest.approx(same.log_probability, abs=1e-3)


def test_named_model_is_ready_to_run_without_torch(remote, parts):
    find_model(parts.name)
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; import numpy as np, rucap;"
        "print(type(rucap.Captioner('clip-rugpt3-small').caption(np.zeros((40, 60, 3), np.uint8))).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Caption"


def test_import_by_the_command_line_writes_graphs(remote, parts, tmp_path):
    from rucap.cli.app import run

    checkpoint = remote.root / parts.sources["captioner weights"] / parts.checkpoint
    language_model, vision = (str(remote.root / parts.sources[part]) for part in ("language model", "vision encoder"))
    out = tmp_path / "out"
    assert run(["models", "import", str(checkpoint), "--lm", language_model, "--vision", vision, str(out)]) == 0
    folder = ModelFolder.open(out)
    for precision in ("int8", "float32"):
        assert folder.onnx_file("encoder", precision).is_file() and folder.onnx_file("decoder", precision).is_file()


def test_named_model_offline(remote, parts):
    remote.down = ConnectionError("Failed to resolve 'huggingface.co'")
    with pytest.raises(ModelError) as told:
        find_model("clip-rugpt3-small")
    for said in (*parts.sources.values(), parts.checkpoint, "rucap models import", str(hub.cached(parts.name))):
        assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_what_a_killed_run_left_is_done_again(remote, parts):
    making = hub.cached(parts.name).with_name(parts.name + ".making")
    making.mkdir(parents=True)
    (making / "config.json").write_text("{")
    assert ModelFolder.open(find_model(parts.name)).config.name == parts.name


def test_named_model_without_torch(remote, monkeypatch):
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"rucap\[train\]"):
        find_model("clip-rugpt3-small")
    assert remote.asked == []


def test_processes_take_turns(remote, parts, tmp_path):
    """A second process waits for the lock, finds the model made, and asks the hub for nothing."""
    from filelock import FileLock

    folder = hub.cached(parts.name)
    folder.parent.mkdir(parents=True)
    code = "import sys; from rucap.model.hub import fetch; print(fetch(sys.argv[1]))"
    with FileLock(folder.with_name(folder.name + ".lock")):
        offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "nothing")}
        waiting = subprocess.Popen(
            [sys.executable, "-c", code, parts.name], env=offline, stdout=subprocess.PIPE, text=True
        )
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(3)
        folder.mkdir()
    assert waiting.communicate(timeout=60)[0].strip() == str(folder)
