"""`rucap train`, `evaluate`, `export` and `calibrate`: the commands that need the `train` extra."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rucap.cli.messages import language, say
from rucap.cli.options import COUNT, open_captioner, option, workshop
from rucap.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from rucap.captioner import Captioner
    from rucap.data.records import Record
    from rucap.evaluation.results import Evaluation

_FOLDER = click.Path(path_type=Path)


@click.command(help=say("train"), options_metavar=say("metavar.options"))
@click.argument("config", type=_FOLDER, metavar=say("metavar.config"))
@option("--from", "base", metavar=say("metavar.model"))
@option("--output", "trained", type=_FOLDER, metavar=say("metavar.folder"))
@option("--cache", "cache", type=_FOLDER, metavar=say("metavar.folder"))
def train(config: Path, base: str | None, trained: Path | None, cache: Path | None) -> int:
    """Trains a model, or an existing one further."""
    if (base is not None) != (config.suffix == ".jsonl"):
        raise click.UsageError(say("train.usage"))
    output = trained or Path(f"{config.stem}-model")
    with workshop():
        from rucap.model.hub import cache_folder
        from rucap.training.progress import Progress

        cache = cache or cache_folder() / "features"
        if base is not None:
            from rucap.model.folder import find_model
            from rucap.training.finetune import finetune

            finetune(find_model(base), config, output, cache, Progress())
        else:
            from rucap.training.config import read_training_config
            from rucap.training.run import train as run_training

            run_training(read_training_config(config), config.parent, output, cache, Progress())
    print(say("train.done", folder=output), file=sys.stderr)
    return 0


@click.command(help=say("evaluate"), options_metavar=say("metavar.options"))
@click.argument("model", metavar=say("metavar.model"))
@click.argument("data", type=_FOLDER, metavar=say("metavar.data"))
@option("--split", "split", default="test", show_default=True, metavar=say("metavar.split"))
@option("--report", "report", type=_FOLDER, metavar=say("metavar.report"))
@option("--limit", "limit", type=COUNT, metavar="N")
@option("--neighbour/--no-neighbour", "neighbour", default=True)
@option("--precision", "precision", type=click.Choice(["int8", "float32"]))
@option("--markdown", "markdown", is_flag=True)
@click.option("--json", "as_json", is_flag=True, help=say("evaluate.json"))
def evaluate(
    model: str,
    data: Path,
    split: str,
    report: Path | None,
    limit: int | None,
    neighbour: bool,
    precision: str | None,
    markdown: bool,
    as_json: bool,
) -> int:
    """Scores a model on a data set."""
    with workshop():
        from rucap.data.records import read_records
        from rucap.evaluation.evaluate import evaluate as run_evaluation

        captioner = open_captioner(model, precision, None)
        records = read_records(data)
        chosen = _of_split(records, data, split)[:limit]
        train = [record for record in records if record.split == "train"]
        features = (_features(captioner, chosen), _features(captioner, train)) if train and neighbour else None
        found = run_evaluation(
            lambda photos: captioner.caption(list(photos)),
            chosen,
            train,
            lambda photos, questions: captioner.answer(list(photos), questions),
            features,
            _show_count if sys.stderr.isatty() else None,
        )
        if report is not None:
            from rucap.evaluation.report import write_report

            write_report(found, report, f"{captioner.config.name}: {data.stem}, {split}", language())
        _print_tables(found, markdown, as_json)
    return 0


@click.command(help=say("export"), options_metavar=say("metavar.options"))
@click.argument("folder", type=_FOLDER, metavar=say("metavar.folder"))
@click.argument("data", type=_FOLDER, nargs=-1, metavar=f"[{say('metavar.data_sets')}]")
@option("--limit", "limit", type=COUNT, metavar="N")
def export(folder: Path, data: tuple[Path, ...], limit: int | None) -> int:
    """Writes a trained model's graphs."""
    with workshop():
        from rucap.export.export import export_model

        print(export_model(folder, data, limit))
    return 0


@click.command(help=say("calibrate"), options_metavar=say("metavar.options"))
@click.argument("folder", type=_FOLDER, metavar=say("metavar.folder"))
@click.argument("data", type=_FOLDER, nargs=-1, required=True, metavar=say("metavar.data_sets"))
@option("--split", "split", default="dev", show_default=True, metavar=say("metavar.split"))
def calibrate(folder: Path, data: tuple[Path, ...], split: str) -> int:
    """Fits how sure a model says it is."""
    with workshop():
        from rucap.data.records import read_records
        from rucap.training.calibrate import calibrate as fit

        fit(folder, [record for path in data for record in _of_split(read_records(path), path, split)])
    return 0


def _of_split(records: Sequence[Record], data: Path, split: str) -> list[Record]:
    found = [record for record in records if record.split == split]
    if not found:
        raise DataError(f"{data}: no photo of the split {split!r}; look at the splits in the file")
    return found


def _features(captioner: Captioner, records: Sequence[Record]) -> npt.NDArray[np.float32]:
    """What the encoder tells of each photo, [photos, labels]: its classes, or the mean of the prefix without them."""
    import numpy as np

    from rucap.encoding import encode_photos
    from rucap.images import Limits

    rows = []
    photos = [record.image for record in records]
    for batch in encode_photos(photos, captioner.engine, captioner.config.encoder.preprocessing, Limits()):
        if batch.failed:
            raise next(iter(batch.failed.values()))
        encoded = batch.encoded
        rows.append(encoded.prefix.mean(axis=1) if encoded.label_logits is None else encoded.label_logits)
    return np.concatenate(rows)


def _show_count(done: int, total: int) -> None:
    print(f"\r{done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _print_tables(evaluation: Evaluation, markdown: bool, as_json: bool) -> None:
    from rucap.evaluation.table import as_markdown, as_rich, as_text, tables

    if as_json:
        from rucap.batch.formats import json_line

        print(json_line(evaluation.to_dict()))
    elif markdown:
        print("\n\n".join(map(as_markdown, tables(evaluation, language()))))
    elif sys.stdout.isatty():
        from rich.console import Console

        for table in tables(evaluation, language()):
            Console().print(as_rich(table))
    else:
        print("\n\n".join(map(as_text, tables(evaluation, language()))))
