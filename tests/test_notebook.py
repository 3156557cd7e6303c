"""The notebook: in order as a file, and run from the first cell to the last on the bundled model."""

import json
import re
from pathlib import Path

import pytest

from rucap.model.folder import bundled

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "rucap.ipynb"
CELL_SECONDS = 180
SAID = {
    "display(Image": r"'[А-ЯЁ][а-яё]+ .+'$",
    "prompts.details": r"(?s)short .+normal .+detailed .+На фото ",
    "num_captions=4": r"^( *-[\d.]+ [А-ЯЁ].+\n){4}$",
    "questions = [": r"^(.+\? — .+\n){3}$",
    "captioner.classify(": r"^ *\d+% кошка\n( *\d+% .+\n){3}$",
    "captioner.score(": r"^( *-[\d.]+ .+\n){2}$",
    'errors="return"': r"(?s)astronaut\.jpg +[А-ЯЁ].+broken\.jpg +photos/broken\.jpg: not an image",
    "figures = []": r"(?s)(<img src=\"data:image/jpeg;base64,.+<figcaption>[А-ЯЁ].+){12}",
    "few_steps = ": r"24 steps",
    "student = ": r"(?s)(→  Экспонат музея: .+){3}",
}
"""A piece of a cell -> what that cell says."""


def sources(kind):
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def test_it_opens_in_colab():
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert notebook["metadata"]["colab"]["name"] == NOTEBOOK.name
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_it_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_what_is_installed_is_asked_for_first():
    for source in sources("code"):
        for before, install in re.findall(r"(.*)\n( *)%pip install", source):
            assert before.startswith("if ") and "find_spec" in before and install


@pytest.mark.slow
@pytest.mark.skipif(bundled("tiny") is None, reason="needs the bundled model")
def test_it_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    found = {"".join(cell["source"]): _said(cell) for cell in notebook.cells if cell["cell_type"] == "code"}
    for part, pattern in SAID.items():
        (text,) = (text for source, text in found.items() if part in source)
        assert re.search(pattern, text), (part, text)
    assert (tmp_path / "museum-model" / "model.safetensors").is_file()


def _said(cell):
    """What a cell printed, showed and ended with."""
    data = [output.get("data", {}) for output in cell["outputs"]]
    texts = [output.get("text", "") for output in cell["outputs"]]
    return "".join([*texts, *(each.get("text/html") or each.get("text/plain", "") for each in data)])
