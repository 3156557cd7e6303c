"""Whole small training runs on photos that scikit-image ships: resuming, caching, rewards, fine-tuning."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from rucap.errors import DataError
from rucap.model.config import Preprocessing
from rucap.network.efficientnet_lite import EfficientNetLite
from rucap.training.config import TrainingConfig, read_training_config
from rucap.training.features import FeatureCache, digest_of
from rucap.training.finetune import finetune
from rucap.training.progress import Progress
from rucap.training.reward import advantages
from rucap.training.run import train

PHOTOS = {
    "astronaut": "Женщина в оранжевом костюме улыбается",
    "chelsea": "Рыжая кошка смотрит в камеру",
    "coffee": "Чашка кофе стоит на столе",
    "rocket": "Ракета стоит на площадке",
    "camera": "Мужчина снимает на камеру",
    "coins": "Старые монеты лежат рядами",
}
STAGE = {"kind": "likelihood", "epochs": 4, "batch": 2, "learning_rate": 1e-3, "average": 0.5}


class KilledError(Exception):
    """What stops a run in the middle."""


class KillAt(Progress):
    """Stops the run after a step."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__(io.StringIO())
        self.at = at

    def step(self, step: int, loss: float, rate: float) -> None:
        if step == self.at:
            raise KilledError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for number, (name, caption) in enumerate(PHOTOS.items()):
        Image.fromarray(getattr(skimage.data, name)()).convert("RGB").resize((80, 64)).save(folder / f"{name}.png")
        question = {"question": "Что на фото?", "answer": caption.split()[1].lower()}
        split = "dev" if number >= 4 else "train"
        rows.append({"image": f"{name}.png", "split": split, "captions": [caption], "questions": [question]})
    path = folder / "photos.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return path


@pytest.fixture(scope="module")
def config(data: Path) -> TrainingConfig:
    values = json.loads((Path(__file__).parents[1] / "configs" / "tiny.json").read_text())
    model = values["model"]
    model["encoder"] |= {"cells": 4}
    model["encoder"]["preprocessing"]["size"] = 64
    model["mapper"] |= {"prefix_length": 2, "layers": 1, "heads": 2, "width": 16}
    model["language_model"] |= {"width": 16, "layers": 1, "heads": 2, "vocabulary": 600, "positions": 160}
    model["language_model"]["settings"] |= {
        "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 600, "n_positions": 160
    }  # fmt: skip
    values |= {"data": [data.name], "vocabulary": 600, "views": 2, "evaluations": 1, "stages": [STAGE]}
    path = data.parent / "config.json"
    path.write_text(json.dumps(values))
    labels = Path(__file__).parents[1] / "configs" / "labels.tsv"
    (data.parent / "labels.tsv").write_text(labels.read_text())
    return read_training_config(path)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(
    config: TrainingConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rucap.training.loop.CHECKPOINT_SECONDS", 0.0)
    cache = tmp_path / "cache"
    whole = train(config, data.parent, tmp_path / "whole", cache, KillAt())
    with pytest.raises(KilledError):
        train(config, data.parent, tmp_path / "killed", cache, KillAt(5))
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    resumed = train(config, data.parent, tmp_path / "killed", cache, KillAt())
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(resumed)[name], tensor, rtol=1e-4, atol=1e-5)
    other = dataclasses.replace(config, seed=7)
    different = weights(train(other, data.parent, tmp_path / "other", cache, KillAt()))
    assert any(not torch.allclose(different[name], tensor, atol=1e-3) for name, tensor in weights(whole).items())


def test_training_lowers_the_loss_and_the_reward_stage_goes_on_from_there(
    config: TrainingConfig, data: Path, tmp_path: Path
) -> None:
    first = dataclasses.replace(config.stages[0], epochs=30)
    reward = dataclasses.replace(first, kind="reward", epochs=2, samples=3, dropout=0.0)
    both = dataclasses.replace(config, stages=(first, reward))
    folder = train(both, data.parent, tmp_path / "model", tmp_path / "cache", Progress(io.StringIO()))
    rows = [json.loads(line) for line in (folder / "stage-2-reward" / "evaluations.jsonl").read_text().splitlines()]
    assert {"step", "score", "photos cider", "photos open"} <= set(rows[0])
    assert (folder / "model.safetensors").stat().st_size > 0


def test_advantages_compare_a_sample_with_the_others() -> None:
    assert advantages([3.0, 0.0, 0.0]) == pytest.approx([3.0, -1.5, -1.5])
    assert sum(advantages([0.3, 1.2, 0.5, 0.9])) == pytest.approx(0)


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite:
    torch.manual_seed(0)
    return EfficientNetLite().eval()


PREPROCESSING = Preprocessing(64, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3)


def test_cached_features_are_the_encoder_s_own(encoder: EfficientNetLite, data: Path, tmp_path: Path) -> None:
    from rucap.images import load_pixels

    photos = [(digest_of(path), path) for path in sorted(data.parent.glob("*.png"))]
    cache = FeatureCache(tmp_path, encoder, PREPROCESSING, views=2)
    assert cache.fill(photos) == {}
    features, _ = cache.read([photos[2][0]], [0])
    pixels = torch.from_numpy(load_pixels(photos[2][1], PREPROCESSING))[None]
    with torch.inference_mode():
        expected = encoder.trunk(pixels)
    error = np.abs(features.astype(np.float32) - expected.numpy()).max() / expected.abs().max()
    assert error < 0.03  # bfloat16 keeps 8 bits
    mirrored, _ = cache.read([photos[2][0]], [1])
    assert not np.array_equal(mirrored, features)


def test_a_cache_cut_off_in_the_middle_is_completed(encoder: EfficientNetLite, data: Path, tmp_path: Path) -> None:
    photos = [(digest_of(path), path) for path in sorted(data.parent.glob("*.png"))]
    whole = FeatureCache(tmp_path / "whole", encoder, PREPROCESSING, views=1)
    whole.fill(photos)
    cut = FeatureCache(tmp_path / "cut", encoder, PREPROCESSING, views=1)
    cut.fill(photos[:3])
    folder = cut.folder / "view-0"
    with (folder / "features").open("ab") as file:
        file.write(b"half a row")
    with (folder / "index").open("a") as file:
        file.write(photos[3][0][:20])
    again = FeatureCache(tmp_path / "cut", encoder, PREPROCESSING, views=1)
    again.fill(photos)
    digests = [digest for digest, _ in photos]
    for found, expected in zip(again.read(digests, [0] * 6), whole.read(digests, [0] * 6), strict=True):
        np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), rtol=0.05, atol=0.05)


def test_a_broken_photo_is_named_and_the_rest_cached(encoder: EfficientNetLite, data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a photo")
    good = data.parent / "coffee.png"
    cache = FeatureCache(tmp_path / "cache", encoder, PREPROCESSING, views=1)
    failures = cache.fill([(digest_of(broken), broken), (digest_of(good), good)])
    assert list(failures) == [str(broken)]
    assert cache.has(digest_of(good), 0)


def test_fine_tuning_needs_enough_photos(config: TrainingConfig, data: Path, tmp_path: Path) -> None:
    model = train(config, data.parent, tmp_path / "model", tmp_path / "cache", KillAt())
    with pytest.raises(DataError, match="too few"):
        finetune(model, data, tmp_path / "tuned", tmp_path / "cache", KillAt())


def test_fine_tuning_writes_a_model_folder(config: TrainingConfig, data: Path, tmp_path: Path) -> None:
    model = train(config, data.parent, tmp_path / "model", tmp_path / "cache", KillAt())
    rows = data.read_text().splitlines()
    own = data.parent / "own.jsonl"
    own.write_text("\n".join(rows[:4] * 3))
    stage = dataclasses.replace(config.stages[0], epochs=3)
    tuned = finetune(model, own, tmp_path / "tuned", tmp_path / "cache", KillAt(), stage, views=1)
    assert {"config.json", "tokenizer.json", "labels.tsv", "model.safetensors"} <= {p.name for p in tuned.iterdir()}
    before, after = weights(model), weights(tuned)
    assert any(not torch.equal(before[name], after[name]) for name in before)
