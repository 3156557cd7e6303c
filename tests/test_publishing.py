"""Publishing: the card, the files, the upload to a hub that is played by the test, and the command."""

import re
import shutil
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.errors import OfflineModeIsEnabled
from PIL import Image

import rucap.captioner
from rucap.cli import messages
from rucap.cli.app import run
from rucap.errors import ModelError, OptionError, RucapError
from rucap.evaluation.metrics import AnswerScores, CaptionScores
from rucap.publishing import card, push, write_upload
from toy_model import SIZE, ToyEngine, write_folder

HUB_ID = "user/toy"
CARD = {
    "summary": "Игрушечная модель.",
    "licence": "other",
    "licence_name": "non-commercial",
    "licence_link": "TERMS.txt",
    "sees": ["собак", "кошек"],
    "misses": ["надписи"],
    "data": [
        {"name": "ruflickr8k", "about": "люди и собаки", "terms": "фото не для коммерции"},
        {"name": "other", "hub_id": "someone/photos"},
    ],
    "scores": [
        {"data": "ruflickr8k", "split": "test", "metric": "cider", "value": 61.25},
        {"data": "ruflickr8k", "split": "test", "metric": "bleu4", "value": 20},
        {"data": "ruphotos", "split": "test", "metric": "exact", "value": 44.0, "task": "open"},
        {"data": "ruphotos", "split": "test", "metric": "exact", "value": 77.0, "task": "yes_no"},
    ],
    "measured": "int8, три луча.",
    "sources": {"vision encoder": "openai/clip-vit-base-patch32", "captioner": "coco_prefix_latest.pt"},
    "tags": ["toy"],
}
GRAPHS = ["onnx/encoder.onnx", "onnx/decoder.onnx", "onnx/encoder.int8.onnx", "onnx/decoder.int8.onnx"]


def write_model(path, files=(*GRAPHS, "model.safetensors"), **changes):
    write_folder(path, **{"card": CARD} | changes)
    for name in files:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(name.encode() * 100)
    return path


@pytest.fixture
def model(tmp_path):
    path = write_model(tmp_path / "model")
    for name in ("TERMS.txt", "LICENSE", "train.log", "onnx/encoder.onnx.part", "stage-1-likelihood/checkpoint/a.bin"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("text")
    return path


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Hub:
    """What the hub was asked for, and what it holds."""

    def __init__(self, private=None, error=None):
        self.private, self.error, self.calls, self.files = private, error, [], {}

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        self.calls.append("create_repo")
        if self.error:
            raise self.error
        assert exist_ok
        self.private = bool(private) if self.private is None else self.private
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def model_info(self, repo_id):
        return SimpleNamespace(private=self.private)

    def upload_folder(self, *, repo_id, folder_path, commit_message, delete_patterns):
        self.calls.append("upload_folder")
        self.repository, self.removed = repo_id, delete_patterns
        self.files = contents(folder_path)


@pytest.fixture
def hub(monkeypatch):
    """Plays a hub: `hub(private=..., error=...)`; no test here reaches the network."""
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")

    def play(**state):
        played = Hub(**state)
        for name in ("create_repo", "model_info", "upload_folder"):

            def method(_, *args, name=name, **kwargs):
                return getattr(played, name)(*args, **kwargs)

            monkeypatch.setattr(huggingface_hub.HfApi, name, method)
        return played

    return play


def metadata(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_dry_run_writes_what_is_uploaded(model, tmp_path, hub):
    played = hub()
    assert push(model, HUB_ID) == "https://huggingface.co/user/toy"
    written = contents(write_upload(model, HUB_ID, tmp_path / "out"))
    assert written == played.files
    assert played.repository == HUB_ID
    names = ["config.json", "tokenizer.json", "labels.tsv", "model.safetensors", *GRAPHS]
    assert set(written) == {*names, "README.md", "TERMS.txt", "LICENSE"}
    assert all(written[name] == (model / name).read_bytes() for name in names)


def test_what_was_written_can_be_edited_and_pushed(model, tmp_path, hub):
    out = write_upload(model, HUB_ID, tmp_path / "out")
    (out / "README.md").write_text("---\nlanguage: ru\n---\n\nМоя карточка\n", encoding="utf-8")
    played = hub()
    push(out, HUB_ID)
    assert played.files == contents(out)


def test_files_of_other_weights_do_not_stay(model, hub):
    played = hub()
    push(model, HUB_ID)
    kept = huggingface_hub.utils.filter_repo_objects(
        [*GRAPHS, "model.safetensors", "photo.jpg"], ignore_patterns=played.removed
    )
    assert list(kept) == ["photo.jpg"]


def test_metadata(model, tmp_path):
    text = (write_upload(model, HUB_ID, tmp_path / "out") / "README.md").read_text("utf-8")
    found = metadata(text)
    index = found.pop("model-index")
    assert found == {
        "language": "ru",
        "license": "other",
        "license_name": "non-commercial",
        "license_link": "TERMS.txt",
        "library_name": "rucap",
        "pipeline_tag": "image-to-text",
        "tags": ["image-captioning", "visual-question-answering", "clipcap", "onnx", "toy"],
        "base_model": ["openai/clip-vit-base-patch32"],
        "datasets": ["someone/photos"],
    }
    assert [each["name"] for each in index] == ["toy"]
    results = ModelCard(text).data.eval_results
    assert [(r.task_type, r.dataset_name, r.metric_type, r.metric_value) for r in results] == [
        ("image-to-text", "ruflickr8k", "cider", 61.25),
        ("image-to-text", "ruflickr8k", "bleu4", 20.0),
        ("visual-question-answering", "ruphotos", "exact", 44.0),
        ("visual-question-answering", "ruphotos", "exact", 77.0),
    ]
    assert all(isinstance(result, EvalResult) and result.dataset_split == "test" for result in results)
    assert [result.dataset_config for result in results] == [None, None, "open", "yes_no"]


def test_the_card_says_what_the_model_s_author_said(model, tmp_path):
    text = (write_upload(model, HUB_ID, tmp_path / "out") / "README.md").read_text("utf-8")
    for said in ("Игрушечная модель.", "- собак", "- надписи", "фото не для коммерции", "int8, три луча."):
        assert said in text
    assert "| ruflickr8k, test | подписи | CIDEr-D | 61.25 |" in text
    assert "| ruphotos, test | ответы «да» и «нет» | exact match, % | 77 |" in text


@pytest.mark.parametrize("language", ["ru", "en"])
def test_what_was_not_said_is_not_in_the_card(tmp_path, language):
    model = write_model(tmp_path / "model", card={}, language=language)
    text = (write_upload(model, HUB_ID, tmp_path / "out") / "README.md").read_text("utf-8")
    assert set(metadata(text)) == {"language", "library_name", "pipeline_tag", "tags"}
    assert metadata(text)["language"] == language
    assert text.count("\n## ") == 2  # how to use it, what it is made of
    assert "None" not in text and "{" not in text.replace("{label}", "")
    assert bool(re.search("[а-я]", text)) == (language == "ru")


def test_every_score_of_the_evaluation_has_its_name():
    counts = {"photos", "words", "novel", "vocabulary", "questions"}
    scores = set(CaptionScores.__annotations__) | set(AnswerScores.__annotations__)
    assert set(card.METRICS) == scores - counts


def test_the_ten_lines_run_as_they_stand(model, tmp_path, monkeypatch, capsys):
    text = (write_upload(model, HUB_ID, tmp_path / "user" / "toy") / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()) == 10
    monkeypatch.chdir(tmp_path)  # where user/toy is a folder: the road of a hub id after its download

    class Engine(ToyEngine):
        def score(self, prefix, tokens, mask):
            return np.zeros((*tokens.shape, len(self.embeddings)), np.float32)

    monkeypatch.setattr(
        rucap.captioner, "load_engine", lambda folder, *_, **__: Engine(folder.config.language_model.vocabulary)
    )
    Image.new("RGB", (SIZE, SIZE), "orange").save("photo.jpg")
    exec(code, {})
    caption, *_, answer, label, first, second = capsys.readouterr().out.splitlines()
    assert 0 <= float(caption.rpartition(" ")[2]) <= 1
    assert answer and label in ("кошка", "собака")
    assert re.fullmatch(r"Кошка лежит -[\d.]+", first) and re.fullmatch(r"Собака бежит -[\d.]+", second)


def test_a_model_without_graphs_is_used_through_torch(tmp_path):
    model = write_model(tmp_path / "model", files=["model.safetensors"])
    out = write_upload(model, HUB_ID, tmp_path / "out")
    text = (out / "README.md").read_text("utf-8")
    assert 'Captioner("user/toy", engine="torch")' in text and '"rucap[train]"' in text
    assert "onnx" not in metadata(text)["tags"]


def test_a_model_of_graphs_alone(tmp_path):
    model = write_model(tmp_path / "model", files=GRAPHS[2:])
    out = write_upload(model, HUB_ID, tmp_path / "out")
    assert set(contents(out)) == {"README.md", "config.json", "tokenizer.json", "labels.tsv", *GRAPHS[2:]}


def test_no_model_no_upload(tmp_path, hub):
    played = hub()
    (tmp_path / "empty").mkdir()
    weightless = write_model(tmp_path / "weightless", files=GRAPHS[:1])
    broken = write_model(tmp_path / "broken", card={"scores": [{"data": "x", "split": "test", "metric": "cider"}]})
    for folder, said in [
        (tmp_path / "none", "no such folder"),
        (tmp_path / "empty", "config.json: no such file"),
        (weightless, "no weights"),
        (broken, "card.scores.* 'value' is missing"),
    ]:
        for publish in (push, lambda folder, hub_id: write_upload(folder, hub_id, tmp_path / "out")):
            with pytest.raises(ModelError, match=said):
                publish(folder, HUB_ID)
    assert played.calls == [] and not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_not_written_over(model):
    before = contents(model)
    with pytest.raises(ModelError, match="is there already"):
        write_upload(model, HUB_ID, model)
    assert contents(model) == before


@pytest.mark.parametrize("hub_id", ["toy", "a/b/c", "../toy", "user/toy space", "user/--toy.."])
def test_malformed_hub_ids(model, hub_id, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OptionError, match="no hub id"):
        push(model, hub_id)


def test_not_logged_in(model, hub, monkeypatch):
    played = hub()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(RucapError, match="hf auth login"):
        push(model, HUB_ID)
    assert played.calls == []


@pytest.fixture
def real_client(monkeypatch):
    """The hub library's own HTTP client, against a server on this machine that answers `status`; None: no server."""
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    servers = []

    def start(status):
        class Answer(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("X-Error-Message", "said the hub")
                self.end_headers()

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Answer)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        if status is None:
            server.server_close()
        else:
            servers.append(server)
            Thread(target=server.serve_forever, daemon=True).start()

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "said", "in_russian"),
    [
        (401, "refuses .401.*hf auth login", "хаб отказывает (401)"),
        (403, "refuses .403.*may write", "хаб отказывает (403)"),
        (400, "answers 400 .said the hub", "хаб отвечает 400"),
        (None, "cannot be reached .*--dry-run OUT.*hf upload user/toy OUT", "до хаба не достучаться"),
    ],
)
def test_the_hub_s_errors_are_one_line(model, real_client, monkeypatch, status, said, in_russian):
    real_client(status)
    with pytest.raises(RucapError, match=said) as raised:
        push(model, HUB_ID)
    assert "\n" not in str(raised.value)
    monkeypatch.setattr(messages, "language", lambda: "ru")
    assert in_russian in messages.translated(str(raised.value))


def test_offline_mode(model, hub):
    played = hub(error=OfflineModeIsEnabled("offline mode is enabled"))
    with pytest.raises(RucapError, match=r"cannot be reached \(offline mode is enabled\)"):
        push(model, HUB_ID)
    assert played.files == {}


def test_private(model, hub):
    played = hub()
    push(model, HUB_ID, private=True)
    assert played.private and played.files
    played = hub(private=False)
    with pytest.raises(RucapError, match="public"):
        push(model, HUB_ID, private=True)
    assert played.files == {}


def test_the_command(model, tmp_path, hub, capsys, monkeypatch):
    monkeypatch.setattr(messages, "language", lambda: "en")
    played = hub()
    out = tmp_path / "out"
    assert run(["push", str(model), HUB_ID, "--dry-run", str(out)]) == 0
    assert played.calls == []
    listed = [line.split(" MB  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert listed == sorted(contents(out))
    assert run(["push", str(model), HUB_ID, "--private"]) == 0
    assert capsys.readouterr().out == "https://huggingface.co/user/toy\n"
    assert played.private and played.files == contents(out)
    shutil.rmtree(model)
    assert run(["push", str(model), HUB_ID]) == 1
    assert run(["push", str(out), "toy"]) == 2
    assert run(["push", str(out)]) == 2
