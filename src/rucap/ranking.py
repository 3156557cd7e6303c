"""Labels ranked for photos: by CLIP's similarity, or by what a photo adds to a label's probability.

It knows embeddings, tokens and likelihoods of encoded photos; it knows nothing of how photos are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from rucap.engines.protocol import Encoded, Engine, Floats
from rucap.errors import ModelError, OptionError, RucapError
from rucap.model import prompts
from rucap.model.config import TextTowerConfig
from rucap.model.folder import ModelFolder
from rucap.model.sentence import RULES, normalised
from rucap.results import Label, Ranking
from rucap.writing import Writer

Method = Literal["similarity", "likelihood"]
Ranker = Callable[[Encoded], list[Ranking]]


def ranker(
    folder: ModelFolder, engine: Engine, writer: Writer, labels: Sequence[str], form: str, method: Method | None
) -> Ranker:
    """What ranks labels, put into `form`, for encoded photos; what photos have in common is computed here, once.

    `method` None is similarity where the model, the engine and the labels' language allow it. Raises OptionError, and
    ModelError for a similarity that cannot be computed.
    """
    names = list(dict.fromkeys([labels] if isinstance(labels, str) else labels))
    if not names or "{label}" not in form:
        raise OptionError("give at least one label, and {label} in the form")
    if method not in (None, "similarity", "likelihood"):
        raise OptionError(f"method {method!r}: it is 'similarity' or 'likelihood'")
    texts = [form.replace("{label}", name) for name in names]
    tokens = [prompts.some_text_tokens(folder.tokenizer, folder.config.prompts, text) for text in texts]
    if method != "likelihood":
        embeddings = _embeddings(folder, engine, texts)
        if not isinstance(embeddings, RucapError):
            assert folder.config.text_tower is not None
            return _by_similarity(folder.config.text_tower, names, embeddings)
        if method == "similarity":
            raise embeddings
    return _by_likelihood(writer, names, tokens)


def _by_likelihood(writer: Writer, names: Sequence[str], tokens: Sequence[list[int]]) -> Ranker:
    """A label's score is its pointwise mutual information with the photo, a token (as in Holtzman et al., 2021)."""
    (priors,) = writer.likelihoods(writer.blank, tokens)

    def rank(encoded: Encoded) -> list[Ranking]:
        rows = writer.likelihoods(encoded, tokens)
        scores = (np.array([(p - q).mean() for p, q in zip(row, priors, strict=True)]) for row in rows)
        return [_ranking(names, row, _softmax(row), "likelihood") for row in scores]

    return rank


def _by_similarity(tower: TextTowerConfig, names: Sequence[str], embeddings: Floats) -> Ranker:
    """A label's score is its logit (Radford et al., 2021, section 2.3; SigLIP: Zhai et al., 2023, section 3.2)."""

    def rank(encoded: Encoded) -> list[Ranking]:
        assert encoded.embedding is not None
        logits = tower.scale * _of_length_one(encoded.embedding) @ embeddings.T.astype(np.float64) + (tower.bias or 0)
        shares = (_softmax(row) if tower.bias is None else (1 + np.tanh(row / 2)) / 2 for row in logits)
        return [_ranking(names, row, each, "similarity") for row, each in zip(logits, shares, strict=True)]

    return rank


def _embeddings(folder: ModelFolder, engine: Engine, texts: Sequence[str]) -> Floats | RucapError:
    """Embeddings of length one, [texts, width], or why there are none."""
    tower = folder.config.text_tower
    if tower is None:
        return ModelError(f"{folder.path}: has no text tower to compare labels with; leave method out")
    for language, rules in RULES.items():
        if language not in tower.languages and (found := next(filter(rules.letters.search, texts), None)):
            return OptionError(
                f"the label {found!r} is not for this model's text tower, which knows no {rules.language}; leave"
                " method out"
            )
    found_embeddings = engine.embed_texts(folder.text_tokens([normalised(text) for text in texts]))
    if found_embeddings is None:
        return ModelError(
            f"{folder.path}: holds no text tower for this engine; `rucap export` makes its graph from"
            " text_tower.safetensors; or leave method out"
        )
    return _of_length_one(found_embeddings)


def _of_length_one(vectors: Floats) -> Floats:
    lengths: Floats = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths


def _softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weights: npt.NDArray[np.float64] = np.exp(scores - scores.max())
    weights /= weights.sum()
    return weights


def _ranking(
    names: Sequence[str], scores: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], method: Method
) -> Ranking:
    labels = [Label(n, float(p), float(s)) for n, p, s in zip(names, shares, scores, strict=True)]
    return Ranking(tuple(sorted(labels, key=lambda label: -label.score)), method)
