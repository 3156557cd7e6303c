"""Fine-tuning: a trained model goes on learning from a user's own photos."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from rucap.data.records import Record, read_records
from rucap.errors import DataError
from rucap.model.config import write_config
from rucap.model.folder import TEXT_TOWER, ModelFolder
from rucap.network.prefix_captioner import load_network, save_weights
from rucap.training.config import StageConfig, TrainingConfig
from rucap.training.examples import Writer
from rucap.training.progress import Progress
from rucap.training.run import run_stages

STAGE = StageConfig(
    kind="likelihood",
    epochs=4,
    batch=16,
    learning_rate=1e-4,
    warmup=0.1,
    dropout=0.1,
    plain_prompt=0.8,
    average=0.98,
)
"""Gentle, for a few hundred photos: see docs/experiments.md for what stronger settings do."""
VIEWS = 2
DEV_SHARE = 10
"""One photo in so many watches the training where the data names no dev split."""
FEWEST = 10


def finetune(
    source: Path,
    data: Path,
    output: Path,
    cache_folder: Path,
    report: Progress,
    stage: StageConfig = STAGE,
    views: int = VIEWS,
) -> Path:
    """Trains the model of the folder `source` further on `data` (jsonl) into the folder `output`, and returns it.

    Raises DataError for fewer than ten photos, ModelError when `source` lacks the weights that training starts from.
    """
    folder = ModelFolder.open(source)
    records = with_dev(read_records(data), data)
    network = load_network(folder.config, folder.weights_file)
    output.mkdir(parents=True, exist_ok=True)
    # Confidence, scores and what the model sees were measured on other weights.
    kept = {name: fact for name, fact in folder.config.card.items() if name in ("licence", "data", "sources")}
    model = replace(folder.config, caption_calibration=None, answer_calibration=None, card=kept)
    write_config(model, output / "config.json")
    for name in (*model.files, *([TEXT_TOWER] if folder.text_tower_file else [])):
        shutil.copyfile(source / name, output / name)
    config = TrainingConfig((str(data),), model, (stage,), views=views, evaluations=6)
    writer = Writer(folder.tokenizer, model.prompts, folder.hints)
    run_stages(network, writer, config, {data.stem: records}, output, cache_folder, report)
    save_weights(network, output / "model.safetensors", torch.float16)
    return output


def with_dev(records: list[Record], data: Path) -> list[Record]:
    """The records, every tenth of which is moved to the dev split where there is none. Raises DataError if too few."""
    training = [record for record in records if record.split == "train"]
    if len(training) < FEWEST:
        raise DataError(f"{data}: {len(training)} training photos are too few to learn from; give {FEWEST} or more")
    if any(record.split == "dev" for record in records):
        return records
    moved = {id(record) for record in training[::DEV_SHARE]}
    return [replace(record, split="dev") if id(record) in moved else record for record in records]
