"""The graphs that captioning runs, for a captioner that was imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rucap.errors import NoExportError
from rucap.export.export import export_model


def write_graphs(folder: Path, report: Callable[[str], None] = lambda line: None) -> None:
    """Writes a model folder's graphs; of a model that has none it reports so, and torch runs it. Raises ModelError."""
    report("writing ONNX graphs")
    try:
        export_model(folder)
    except NoExportError as error:
        report(str(error))
