"""A whole training run: data, tokenizer, features, stages, and a model folder at the end.

Every part is kept in the output folder as it is made, and a run that is started again goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from rucap.data.records import Record, read_records
from rucap.errors import DataError
from rucap.model.config import write_config
from rucap.model.hints import Hints
from rucap.model.sentence import feeding_form
from rucap.model.tokenizer import Tokenizer
from rucap.network.prefix_captioner import PrefixCaptioner, fresh_network, load_weights, save_weights
from rucap.training.config import StageConfig, TrainingConfig
from rucap.training.dev import Dev, dev_scores
from rucap.training.examples import Example, Examples, Photo, Writer
from rucap.training.features import FeatureCache, digest_of
from rucap.training.likelihood import likelihood_loss
from rucap.training.loop import LossFunction, run_stage
from rucap.training.progress import Progress
from rucap.training.reward import prepare_reward, reward_loss
from rucap.training.vocabulary import train_tokenizer

HINT_REPEATS = 3
"""How often the labels' names count among the texts that the tokenizer is learnt from."""


def train(config: TrainingConfig, base: Path, output: Path, cache_folder: Path, report: Progress) -> Path:
    """Trains a model into the folder `output` and returns it. `base` is where relative paths of data start.

    Raises DataError when a data set cannot be used.
    """
    output.mkdir(parents=True, exist_ok=True)
    sources = {Path(name).stem: read_records(base / name) for name in config.data}
    writer = _writer(config, base, output, [r for records in sources.values() for r in records if r.split == "train"])
    torch.manual_seed(config.seed)
    network = fresh_network(config.model)
    run_stages(network, writer, config, sources, output, cache_folder, report)
    save_weights(network, output / "model.safetensors", torch.float16)
    return output


def run_stages(
    network: PrefixCaptioner,
    writer: Writer,
    config: TrainingConfig,
    sources: dict[str, list[Record]],
    output: Path,
    cache_folder: Path,
    report: Progress,
) -> None:
    """Runs or resumes all stages on the records of each source; the network holds the last stage's best weights."""
    cache = FeatureCache(cache_folder, network.encoder, config.model.encoder.preprocessing, config.views)
    photos = {name: [Photo(digest_of(r.image), r) for r in records] for name, records in sources.items()}
    training = _cached(cache, photos, "train", config.views, report)
    dev = {name: _cached(cache, {name: rows}, "dev", 1, report)[: config.dev_photos] for name, rows in photos.items()}
    watched = Dev({name: rows for name, rows in dev.items() if rows}, cache, writer)
    for number, stage in enumerate(config.stages, start=1):
        folder = output / f"stage-{number}-{stage.kind}"
        if not (folder / "done").exists():
            examples = Examples(training, cache, writer, stage, config.views, config.seed + number)
            loss = _loss(network, examples, stage, config)
            run_stage(
                network,
                examples,
                loss,
                partial(dev_scores, network, watched),
                stage,
                folder,
                config.evaluations,
                report,
            )
            (folder / "done").touch()
        load_weights(network, folder / "best.safetensors")


def _writer(config: TrainingConfig, base: Path, output: Path, records: Sequence[Record]) -> Writer:
    """The tokenizer and hints of the model folder, made if they are not there yet."""
    write_config(config.model, output / "config.json")
    hints = None
    if config.model.hints:
        shutil.copyfile(base / config.labels, output / config.model.hints.file)
        hints = Hints.from_file(output / config.model.hints.file, config.model.hints)
    path = output / "tokenizer.json"
    if not path.exists():
        texts = [feeding_form(text) for record in records for text in _texts(record)]
        names = [name for label in hints.labels for name in label] * HINT_REPEATS if hints else []
        partial_path = path.with_name(path.name + ".part")
        train_tokenizer([*texts, *names], config.vocabulary).save(str(partial_path))
        partial_path.replace(path)
    tokenizer = Tokenizer.from_file(path)
    if len(tokenizer) > config.model.language_model.vocabulary:
        raise DataError(f"{path}: {len(tokenizer)} tokens are too many; raise `vocabulary`, there and in the model")
    return Writer(tokenizer, config.model.prompts, hints)


def _texts(record: Record) -> list[str]:
    return [*record.captions, *(text for q in record.questions for text in (q.question, q.answer))]


def _cached(
    cache: FeatureCache, photos: dict[str, list[Photo]], split: str, views: int, report: Progress
) -> list[Photo]:
    """The photos of a split whose views are all cached, after caching what was missing."""
    chosen = [photo for rows in photos.values() for photo in rows if photo.record.split == split]
    missing = [p for p in chosen if not all(cache.has(p.digest, view) for view in range(views))]
    if missing:
        report.say(f"{split}: encoding {len(missing)} photos, {views} views")
        done = 0

        def progress(count: int) -> None:
            nonlocal done
            done += count
            if done % 1024 < count:
                report.say(f"{split}: {done}/{len(missing)} photos encoded")

        failures = cache.fill([(p.digest, p.record.image) for p in missing], views, progress)
        for reason in failures.values():
            report.say(f"left out: {reason}")
    kept = [p for p in chosen if all(cache.has(p.digest, view) for view in range(views))]
    if split == "train" and not kept:
        raise DataError("no training photo could be opened; see the reasons above")
    return kept


def _loss(network: PrefixCaptioner, examples: Examples, stage: StageConfig, config: TrainingConfig) -> LossFunction:
    longest = config.model.language_model.positions - config.model.mapper.prefix_length
    if stage.kind == "reward":
        reward = prepare_reward(network, examples.photos, examples.writer, stage)
        return lambda batch, step: reward_loss(network, batch, reward, step, longest)

    def loss(batch: Sequence[Example], step: int) -> torch.Tensor:
        return likelihood_loss(network, batch, stage.label_smoothing, longest)

    return loss
