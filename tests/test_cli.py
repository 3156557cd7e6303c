import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rucap.cli import messages, rows
from rucap.cli.app import run
from rucap.model.config import Calibration, GenerationDefaults
from toy_cli import use_toy_engine
from toy_model import SIZE, write_folder

COUNT = 5 * rows.BATCH + 3
TOY = [sys.executable, str(Path(__file__).with_name("toy_cli.py"))]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_folder(tmp_path_factory.mktemp("model") / "toy", caption_calibration=Calibration(1.0, 4.0)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(COUNT):
        pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed:03}.png")
    return folder


@pytest.fixture
def rucap(capsys, monkeypatch, model, photos):
    """`rucap COMMAND ...` in the photos' folder: its exit code, its rows and what it says on standard error."""
    monkeypatch.setattr(messages, "language", lambda: "en")
    monkeypatch.chdir(photos)
    use_toy_engine(monkeypatch.setattr)

    def call(command, *arguments):
        code = run([command, "--model", model, *map(str, arguments)])
        shown = capsys.readouterr()
        return code, [json.loads(line) for line in shown.out.splitlines()], shown.err

    return call


def test_a_line_of_json_for_each_photo_in_order(rucap, photos):
    code, found, said = rucap("caption", "002.png", photos)
    assert (code, said) == (0, "")
    assert [row["image"] for row in found] == ["002.png", *map(str, sorted(photos.iterdir()))]
    assert found[0] == {**found[3], "image": "002.png"}
    assert list(found[0]) == ["image", "caption", "confidence"]
    assert len({row["caption"] for row in found}) > 4
    assert all(0 <= row["confidence"] <= 1 for row in found)


def test_captions_are_the_captioner_s(rucap, model):
    from rucap.captioner import Captioner

    options = [
        "--begin",
        "Большая собака",
        "--ban",
        "лес",
        "--ban",
        "дом",
        "--max-words",
        "5",
        "--beams",
        "4",
        "-n",
        "3",
    ]
    _, (row,), _ = rucap("caption", *options, "--detail", "short", "000.png")
    expected = Captioner(model).caption(
        "000.png", begin="Большая собака", banned=["лес", "дом"], max_words=5, beams=4, num_captions=3, detail="short"
    )
    assert row["caption"] == expected.text
    assert [each["caption"] for each in row["alternatives"]] == [each.text for each in expected.alternatives]
    assert len(row["alternatives"]) == 2
    drawn = Captioner(model).caption("000.png", temperature=1.5, top_p=0.9, top_k=7, seed=3, min_words=2)
    options = ["--temperature", "1.5", "--top-p", "0.9", "--top-k", "7", "--seed", "3", "--min-words", "2"]
    assert rucap("caption", *options, "000.png")[1][0]["caption"] == drawn.text


def test_stop_original_is_the_captioner_s(rucap, tmp_path):
    from rucap.captioner import Captioner

    original = write_folder(tmp_path / "toy", generation=GenerationDefaults(original_stop=""))
    _, (row,), _ = rucap("caption", "--model", original, "--stop", "original", "000.png")
    assert row["caption"] == Captioner(original).caption("000.png", stop="original").text
    assert row["caption"] != rucap("caption", "--model", original, "000.png")[1][0]["caption"]


def test_what_failed_is_a_row_and_exit_code_1(rucap, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not a photo")
    code, found, _ = rucap("caption", "000.png", tmp_path / "broken.jpg", "missing.jpg", "001.png")
    assert code == 1
    assert [sorted(row) == ["error", "image"] for row in found] == [False, True, True, False]
    assert "broken.jpg: not an image" in found[1]["error"]
    assert found[2] == {"image": "missing.jpg", "error": "missing.jpg: no such file; check the path"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("caption", "PHOTO"),
        ("caption --beams many 000.png", "--beams"),
        ("caption --beems 3 000.png", "--beems"),
        ("caption --detail long 000.png", "detailed"),
        ("caption --beams 3 --temperature 1 000.png", "sampling does not go with 3 beams"),
        ("caption --stop original 000.png", "this model has no original"),
        ("caption --output out.txt 000.png", ".jsonl or a .csv"),
        ("ask 000.png", "--from"),
        ("ask 000.png Где? --from q.jsonl", "--from"),
        ("ask --min-confidence 0.5 000.png Где?", "does not say how sure"),
        ("classify 000.png", "--label"),
        ("classify --label кот --form фото 000.png", "form"),
        ("train photos.jsonl", "--from MODEL"),
        ("train --from tiny config.json", "--from MODEL"),
        ("coption 000.png", "caption"),
    ],
)
def test_bad_usage_is_exit_code_2(rucap, model, capsys, arguments, said):
    command, *rest = arguments.split()
    options = ["--model", model] if command in ("caption", "ask", "classify") else []
    assert run([command, *options, *rest]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and shown.out == ""
    assert "Traceback" not in shown.err


def test_a_missing_model_is_one_line(capsys):
    assert run(["caption", "--model", "no-such-model", "a.jpg"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_unsure_captions_are_left_out(rucap):
    _, found, _ = rucap("caption", ".")
    confidences = sorted({row["confidence"] for row in found})
    _, limit = max((b - a, (a + b) / 2) for a, b in itertools.pairwise(confidences))
    code, kept, _ = rucap("caption", "--min-confidence", limit, ".")
    assert code == 0
    for row, all_ in zip(kept, found, strict=True):
        assert row == (all_ if all_["confidence"] >= limit else {**all_, "caption": None})
    assert 0 < sum(row["caption"] is None for row in kept) < len(kept)


def test_questions(rucap):
    code, (row,), _ = rucap("ask", "000.png", "Что это?")
    assert code == 0
    assert list(row) == ["image", "question", "answer", "confidence"]
    assert row["answer"]
    code, (row,), _ = rucap("ask", "000.png", "What is it?")
    assert code == 1 and "not in Russian" in row["error"]


def test_questions_from_a_file(rucap, photos, tmp_path):
    lines = [
        {"id": 1, "image": str(photos / "000.png"), "question": "Что это?"},
        {"image": str(photos / "000.png"), "question": ""},
        {"image": "missing.png", "question": "Где собака?"},
        {"question": "Где собака?"},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    code, found, _ = rucap("ask", "--from", tmp_path / "q.jsonl")
    assert code == 1
    assert found[0] == {"id": 1, **rucap("ask", photos / "000.png", "Что это?")[1][0]}
    assert "empty" in found[1]["error"] and "no such file" in found[2]["error"] and "q.jsonl:4" in found[3]["error"]
    assert found[2]["image"] == "missing.png"
    assert rucap("ask", "--from", tmp_path / "q.jsonl", "--output", tmp_path / "a.jsonl")[0] == 1
    assert rucap("ask", "--from", tmp_path / "q.jsonl", "--output", tmp_path / "a.jsonl")[2].count("1 were there") == 1


def test_labels(rucap):
    code, (row,), _ = rucap("classify", "--label", "собака", "--label", "кошка", "--form", "это {label}", "000.png")
    assert code == 0
    assert sorted(each["label"] for each in row["labels"]) == ["кошка", "собака"]
    assert {"label": row["label"], "probability": row["probability"]} == row["labels"][0]
    assert row["labels"][0]["probability"] >= row["labels"][1]["probability"]
    labels = ["--label", "собака", "--label", "кошка", "--form", "это {label}"]
    assert rucap("classify", *labels, "--method", "likelihood", "000.png")[1] == [row]
    code, _, said = rucap("classify", *labels, "--method", "similarity", "000.png")
    assert code == 1 and "no text tower" in said


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_output_goes_on(rucap, photos, tmp_path, name):
    code, found, said = rucap("caption", "000.png", "001.png", "late.png", "--output", tmp_path / name)
    assert (code, found) == (1, []) and "3 rows written, 1 of them with an error" in said
    (photos / "late.png").write_bytes((photos / "005.png").read_bytes())
    try:
        code, _, said = rucap("caption", "000.png", "001.png", "late.png", "002.png", "--output", tmp_path / name)
    finally:
        (photos / "late.png").unlink()
    assert code == 0 and "2 rows written, 0 of them with an error; 2 were there" in said
    assert rucap("caption", "000.png", "002.png", "--output", tmp_path / name)[2].count("0 rows written") == 1
    text = (tmp_path / name).read_text("utf-8")
    assert [text.count(f'"{image}"') for image in ("000.png", "001.png", "late.png", "002.png")] == [1, 1, 1, 1]
    assert "no such file" not in text


def test_a_killed_run_loses_only_the_batches_in_hand(model, photos, tmp_path):
    whole = tmp_path / "whole.jsonl"
    command = [*TOY, "caption", "--model", model, str(photos), "--output"]
    subprocess.run([*command, str(whole)], check=True)
    output = tmp_path / "killed.jsonl"
    process = subprocess.Popen([*command, str(output)], env={**os.environ, "TOY_SECONDS": "0.7"})
    deadline = time.monotonic() + 60
    while process.poll() is None and (not output.exists() or not output.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    written = output.read_text("utf-8").splitlines()
    assert len(written) >= rows.BATCH
    assert written == whole.read_text("utf-8").splitlines()[: len(written)]
    subprocess.run([*command, str(output)], check=True)
    assert output.read_bytes() == whole.read_bytes()


def test_a_reader_that_leaves_and_an_interrupt_leave_no_traceback(model, photos):
    slow = {**os.environ, "TOY_SECONDS": "0.5", "LC_ALL": "C.UTF-8"}
    command = [*TOY, "caption", "--model", model, str(photos)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=slow, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline().startswith('{"image"')
        process.stdout.close()
        assert process.stderr.read() == ""
    # A test run in the background has the signal ignored, and its children would inherit that.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, env=slow, stdout=pipe, stderr=pipe, text=True, **heeding) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().strip() == "Stopped."
    assert process.returncode == 130


def on_a_terminal(command, environment):
    """What a command shows where both its standard output and error are a terminal, and its exit code."""
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    while True:
        try:
            shown += os.read(main, 1 << 16)
        except OSError:  # Linux's way to say that the other side is closed
            break
    os.close(main)
    return shown.decode("utf-8").replace("\r\n", "\n"), process.wait()


def test_a_person_gets_text(rucap, model, photos):
    _, (first, second), _ = rucap("caption", "000.png", "001.png")
    environment = {**os.environ, "LC_ALL": "ru_RU.UTF-8", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    command = [*TOY, "caption", "--model", model]
    assert on_a_terminal([*command, "000.png"], environment) == (first["caption"] + "\n", 0)
    shown, code = on_a_terminal([*command, "000.png", "001.png", "no.jpg"], environment)
    assert code == 1
    assert f"000.png: {first['caption']}\n001.png: {second['caption']}\n" in shown
    assert "Ошибка: no.jpg: нет такого файла; проверьте путь" in shown
    shown, code = on_a_terminal([*command, "."], environment)
    assert code == 0
    assert f"{COUNT}/{COUNT}" in shown  # the bar
    assert shown.count(".png: ") == COUNT


def test_models(capsys):
    assert run(["models"]) == 0
    found = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["tiny"]["sources"] == {} and found["clip-rugpt3-small"]["megabytes"] > 100


def test_version_and_help(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rucap 0.")
    assert run(["--help"]) == 0
    assert run([]) == 2


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from rucap.cli.app import run; run(['caption', '--help']); heavy = {'numpy', 'PIL', 'torch',"
        " 'onnxruntime', 'transformers', 'rich', 'tokenizers', 'huggingface_hub', 'pydantic', 'concurrent.futures'};"
        " print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"


def test_captioning_imports_neither_torch_nor_rich(model, photos):
    code = (
        "import sys, toy_cli; toy_cli.use_toy_engine(); from rucap.cli.app import run;"
        f" run(['caption', '--model', {model!r}, {str(photos)!r}]);"
        " print(sorted({'torch', 'transformers', 'rich', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=Path(__file__).parent, check=True)
    assert done.stdout.decode("utf-8").splitlines()[-1] == "[]"


def test_a_missing_extra_is_one_line():
    code = "import sys; sys.modules['torch'] = None; from rucap.cli.app import run; sys.exit(run(['train', 'c.json']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "rucap[train]"' in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture
def data(photos, tmp_path):
    splits = ["train"] * 4 + ["test"] * 3
    texts = [
        {"captions": ["Собака бежит", "Рыжая собака"], "questions": [{"question": "Кто это?", "answer": "собака"}]},
        {"captions": ["Кошка спит на диване"], "questions": [{"question": "Это кошка?", "answer": "да"}]},
    ]
    lines = [{"image": str(photos / f"{n:03}.png"), "split": split, **texts[n % 2]} for n, split in enumerate(splits)]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return path


def test_evaluate(model, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(messages, "language", lambda: "en")
    use_toy_engine(monkeypatch.setattr)
    assert run(["evaluate", model, str(data), "--json", "--report", str(tmp_path / "page.html")]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert list(scores["captions"]) == ["model", "nearest_neighbour", "most_frequent"]
    assert scores["captions"]["model"]["photos"] == 3
    assert (tmp_path / "page.html").stat().st_size > 1000
    assert run(["evaluate", model, str(data), "--limit", "2", "--no-neighbour", "--markdown"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("| whose") and "nearest" not in shown and "|      2 |" in shown
    assert run(["evaluate", model, str(data), "--split", "dev"]) == 1
    assert "no photo of the split 'dev'" in capsys.readouterr().err


def test_train(model, data, tmp_path, monkeypatch, capsys):
    config, finetune, whole = (
        importlib.import_module(f"rucap.training.{name}") for name in ("config", "finetune", "run")
    )
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUCAP_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(config, "read_training_config", lambda path: ("read", path))
    monkeypatch.setattr(whole, "train", lambda *arguments: calls.append(arguments[:4]))
    monkeypatch.setattr(finetune, "finetune", lambda *arguments: calls.append(arguments[:4]))
    assert run(["train", "some/shop.json"]) == 0
    assert run(["train", "--from", model, str(data), "--output", "mine", "--cache", "here"]) == 0
    features = tmp_path / "kept" / "features"
    assert calls == [
        (("read", Path("some/shop.json")), Path("some"), Path("shop-model"), features),
        (Path(model), data, Path("mine"), Path("here")),
    ]
    assert "rucap export mine" in capsys.readouterr().err
