"""A captioner of ClipCap's kind (Mokady et al., arXiv:2111.09734) to a model folder of ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from rucap.errors import ModelError
from rucap.importing.checkpoint import LANGUAGE_MODEL, MAPPER, Checkpoint, read_checkpoint
from rucap.importing.folders import part_folder
from rucap.importing.language import generation_defaults, language_model_tensors, read_language_model, read_tokenizer
from rucap.importing.text import Text, read_text
from rucap.importing.vision import read_vision
from rucap.model.config import ModelConfig, PromptsConfig, write_config
from rucap.model.folder import TEXT_TOWER
from rucap.network.prefix_captioner import PrefixCaptioner, write_tensors

QUESTION_FORMS: dict[str, dict[str, str]] = {
    "bare": {"ru": "{question}", "en": "{question}"},
    "labelled": {"ru": "Вопрос: {question} Ответ:", "en": "Question: {question} Answer:"},
}
"""How a question is put to a model that never saw one: as it is, as the original does, or with the parts named."""


def import_checkpoint(
    checkpoint: Path,
    language_model: str | Path,
    vision: str | Path,
    output: Path,
    *,
    name: str = "",
    language: Literal["ru", "en"] = "ru",
    question_form: Literal["bare", "labelled"] = "bare",
    normalize_prefix: bool = False,
    half: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes a captioner to the folder `output` (made by this call) and returns it; `write_graphs` does the rest.

    `language_model` and `vision` are hub ids or folders as transformers writes them; the language model's weights come
    from the checkpoint where it has them. The text half of a whole CLIP comes along, to rank labels with. `name`: the
    model's, by default the folder's. `normalize_prefix`: as the captioner was trained. `half`: weights in float16.
    Raises ModelError naming the file or tensor at fault; then there is no folder.
    """
    if output.exists():
        raise ModelError(f"{output}: is there already; give another folder, or remove it")
    report(f"reading the language model {language_model}")
    language_folder = part_folder(language_model, weights=False)
    settings, transformers_config = read_language_model(language_folder)
    tokenizer = read_tokenizer(language_folder)
    report(f"reading the checkpoint {checkpoint}")
    found = read_checkpoint(checkpoint, settings.width, normalize_prefix)
    weights = found.language_model or language_model_tensors(part_folder(language_model, weights=True))
    report(f"reading the vision encoder {vision}")
    vision_folder = part_folder(vision, weights=True)
    seeing, text = read_vision(vision_folder), _text_half(vision_folder, report)
    if found.features != seeing.config.width:
        raise ModelError(
            f"{checkpoint}: its mapper takes {found.features} features and {vision} gives {seeing.config.width};"
            " give the vision encoder that it was trained with"
        )
    config = ModelConfig(
        name=name or output.name,
        language=language,
        encoder=seeing.config,
        mapper=found.config,
        language_model=settings,
        prompts=PromptsConfig(caption="", question=QUESTION_FORMS[question_form][language], first_letter="as_written"),
        generation=generation_defaults(tokenizer, transformers_config, language),
        text_tower=text.config if text else None,
        card={"sources": {"captioner": checkpoint.name, **_names(language_model, vision)}},
    )
    tensors = _fitting(found, weights, config, checkpoint)
    tensors |= {f"encoder.tower.{name}": tensor for name, tensor in seeing.tensors.items()}
    report(f"writing {output}")
    partial = output.with_name(output.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_config(config, partial / "config.json")
    tokenizer.save(str(partial / "tokenizer.json"))
    dtype = torch.float16 if half else torch.float32
    write_tensors(tensors, partial / "model.safetensors", dtype)
    if text:
        text.tokenizer.save(str(partial / "text_tokenizer.json"))
        write_tensors(text.tensors, partial / TEXT_TOWER, dtype)
    partial.replace(output)
    return output


def _text_half(vision: Path, report: Callable[[str], None]) -> Text | None:
    """What labels can be compared with, where it is there; a captioner does without."""
    try:
        return read_text(vision) if vision.is_dir() else None
    except ModelError as error:
        report(f"labels cannot be ranked by similarity: {error}")
        return None


def _names(language_model: str | Path, vision: str | Path) -> dict[str, str]:
    """Hub ids as they are; of folders on this machine the last name alone."""
    named = {"language model": language_model, "vision encoder": vision}
    return {part: Path(source).name if Path(source).exists() else str(source) for part, source in named.items()}


def _fitting(found: Checkpoint, weights: dict[str, Tensor], config: ModelConfig, checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of the mapper and the language model, as a captioner of `config` holds them; tied ones once.

    Raises ModelError naming one that is missing, extra or of another shape, by its name in the checkpoint.
    """
    with torch.device("meta"):  # shapes alone
        network = PrefixCaptioner(config)
    tensors: dict[str, Tensor] = {}
    for part, given in ((LANGUAGE_MODEL, weights), (MAPPER, found.mapper)):
        module = network.language_model if part == LANGUAGE_MODEL else network.mapper
        ours = "language_model." if part == LANGUAGE_MODEL else "mapper."
        wanted = dict(module.named_parameters(remove_duplicate=False))
        kept: dict[int, str] = {}
        for name, parameter in wanted.items():
            twin = kept.get(id(parameter))
            if name not in given:
                if twin is None:
                    raise ModelError(f"{checkpoint}: the tensor {part}{name} is missing")
                continue
            if given[name].shape != parameter.shape:
                shapes = f"{tuple(given[name].shape)}, not {tuple(parameter.shape)}"
                raise ModelError(f"{checkpoint}: the tensor {part}{name} has the shape {shapes}")
            if twin is None:
                kept[id(parameter)] = name
                tensors[ours + name] = given[name]
            elif not torch.equal(given[name], given[twin]):
                raise ModelError(f"{checkpoint}: {part}{name} differs from {part}{twin}, which the model ties it to")
        if extra := sorted(set(given) - set(wanted)):
            raise ModelError(f"{checkpoint}: unexpected tensor {part}{extra[0]}; is it of another language model?")
    return tensors
