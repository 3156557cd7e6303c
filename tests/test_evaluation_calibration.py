from __future__ import annotations

import numpy as np
import pytest

from rucap.errors import DataError
from rucap.evaluation.calibration import fit_platt, reliability


def soft_loss(slope: np.ndarray, bias: np.ndarray, x: np.ndarray, right: np.ndarray) -> np.ndarray:
    positive, negative = right.sum(), (~right).sum()
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (negative + 2))
    logits = slope[..., None] * x + bias[..., None]
    return -(target * -np.logaddexp(0, -logits) + (1 - target) * -np.logaddexp(0, logits)).sum(axis=-1)


def brute_force(x: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    centre, width = np.zeros(2), 20.0
    for _ in range(60):
        grid = np.linspace(-width, width, 21)
        slope, bias = np.meshgrid(centre[0] + grid, centre[1] + grid)
        place = np.argmin(soft_loss(slope, bias, x, right))
        centre, width = np.array([slope.flat[place], bias.flat[place]]), width * 0.7
    return float(centre[0]), float(centre[1])


@pytest.mark.parametrize("seed", range(3))
def test_fit_is_the_brute_force_optimum(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(-1, 0.5, 200)
    right = generator.random(200) < 1 / (1 + np.exp(-(3 * x + 2)))
    fitted = fit_platt(x, right)
    assert (fitted.slope, fitted.bias) == pytest.approx(brute_force(x, right), abs=1e-4)


def test_fit_finds_the_true_parameters() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(-1, 0.5, 100_000)
    fitted = fit_platt(x, generator.random(len(x)) < 1 / (1 + np.exp(-(3 * x + 2))))
    assert (fitted.slope, fitted.bias) == pytest.approx((3, 2), abs=0.1)


def test_fit_does_not_depend_on_the_unit() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=300)
    right = generator.random(300) < 1 / (1 + np.exp(-x))
    one, other = fit_platt(x, right), fit_platt(1e-6 * x + 5, right)
    assert (1e-6 * other.slope, other.bias + 5 * other.slope) == pytest.approx((one.slope, one.bias), rel=1e-5)


def test_fit_of_separable_one_sided_and_constant_values_is_finite() -> None:
    separable = fit_platt([-3, -2, -1, 1, 2, 3], [False] * 3 + [True] * 3)
    assert (separable.slope, separable.bias) == pytest.approx(
        brute_force(np.array([-3.0, -2, -1, 1, 2, 3]), np.array([False] * 3 + [True] * 3)), abs=1e-4
    )
    one_sided = fit_platt([-3, -2, -1], [True] * 3)
    assert one_sided.slope == pytest.approx(0, abs=1e-6)
    assert 1 / (1 + np.exp(-one_sided.bias)) == pytest.approx(4 / 5)
    constant = fit_platt([0.1] * 4, [True, True, False, True])
    assert constant.slope == 0
    assert 1 / (1 + np.exp(-constant.bias)) == pytest.approx((3 * 4 / 5 + 1 / 3) / 4)


def naive_calibration_error(confidences: np.ndarray, right: np.ndarray) -> float:
    total = 0.0
    for index in range(10):
        inside = [i for i, c in enumerate(confidences) if index <= 10 * c < index + 1 or (index == 9 and c == 1)]
        if inside:
            total += len(inside) * abs(np.mean(confidences[inside]) - np.mean(right[inside]))
    return total / len(confidences)


def naive_auroc(confidences: np.ndarray, right: np.ndarray) -> float:
    pairs = [(a > b) + (a == b) / 2 for a in confidences[right] for b in confidences[~right]]
    return float(np.mean(pairs))


def test_reliability_equals_naive_loops() -> None:
    generator = np.random.default_rng(0)
    confidences = np.append(generator.integers(0, 60, 300) / 60, [0.0, 1.0, 1.0])
    right = generator.random(len(confidences)) < confidences**2
    found = reliability(confidences, right)
    assert found.calibration_error == pytest.approx(naive_calibration_error(confidences, right))
    assert found.auroc == pytest.approx(naive_auroc(confidences, right))
    assert sum(row.count for row in found.bins) == found.count == len(confidences)
    assert found.calibration_error > 0.1
    assert found.to_dict()["bins"][9]["high"] == 1


def test_reliability_of_calibrated_and_of_one_sided() -> None:
    calibrated = reliability([0.25] * 4 + [0.75] * 4, [True, False, False, False, True, True, True, False])
    assert calibrated.calibration_error == pytest.approx(0)
    assert calibrated.auroc == pytest.approx((9 + 0.5 * 6) / 16)
    assert reliability([0.5, 0.6], [True, True]).auroc is None


@pytest.mark.parametrize("function", [fit_platt, reliability])
def test_bad_values(function: object) -> None:
    assert callable(function)
    for values, right in (([], []), ([0.5], [True, False]), ([float("nan")], [True])):
        with pytest.raises(DataError):
            function(values, right)
    with pytest.raises(DataError, match=r"outside 0\.\.1"):
        reliability([-0.1, 0.5], [True, False])
