"""The commands together, and what becomes of an error that one of them raises."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from rucap.cli.describe import ask, caption, classify
from rucap.cli.messages import say, translated
from rucap.cli.models import models
from rucap.cli.publish import push
from rucap.cli.workshop import calibrate, evaluate, export, train
from rucap.errors import OptionError, RucapError

FAILED, BAD_USAGE, INTERRUPTED = 1, 2, 130


def run(arguments: Sequence[str]) -> int:
    """Runs a command and returns its exit code. Errors meant for people become one line on standard error."""
    try:
        # A command returns its exit code; --help and --version end in click's Exit, whose code click returns.
        code = app.main(list(arguments), prog_name="rucap", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except RucapError as error:
        print(say("error", message=translated(str(error))), file=sys.stderr)
        return BAD_USAGE if isinstance(error, OptionError) else FAILED
    except (click.Abort, KeyboardInterrupt):
        print(say("interrupted"), file=sys.stderr, flush=True)
        return INTERRUPTED


def _version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        click.echo(f"rucap {version('rucap')}")
        context.exit()


class _InOrder(click.Group):
    """Lists its commands as they were added: what most people come for first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    help=say("app"),
    epilog=say("app.epilog"),
    options_metavar=say("metavar.options"),
    subcommand_metavar=say("metavar.command"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help=say("version"))
def app() -> None:
    """The text is in `help`, in the reader's language."""


for command in (caption, ask, classify, models, train, evaluate, export, calibrate, push):
    app.add_command(command)
