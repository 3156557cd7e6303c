"""`rucap push`: a model to the hub."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rucap.cli.messages import say
from rucap.cli.options import option

_FOLDER = click.Path(path_type=Path)


@click.command(help=say("push"), options_metavar=say("metavar.options"))
@click.argument("folder", type=_FOLDER, metavar=say("metavar.folder"))
@click.argument("hub_id", metavar=say("metavar.hub_id"))
@option("--dry-run", "dry_run", type=_FOLDER, metavar=say("metavar.folder"))
@option("--private", "private", is_flag=True)
def push(folder: Path, hub_id: str, dry_run: Path | None, private: bool) -> int:
    """Publishes a model, or writes what would be published."""
    from rucap import publishing

    if dry_run is None:
        print(publishing.push(folder, hub_id, private=private))
        return 0
    output = publishing.write_upload(folder, hub_id, dry_run)
    files = sorted(path for path in output.rglob("*") if path.is_file())
    for path in files:
        print(f"{path.stat().st_size / 1e6:9.2f} MB  {path.relative_to(output).as_posix()}")
    print(say("push.written", folder=output, hub_id=hub_id), file=sys.stderr)
    return 0
