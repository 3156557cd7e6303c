"""`rucap models`: what `--model` takes, and how models of others come in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from rucap.cli.messages import say, translated
from rucap.cli.options import option, workshop

_PATH = click.Path(path_type=Path)


@click.group(
    help=say("models"),
    invoke_without_command=True,
    options_metavar=say("metavar.options"),
    subcommand_metavar=f"[{say('metavar.command')}]",
)
@option("--json", "as_json", is_flag=True)
@click.pass_context
def models(context: click.Context, as_json: bool) -> int:
    """Lists the models that have names, unless a subcommand follows."""
    if context.invoked_subcommand is not None:
        return 0
    from rucap.batch.formats import json_line
    from rucap.model.folder import bundled
    from rucap.model.names import named_models

    for name, model in named_models().items():
        here = bundled(name) is not None
        if as_json or not sys.stdout.isatty():
            row = {"name": name, "here": here, "summary": model.summary, "languages": list(model.languages)}
            print(json_line(row | {"megabytes": model.megabytes, "licence": model.licence, "sources": model.sources}))
        else:
            where = say("models.here" if here else "models.fetch", megabytes=model.megabytes)
            print(f"{name}  ({', '.join(model.languages)}; {where})\n  {model.summary}\n  {model.licence}")
    return 0


@models.command("import", help=say("import"), options_metavar=say("metavar.options"))
@click.argument("checkpoint", type=_PATH, metavar=say("metavar.checkpoint"))
@click.argument("folder", type=_PATH, metavar=say("metavar.folder"))
@option("--lm", "language_model", required=True, metavar=say("metavar.folder"))
@option("--vision", "vision", required=True, metavar=say("metavar.folder"))
@option("--language", "language", type=click.Choice(["ru", "en"]), default="ru", show_default=True)
@option("--question-form", "question_form", type=click.Choice(["bare", "labelled"]), default="bare", show_default=True)
@option("--normalize-prefix", "normalize_prefix", is_flag=True)
@option("--half", "half", is_flag=True)
def import_model(checkpoint: Path, folder: Path, language_model: str, vision: str, **options: Any) -> int:  # noqa: ANN401
    """Makes a model folder of a ClipCap checkpoint."""
    with workshop():
        from rucap.importing import import_checkpoint, write_graphs

        import_checkpoint(checkpoint, language_model, vision, folder, **options, report=_report)
        write_graphs(folder, _report)
    print(say("train.done", folder=folder), file=sys.stderr)
    return 0


def _report(line: str) -> None:
    print(translated(line), file=sys.stderr)
