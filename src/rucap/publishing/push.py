"""The files of a repository, written to a folder, and sent to the hub from one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rucap.errors import ModelError, OptionError, RucapError
from rucap.model.folder import HUB_ID, TEXT_TOWER, ModelFolder
from rucap.publishing.card import model_card
from rucap.publishing.facts import card_facts

CARD = "README.md"
PAPERS = ("LICENSE", "NOTICE")
STALE = ["onnx/*", "model.safetensors", TEXT_TOWER]
"""Removed from the repository where this version of the model lacks them: graphs of other weights must not stay."""


def write_upload(folder: Path, hub_id: str, output: Path) -> Path:
    """Writes exactly the files that `push` would upload to the new folder `output`, and returns it.

    A README.md in `folder` is taken as it is, so that a card can be edited and pushed. Raises ModelError for a folder
    that is no model and for an `output` that exists, OptionError for a malformed hub id.
    """
    _check_hub_id(hub_id)
    if output.exists():
        raise ModelError(f"{output}: is there already; give another folder, or remove it")
    model = ModelFolder.open(folder)
    partial = output.with_name(output.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    _write(model, hub_id, partial)
    partial.replace(output)
    return output


def push(folder: Path, hub_id: str, *, private: bool = False) -> str:
    """Creates the repository where there is none, uploads the model, and returns its address.

    `private`: the repository is made so; one that is public already is an error. Raises ModelError and OptionError as
    `write_upload` does, RucapError when the user is not logged in or the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    _check_hub_id(hub_id)
    model = ModelFolder.open(folder)
    if get_token() is None:
        raise RucapError(f"{hub_id}: not logged in to the hub; run `hf auth login`, or set HF_TOKEN")
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "upload"
        _write(model, hub_id, files)
        with _hub_errors(hub_id):
            api = HfApi()
            address = str(api.create_repo(hub_id, private=private or None, exist_ok=True))
            if private and not api.model_info(hub_id).private:
                raise RucapError(f"{hub_id}: is there already, and public; make it private in its settings first")
            api.upload_folder(
                repo_id=hub_id,
                folder_path=files,
                commit_message=f"Upload {model.config.name} with rucap",
                delete_patterns=STALE,
            )
    return address


def _check_hub_id(hub_id: str) -> None:
    if not HUB_ID.fullmatch(hub_id):
        raise OptionError(f"{hub_id!r} is no hub id: give the user's or organisation's name, /, the model's name")


def _write(model: ModelFolder, hub_id: str, place: Path) -> None:
    names, graphs = _model_files(model)
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model.path / name, place / name)
    if CARD not in names:
        (place / CARD).write_text(model_card(model.config, hub_id, graphs), encoding="utf-8")


def _model_files(model: ModelFolder) -> tuple[list[str], bool]:
    """The files that make the model up, checkpoints and logs of its training left out; whether it has all graphs."""
    config = model.config
    names = ["config.json", *config.files]
    weights = (model.path / "model.safetensors").is_file()
    try:
        graphs = all(model.onnx_file(part).is_file() for part in ("encoder", "decoder"))
    except ModelError:
        graphs = False
    if not graphs and not weights:
        raise ModelError(f"{model.path}: holds no weights; a model has model.safetensors, or graphs in onnx/")
    names += ["model.safetensors"] if weights else []
    names += [TEXT_TOWER] if model.text_tower_file else []
    names += sorted(f"onnx/{path.name}" for path in (model.path / "onnx").glob("*.onnx*") if path.suffix != ".part")
    licence = card_facts(config).licence_link
    own = [CARD, *PAPERS, *([licence] if licence and Path(licence).name == licence else [])]
    return [*names, *(name for name in dict.fromkeys(own) if (model.path / name).is_file())], graphs


@contextmanager
def _hub_errors(hub_id: str) -> Iterator[None]:
    """Whatever the hub's library and its HTTP client raise, as one line with the remedy."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except (RucapError, KeyboardInterrupt):
        raise
    except HFValidationError as error:
        raise OptionError(f"{hub_id!r} is no hub id: {_first_line(error)}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise RucapError(
                f"{hub_id}: the hub refuses ({status}); run `hf auth login` with a token that may write there"
            ) from None
        reason = error.server_message or _first_line(error)
        raise RucapError(f"{hub_id}: the hub answers {status} ({reason}); check the name, or try again later") from None
    except Exception as error:  # a dozen kinds, of whichever HTTP client the library has
        raise RucapError(
            f"{hub_id}: the hub cannot be reached ({_first_line(error)}); write the files with --dry-run OUT, and send"
            f" them from a machine that can: hf upload {hub_id} OUT"
        ) from None


def _first_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return next((line.rstrip(".") for line in lines if line), type(error).__name__)
