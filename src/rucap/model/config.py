"""`config.json` of a model folder, as frozen dataclasses.

The file is data: it says which parts a model is made of and how large they are; no code branches on a model's name.
Unknown or missing fields are errors that name the field, so that a folder of a newer version is not half understood.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from rucap.errors import ModelError

Config = TypeVar("Config")


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes the encoder's input, [3, size, size] float32.

    `squash` resizes the whole photo to a square; `crop` resizes the shortest side and cuts out the centre (CLIP's).
    """

    size: int
    resize: Literal["squash", "crop"]
    interpolation: Literal["bilinear", "bicubic", "lanczos"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class EncoderConfig:
    """A vision encoder: `cells` vectors of `width` numbers for each photo."""

    kind: Literal["efficientnet_lite", "clip"]
    cells: int
    width: int
    preprocessing: Preprocessing
    settings: dict[str, Any] = field(default_factory=dict)
    """The encoder library's own configuration (for `clip`: transformers' CLIPVisionConfig as a dict)."""


@dataclass(frozen=True)
class TextTowerConfig:
    """The text half of the encoder's CLIP or SigLIP: labels become embeddings beside those of photos.

    Its weights are in `text_tower.safetensors`; `text_tokenizer.json` also says how texts are cut and padded.
    """

    languages: tuple[str, ...]
    """Those of "ru" and "en" that it reads."""
    scale: float
    """A photo's logit for a label is scale * cosine + bias."""
    bias: float | None
    """SigLIP's; None for CLIP. With one a label's probability is the logit's sigmoid, without, all labels' softmax."""
    settings: dict[str, Any]
    """transformers' CLIPTextConfig or SiglipTextConfig as a dict."""


@dataclass(frozen=True)
class MapperConfig:
    """The mapping network: [cells, width] features to `prefix_length` vectors of the language model's width."""

    kind: Literal["mlp", "transformer", "grid"]
    prefix_length: int
    layers: int
    heads: int = 8
    width: int = 0
    """Hidden width: of the MLP's middle (0 for a single linear layer), or of the grid mapper's transformer."""
    constant_length: int = 0
    """ClipCap's `clip_length`: vectors that the transformer mapper makes of one embedding."""
    normalize: bool = False
    """ClipCap's `normalize_prefix`: features are divided by their L2 norm first."""


@dataclass(frozen=True)
class LanguageModelConfig:
    """The language model: `kind` is transformers' model type, `settings` its configuration as a dict."""

    kind: str
    width: int
    layers: int
    heads: int
    vocabulary: int
    positions: int
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HintsConfig:
    """Names of the encoder's likeliest classes, put as text between the prefix and the caption.

    `file` holds one label a line: a name, a tab, a more general word (may be empty).
    """

    file: str
    count: int
    template: str = "{names}; {general}"
    separator: str = ", "
    least: float = 0.0
    """A name less probable than this is left out, unless it is the first."""
    sure: float = 1.0
    """A name more probable than this is marked with `mark`, so that the language model can tell what to rely on."""
    mark: str = "!"


@dataclass(frozen=True)
class PromptsConfig:
    """Text forms around what the model writes. Special tokens stand in them by name, e.g. `<caption>`.

    `details` maps a detail level (`short`, `normal`, `detailed`) to its caption prompt.
    """

    caption: str
    question: str
    """With `{question}`: what precedes an answer."""
    hints: str = ""
    """With `{hints}`: how hints are written; empty for a model without them."""
    details: dict[str, str] = field(default_factory=dict)
    first_letter: Literal["lower", "as_written"] = "lower"
    """How texts are fed: with the first letter in lower case (see `sentence.feeding_form`), or as they are written."""


@dataclass(frozen=True)
class GenerationDefaults:
    """How this model writes unless the caller says otherwise."""

    beams: int = 3
    max_tokens: int = 40
    length_penalty: float = 0.0
    no_repeat_ngram: int = 0
    end_tokens: tuple[str, ...] = ("<end>",)
    suppressed_tokens: tuple[str, ...] = ()
    """Tokens never written, by name: pad, begin markers and the like."""
    original_stop: str | None = None
    """The text whose first token ended what the model's authors wrote with it, "" where nothing did before 67 tokens;
    None for a model that is not ClipCap's."""


@dataclass(frozen=True)
class Calibration:
    """Confidence = sigmoid(slope * x + bias), x the mean log-probability a token; fit on a dev split (Platt, 1999)."""

    slope: float
    bias: float


@dataclass(frozen=True)
class ModelConfig:
    """All of `config.json`."""

    name: str
    language: Literal["ru", "en"]
    encoder: EncoderConfig
    mapper: MapperConfig
    language_model: LanguageModelConfig
    prompts: PromptsConfig
    generation: GenerationDefaults
    hints: HintsConfig | None = None
    text_tower: TextTowerConfig | None = None
    caption_calibration: Calibration | None = None
    answer_calibration: Calibration | None = None
    card: dict[str, Any] = field(default_factory=dict)
    """What the model card says: licence, data, terms, measured scores."""
    format_version: int = 1

    @property
    def files(self) -> list[str]:
        """The names of the small files that stand beside config.json."""
        hints = [self.hints.file] if self.hints else []
        return ["tokenizer.json", *hints, *(["text_tokenizer.json"] if self.text_tower else [])]


def from_dict(kind: type[Config], values: object, where: str) -> Config:
    """Builds the dataclass `kind` from JSON values. Raises ModelError that names the field at fault, after `where`."""
    if not isinstance(values, dict):
        raise ModelError(f"{where}: an object is expected, not {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(fields)):
        raise ModelError(f"{where}: unknown field {unknown[0]!r}; the file may be of a newer rucap: upgrade it")
    built: dict[str, Any] = {}
    for name, spec in fields.items():
        if name in values:
            built[name] = _convert(hints[name], values[name], f"{where}.{name}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ModelError(f"{where}: the field {name!r} is missing")
    return kind(**built)


def _convert(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType or origin is typing.Union:
        if value is None and type(None) in arguments:
            return None
        (kind,) = (a for a in arguments if a is not type(None))
        return _convert(kind, value, where)
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where)  # type: ignore[arg-type]
    if origin is Literal:
        if value not in arguments:
            raise ModelError(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ModelError(f"{where}: a list is expected, not {type(value).__name__}")
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            raise ModelError(f"{where}: {len(inner)} values are expected, not {len(value)}")
        return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(inner, value, strict=True)))
    if origin is dict:
        if not isinstance(value, dict):
            raise ModelError(f"{where}: an object is expected, not {type(value).__name__}")
        return {k: _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ModelError(f"{where}: {kind.__name__} is expected, not {type(value).__name__}")
    return value


def read_config(path: Path) -> ModelConfig:
    """Reads `config.json`. Raises ModelError as `read_as` does."""
    return read_as(ModelConfig, path, "a model folder holds config.json")


def read_as(kind: type[Config], path: Path, remedy: str) -> Config:
    """Reads a JSON file as the dataclass `kind`.

    Raises ModelError with the file's name when it is missing (with the remedy), no JSON or not of this form.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from None
    return from_dict(kind, values, str(path))


def write_config(config: ModelConfig, path: Path) -> None:
    """Writes `config.json` under a temporary name, then renames it."""
    partial = path.with_name(path.name + ".part")
    text = json.dumps(dataclasses.asdict(config), ensure_ascii=False, indent=2)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
