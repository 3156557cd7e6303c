"""Confidence: fitted on a dev split, and checked on a test split."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rucap.errors import DataError
from rucap.model.config import Calibration

Floats = npt.NDArray[np.float64]

BINS = 10
_MOST_STEPS = 100
_TOLERANCE = 1e-10
"""Of the gradient a sample, x standardised."""


@dataclass(frozen=True)
class Bin:
    """The predictions whose confidence lies in [low, high), the last bin with its upper end."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean confidence, 0..1; 0 in an empty bin."""
    right: float
    """Share of right ones, 0..1; 0 in an empty bin."""


@dataclass(frozen=True)
class Reliability:
    """How far confidences can be trusted; all values are in 0..1."""

    count: int
    right: float
    confidence: float
    """Mean confidence: of a calibrated model equal to `right`."""
    calibration_error: float
    """Expected calibration error (Naeini et al. 2015): mean gap between confidence and share of right, by bin."""
    auroc: float | None
    """Chance that a right one is more confident than a wrong one; None where all are right or all wrong."""
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, bins as dicts."""
        return asdict(self)


def fit_platt(values: npt.ArrayLike, right: npt.ArrayLike) -> Calibration:
    """Platt scaling: the slope and bias that make sigmoid(slope * value + bias) the chance of being right.

    `values` [n] (here: mean log-probability a token), `right` [n] booleans. The likelihood has Platt's targets,
    (r + 1) / (r + 2) for the r right ones and 1 / (w + 2) for the w wrong ones (Platt 1999), so that separable and
    one-sided sets have a finite optimum too; found by Newton's method with step halving (Lin, Lin, Weng 2007).
    Raises DataError when there is nothing to fit, counts differ or a value is not finite.
    """
    x, outcomes = _pairs(values, right)
    positive = int(outcomes.sum())
    target = np.where(outcomes, (positive + 1) / (positive + 2), 1 / (len(x) - positive + 2))
    centre, spread = float(x.mean()), float(x.std())
    if spread <= np.finfo(np.float64).eps * abs(centre):
        mean = float(target.mean())
        return Calibration(slope=0.0, bias=float(np.log(mean / (1 - mean))))
    design = np.stack([(x - centre) / spread, np.ones_like(x)], axis=1)
    parameters = np.zeros(2)
    for _ in range(_MOST_STEPS):
        chance = _sigmoid(design @ parameters)
        gradient = design.T @ (chance - target)
        if np.abs(gradient).max() <= _TOLERANCE * len(x):
            break
        hessian = design.T @ (design * (chance * (1 - chance))[:, None]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        loss, size = _loss(design @ parameters, target), 1.0
        while size > 1e-10 and _loss(design @ (parameters - size * step), target) > loss:
            size /= 2
        parameters = parameters - size * step
    slope = float(parameters[0]) / spread
    return Calibration(slope=slope, bias=float(parameters[1]) - slope * centre)


def reliability(confidences: npt.ArrayLike, right: npt.ArrayLike, bins: int = BINS) -> Reliability:
    """Compares confidences [n], 0..1, with outcomes [n], in `bins` bins of equal width.

    Raises DataError when there is nothing to compare, counts differ or a confidence is not in 0..1.
    """
    values, outcomes = _pairs(confidences, right)
    if values.min() < 0 or values.max() > 1:
        raise DataError("a confidence lies outside 0..1; calibrate the model first")
    place = np.minimum((values * bins).astype(np.int64), bins - 1)
    table = []
    for index in range(bins):
        inside = place == index
        count = int(inside.sum())
        confidence, share = (float(values[inside].mean()), float(outcomes[inside].mean())) if count else (0.0, 0.0)
        table.append(Bin(index / bins, (index + 1) / bins, count, confidence, share))
    error = sum(row.count * abs(row.confidence - row.right) for row in table) / len(values)
    return Reliability(
        count=len(values),
        right=float(outcomes.mean()),
        confidence=float(values.mean()),
        calibration_error=error,
        auroc=_auroc(values, outcomes),
        bins=tuple(table),
    )


def _auroc(values: Floats, right: npt.NDArray[np.bool_]) -> float | None:
    positive = int(right.sum())
    negative = len(right) - positive
    if not positive or not negative:
        return None
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[place][right].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _pairs(values: npt.ArrayLike, right: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.bool_]]:
    x, outcomes = np.asarray(values, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    if x.ndim != 1 or x.shape != outcomes.shape or not len(x):
        raise DataError(
            f"{x.shape} values and {outcomes.shape} outcomes: two lists of one length, not empty, are expected"
        )
    if not np.isfinite(x).all():
        raise DataError("a confidence or log-probability is not a finite number; look at the model that wrote it")
    return x, outcomes


def _sigmoid(x: Floats) -> Floats:
    value: Floats = 0.5 * (1 + np.tanh(0.5 * x))
    return value


def _loss(x: Floats, target: Floats) -> float:
    return float((np.logaddexp(0, x) - target * x).sum())
