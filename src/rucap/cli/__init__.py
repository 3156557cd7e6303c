"""The command line: arguments in; captions for a person, JSON lines for a pipe, or a file out.

This layer knows terminals, exit codes and languages. What it does with photos it asks of the layers below, which it
imports when a command needs them.
"""

from __future__ import annotations


def main() -> None:
    """Runs `rucap` with the process's arguments and exits: 0, 1 where something failed, 2 for bad usage."""
    from rucap.cli.messages import translate_click

    translate_click()

    import os
    import sys

    from rucap.cli.app import INTERRUPTED, run

    code = run(sys.argv[1:])
    if code == INTERRUPTED:
        os._exit(code)  # the batches in hand are not waited for
    sys.exit(code)
