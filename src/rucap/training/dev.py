"""Scores on dev splits while a model trains: captions and answers of cached features, greedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from rucap.decoding import GenerationSettings, generate
from rucap.engines.torch import TorchEngine
from rucap.evaluation.cider import cider_d
from rucap.evaluation.normalise import normalise
from rucap.model import prompts
from rucap.network.prefix_captioner import PrefixCaptioner
from rucap.training.examples import Photo, Writer
from rucap.training.features import FeatureCache

BATCH = 50
YES_NO = ("да", "нет")


@dataclass(frozen=True)
class Dev:
    """What is described at each evaluation: photos by the name of their data set."""

    photos: Mapping[str, Sequence[Photo]]
    cache: FeatureCache
    writer: Writer


def generation_settings(writer: Writer, network: PrefixCaptioner) -> GenerationSettings:
    """Greedy decoding as the model's configuration has it."""
    defaults, id_of = network.config.generation, writer.tokenizer.id_of
    return GenerationSettings(
        end_tokens=tuple(map(id_of, defaults.end_tokens)),
        suppressed=tuple(map(id_of, defaults.suppressed_tokens)),
        max_tokens=defaults.max_tokens,
    )


def write_texts(
    network: PrefixCaptioner,
    features: np.ndarray,
    prompted: Sequence[Sequence[int]],
    settings: GenerationSettings,
    pad_id: int,
) -> list[list[tuple[int, ...]]]:
    """Tokens of the hypotheses written for each photo, behind its prefix and its own prompt's tokens."""
    autocast = torch.bfloat16 if torch.is_autocast_enabled("cpu") else None
    engine = TorchEngine(network, autocast=autocast)
    with torch.no_grad():
        prefix = network.prefix(torch.from_numpy(features.astype(np.float32))).float().numpy()
    tokens, mask = prompts.pad_left(prompted, pad_id)
    return [[hypothesis.tokens for hypothesis in found] for found in generate(engine, prefix, tokens, mask, settings)]


def dev_scores(network: PrefixCaptioner, dev: Dev) -> dict[str, float]:
    """CIDEr-D, and the percentages of right open and yes/no answers, of each data set; "score" is what training keeps.

    The score is the mean over data sets of CIDEr-D plus a fifth of the open answers' percentage.
    """
    network.eval()
    settings = generation_settings(dev.writer, network)
    scores: dict[str, float] = {}
    totals = []
    for name, photos in dev.photos.items():
        captions = _texts(network, dev, [(p, _caption_form(dev.writer)) for p in photos], settings)
        cider, _ = cider_d(captions, [p.record.captions for p in photos])
        asked = [(p, q) for p in photos for q in p.record.questions]
        forms = [(p, prompts.question_tokens(dev.writer.tokenizer, dev.writer.prompts, q.question)) for p, q in asked]
        answers = _texts(network, dev, forms, replace(settings, max_tokens=12))
        right: dict[bool, list[bool]] = {True: [], False: []}
        for (_, question), answer in zip(asked, answers, strict=True):
            wanted = normalise(question.answer)
            right[wanted in YES_NO].append(normalise(answer) == wanted)
        scores[f"{name} cider"] = cider
        scores[f"{name} open"] = 100 * float(np.mean(right[False] or [False]))
        scores[f"{name} yes/no"] = 100 * float(np.mean(right[True] or [False]))
        totals.append(cider + scores[f"{name} open"] / 5)
    return {"score": float(np.mean(totals)), **scores}


def _caption_form(writer: Writer) -> list[int]:
    return prompts.caption_tokens(writer.tokenizer, writer.prompts)


def _texts(
    network: PrefixCaptioner, dev: Dev, asked: Sequence[tuple[Photo, list[int]]], settings: GenerationSettings
) -> list[str]:
    texts = []
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        features, labels = dev.cache.read([photo.digest for photo, _ in batch], [0] * len(batch))
        hints = dev.writer.hint_tokens(labels)
        prompted = [[*hint, *form] for hint, (_, form) in zip(hints, batch, strict=True)]
        found = write_texts(network, features, prompted, settings, dev.writer.tokenizer.pad_id)
        texts += [dev.writer.tokenizer.decode(hypotheses[0]) for hypotheses in found]
    return texts
