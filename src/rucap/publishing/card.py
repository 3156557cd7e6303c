"""The model card: README.md of a hub repository, metadata first (huggingface.co/docs/hub/model-cards)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rucap.model.config import ModelConfig
from rucap.model.folder import HUB_ID
from rucap.publishing.facts import CardFacts, MeasuredScore, Task, card_facts
from rucap.publishing.wording import WORDINGS, Wording

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

METRICS = {
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "chrf": "chrF2",
    "rouge1": "ROUGE-1 F",
    "rouge2": "ROUGE-2 F",
    "rouge_l": "ROUGE-L F",
    "cider": "CIDEr-D",
    "exact": "exact match, %",
    "f1": "F1, %",
}
"""How people write the evaluation's metrics; another is written as it is called."""
HUB_TASKS: dict[Task, str] = {
    "captions": "image-to-text",
    "open": "visual-question-answering",
    "yes_no": "visual-question-answering",
}
TAGS = ("image-captioning", "visual-question-answering", "clipcap")

EXAMPLE = """\
from rucap import Captioner

captioner = Captioner("{hub_id}"{engine})
caption = captioner.caption("photo.jpg", num_captions=3)
print(caption.text, caption.confidence)
for other in caption.alternatives:
    print(other.text)
print(captioner.answer("photo.jpg", "{question}").text)
print(captioner.classify("photo.jpg", {labels}).best.name)
for score in captioner.score("photo.jpg", {texts}):
    print(score.text, score.log_probability_per_token)
"""


def model_card(config: ModelConfig, hub_id: str, graphs: bool) -> str:
    """The card's text. `graphs`: whether the model has ONNX graphs, or else needs torch to run.

    Raises ModelError naming a field of `card` in config.json that is not of its form.
    """
    from huggingface_hub import ModelCard, ModelCardData

    facts, wording = card_facts(config), WORDINGS[config.language]
    data = ModelCardData(
        language=config.language,
        license=facts.licence or None,
        license_name=facts.licence_name or None,
        license_link=facts.licence_link or None,
        library_name="rucap",
        pipeline_tag="image-to-text",
        tags=[*TAGS, *(["onnx"] if graphs else []), *facts.tags],
        base_model=[source for source in facts.sources.values() if HUB_ID.fullmatch(source)] or None,
        datasets=[each.hub_id for each in facts.data if each.hub_id] or None,
        model_name=config.name if facts.scores else None,
        eval_results=[_eval_result(score) for score in facts.scores] or None,
    )
    body = "\n\n".join(_body(config, facts, wording, hub_id, graphs))
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def _eval_result(score: MeasuredScore) -> EvalResult:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type=HUB_TASKS[score.task],
        dataset_name=score.data,
        dataset_type=score.data.lower(),
        dataset_config=None if score.task == "captions" else score.task,
        dataset_split=score.split,
        metric_type=score.metric,
        metric_name=METRICS.get(score.metric, score.metric),
        metric_value=score.value,
    )


def _body(config: ModelConfig, facts: CardFacts, wording: Wording, hub_id: str, graphs: bool) -> list[str]:
    """The card's blocks. What the author did not say has no heading."""
    install = "rucap" if graphs else '"rucap[train]"'
    code = EXAMPLE.format(hub_id=hub_id, engine="" if graphs else ', engine="torch"', **wording.example)
    blocks = [
        f"# {config.name}",
        facts.summary or wording.summary,
        f"## {wording.use}",
        f"```sh\npip install {install}\n```",
        f"```python\n{code}```",
    ]
    for heading, lines in ((wording.sees, facts.sees), (wording.misses, facts.misses)):
        if lines:
            blocks += [f"## {heading}", _list(lines)]
    blocks += [f"## {wording.made}", _list(_parts(config, facts, wording))]
    if facts.data:
        blocks.append(f"## {wording.data}")
        for each in facts.data:
            terms = f" {wording.terms}: {each.terms}." if each.terms else ""
            blocks.append(f"**{each.name}**{': ' if each.about else '.'}{each.about}{terms}")
    if facts.scores:
        blocks += [f"## {wording.scores}", _score_table(facts.scores, wording)]
        blocks += [facts.measured] if facts.measured else []
    return blocks


def _parts(config: ModelConfig, facts: CardFacts, wording: Wording) -> list[str]:
    encoder = dataclasses.asdict(config.encoder) | {"size": config.encoder.preprocessing.size}
    lines = [
        wording.encoder.format(**encoder),
        wording.mapper.format(**dataclasses.asdict(config.mapper)),
        wording.language_model.format(**dataclasses.asdict(config.language_model)),
    ]
    if facts.sources:
        lines.append(f"{wording.sources}: {', '.join(f'`{source}`' for source in facts.sources.values())}")
    return lines


def _score_table(scores: Sequence[MeasuredScore], wording: Wording) -> str:
    rows = [wording.score_columns, ("---", "---", "---", "---:")]
    for score in scores:
        what: str = getattr(wording, score.task)
        rows.append((f"{score.data}, {score.split}", what, METRICS.get(score.metric, score.metric), f"{score.value:g}"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
