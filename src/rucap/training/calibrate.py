"""Confidence of a finished model: fit to what it gets right on dev photos, as it will run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rucap.captioner import Captioner
from rucap.data.records import Record
from rucap.evaluation.calibration import fit_platt
from rucap.evaluation.evaluate import evaluate
from rucap.model.config import Calibration, read_config, write_config

IDENTITY = Calibration(1.0, 0.0)
"""With it a confidence is the sigmoid of the mean log-probability a token, from which that follows."""


def calibrate(folder: Path, records: Sequence[Record]) -> None:
    """Fits the confidences of captions and answers on `records` (a dev split) and writes them into config.json.

    Raises DataError when there is nothing to fit to.
    """
    path = folder / "config.json"
    config = read_config(path)
    write_config(replace(config, caption_calibration=IDENTITY, answer_calibration=IDENTITY), path)
    try:
        captioner = Captioner(folder)
        found = evaluate(captioner.caption, records, ask=captioner.answer)
    finally:
        write_config(config, path)
    captions = [(prediction.confidence, prediction.right) for prediction in found.predictions]
    answers = [(reply.confidence, reply.right) for prediction in found.predictions for reply in prediction.replies]
    fitted = replace(config, caption_calibration=_fit(captions), answer_calibration=_fit(answers) if answers else None)
    write_config(fitted, path)


def _fit(found: Sequence[tuple[float | None, bool]]) -> Calibration:
    kept = [(math.log(confidence / (1 - confidence)), right) for confidence, right in found if confidence is not None]
    return fit_platt([value for value, _ in kept], [right for _, right in kept])
