"""`rucap models`: what `--model` takes."""

from __future__ import annotations

import sys

import click

from rucap.cli.messages import say


@click.command(help=say("models"), options_metavar=say("metavar.options"))
@click.option("--json", "as_json", is_flag=True, help=say("option.as_json"))
def models(as_json: bool) -> int:
    """Lists the models that have names."""
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
