"""The one public object: photos in, Russian text out.

It puts the layers together (images, engine, prompts, decoding, text rules) and has no rules of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

import numpy as np

from rucap.decoding import GenerationSettings, Hypothesis
from rucap.encoding import BATCH, EncodedBatch, encode_photos
from rucap.engines.load import load_engine
from rucap.engines.protocol import Encoded, Engine
from rucap.errors import ImageError, OptionError, QuestionError
from rucap.images import Limits, Source
from rucap.model import prompts
from rucap.model.config import Calibration
from rucap.model.folder import ModelFolder, Precision, find_model
from rucap.model.sentence import checked_question, clean_answer, clean_caption
from rucap.options import CaptionOptions, WritingOptions, generation_settings
from rucap.ranking import Method, ranker
from rucap.results import Answer, Caption, Ranking, Score
from rucap.writing import Writer

if TYPE_CHECKING:
    from typing_extensions import Unpack

Photos = Sequence[Source]
Errors = Literal["raise", "return"]
Result = TypeVar("Result")
RANKERS = 4
"""Lists of labels that are kept ready to be compared, for photos that come one by one or batch by batch."""


class Captioner:
    """A model, ready to describe photos and to answer questions about them. Safe to share between threads.

    A photo is a path, an http(s) URL, bytes, a binary file object, a PIL image or an array. Methods that take one also
    take a list or tuple of them, and return a list then; in a list `errors="return"` puts an error in the place of its
    photo (or question), and the rest goes on. Errors: ImageError, QuestionError, OptionError.
    """

    def __init__(
        self,
        model: str | PathLike[str] = "tiny",
        *,
        precision: Precision | None = None,
        threads: int | None = None,
        engine: Literal["onnx", "torch"] | Engine = "onnx",
        device: str = "cpu",
        spin: bool = True,
        limits: Limits | None = None,
    ) -> None:
        """Opens a model by name, folder or hub id; its weights are loaded when they are first needed.

        `precision`: `int8` or `float32`; None takes int8 where the model has it. `threads`, `device` and `spin`: see
        `OnnxEngine`. `engine` may be one already loaded. Raises ModelError, OptionError.
        """
        self.folder = ModelFolder.open(find_model(model))
        self.config = self.folder.config
        if isinstance(engine, str):
            engine = load_engine(self.folder, engine, precision=precision, threads=threads, device=device, spin=spin)
        self.engine = engine
        self._writer = Writer(self.folder, engine)
        self._ranker = lru_cache(RANKERS)(partial(ranker, self.folder, engine, self._writer))
        self._limits = limits or Limits()

    @overload
    def caption(self, photos: Source, **options: Unpack[CaptionOptions]) -> Caption: ...  # type: ignore[overload-overlap]
    @overload
    def caption(self, photos: Photos, **options: Unpack[CaptionOptions]) -> list[Caption]: ...
    @overload
    def caption(
        self, photos: Photos, *, errors: Errors, **options: Unpack[CaptionOptions]
    ) -> list[Caption | ImageError]: ...
    def caption(self, photos: Source | Photos, *, errors: Errors = "raise", **options: Unpack[CaptionOptions]) -> Any:
        """Describes photos; `CaptionOptions` says how."""
        return self._each(photos, self._caption_writer(options), errors)

    def caption_encoded(self, encoded: Encoded, **options: Unpack[CaptionOptions]) -> list[Caption]:
        """`caption` of photos that the engine has encoded already."""
        return self._caption_writer(options)(encoded, range(len(encoded.prefix)))

    @overload
    def answer(self, photos: Source, questions: str, **options: Unpack[WritingOptions]) -> Answer: ...  # type: ignore[overload-overlap]
    @overload
    def answer(
        self, photos: Source | Photos, questions: Sequence[str], **options: Unpack[WritingOptions]
    ) -> list[Answer]: ...
    @overload
    def answer(
        self, photos: Source | Photos, questions: Sequence[str], *, errors: Errors, **options: Unpack[WritingOptions]
    ) -> list[Answer | ImageError | QuestionError]: ...
    def answer(
        self,
        photos: Source | Photos,
        questions: Sequence[str],
        *,
        errors: Errors = "raise",
        **options: Unpack[WritingOptions],
    ) -> Any:
        """Answers one question about each photo, several questions about one photo, or the n-th about the n-th."""
        if isinstance(questions, str) and _listed(photos) is None:
            return self.answer(photos, [questions], **options)[0]
        photos, asked = _paired(photos, questions)
        settings = generation_settings(self.folder, options, WritingOptions)
        raw = options.get("stop") == "original"
        results: list[Any] = [self._checked(question, settings, errors) for question in asked]
        good = [index for index, question in enumerate(results) if isinstance(question, str)]
        of_photo: dict[object, list[int]] = {}  # a photo that comes again is not encoded again
        for index in good:
            photo = photos[index]
            of_photo.setdefault(photo if isinstance(photo, str | PathLike) else id(photo), []).append(index)
        groups = list(of_photo.values())
        for batch in self._batches([photos[group[0]] for group in groups], errors):
            for place, error in batch.failed.items():
                for index in groups[place]:
                    results[index] = error
            rows = [(row, index) for row, place in enumerate(batch.indices) for index in groups[place]]
            for start in range(0, len(rows), BATCH):
                of_photos, indices = zip(*rows[start : start + BATCH], strict=True)
                texts = [results[index] for index in indices]
                answers = self._answers(batch.encoded.take(np.array(of_photos)), texts, settings, indices, raw)
                for index, answer in zip(indices, answers, strict=True):
                    results[index] = answer
        return results

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, photos: Source, labels: Sequence[str], *, form: str = ..., method: Method | None = ...
    ) -> Ranking: ...
    @overload
    def classify(
        self, photos: Photos, labels: Sequence[str], *, form: str = ..., method: Method | None = ...
    ) -> list[Ranking]: ...
    @overload
    def classify(
        self, photos: Photos, labels: Sequence[str], *, form: str = ..., method: Method | None = ..., errors: Errors
    ) -> list[Ranking | ImageError]: ...
    def classify(
        self,
        photos: Source | Photos,
        labels: Sequence[str],
        *,
        form: str = "{label}",
        method: Method | None = None,
        errors: Errors = "raise",
    ) -> Any:
        """Ranks labels, put into `form` ("на фото {label}"), by how well they fit a photo.

        `likelihood`: a label's score is its pointwise mutual information with the photo, a token: the mean of
        log p(token | photo) - log p(token | a blank photo), so that neither long nor rare labels lose (as in Holtzman
        et al., 2021). `similarity`: its score is CLIP's logit; for models with a text tower (see `TextTowerConfig`),
        in the languages that the tower reads. None takes the similarity where there is one.
        """
        rank = self._ranker(labels if isinstance(labels, str) else tuple(labels), form, method)
        return self._each(photos, lambda encoded, _: rank(encoded), errors)

    @overload
    def score(self, photos: Source, texts: Sequence[str]) -> list[Score]: ...  # type: ignore[overload-overlap]
    @overload
    def score(self, photos: Photos, texts: Sequence[str]) -> list[list[Score]]: ...
    @overload
    def score(self, photos: Photos, texts: Sequence[str], *, errors: Errors) -> list[list[Score] | ImageError]: ...
    def score(self, photos: Source | Photos, texts: Sequence[str], *, errors: Errors = "raise") -> Any:
        """How likely the model finds each text as the caption of each photo, the end included."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise OptionError("give at least one text to score")
        end = self.folder.tokenizer.id_of(self.config.generation.end_tokens[0])
        tokenizer, forms = self.folder.tokenizer, self.config.prompts
        tokens = [[*prompts.some_text_tokens(tokenizer, forms, text), end] for text in texts]

        def scores(encoded: Encoded, _: Sequence[int]) -> list[list[Score]]:
            rows = self._writer.likelihoods(encoded, tokens)
            return [
                [Score(t, float(p.sum()), float(p.mean())) for t, p in zip(texts, row, strict=True)] for row in rows
            ]

        return self._each(photos, scores, errors)

    def _batches(self, photos: Photos, errors: Errors) -> Iterator[EncodedBatch]:
        if errors not in ("raise", "return"):
            raise OptionError(f"errors {errors!r}: it is 'raise' or 'return'")
        for batch in encode_photos(photos, self.engine, self.config.encoder.preprocessing, self._limits):
            if batch.failed and errors == "raise":
                raise next(iter(batch.failed.values()))
            yield batch

    def _each(
        self, photos: Source | Photos, work: Callable[[Encoded, Sequence[int]], Sequence[Result]], errors: Errors
    ) -> Any:  # noqa: ANN401
        """`work`, from encoded photos and their places in the list to their results, on every photo."""
        if (listed := _listed(photos)) is None:
            return self._each([cast(Source, photos)], work, "raise")[0]
        results: dict[int, Result | ImageError] = {}
        for batch in self._batches(listed, errors):
            results |= batch.failed
            if batch.indices:
                results |= zip(batch.indices, work(batch.encoded, batch.indices), strict=True)
        return [results[index] for index in range(len(listed))]

    def _caption_writer(self, options: CaptionOptions) -> Callable[[Encoded, Sequence[int]], list[Caption]]:
        """Checks the options, before any photo is loaded."""
        count, raw = options.get("num_captions", 1), options.get("stop") == "original"
        settings = generation_settings(self.folder, options, CaptionOptions, count, options.get("begin", ""))
        prompt = prompts.caption_tokens(self.folder.tokenizer, self.config.prompts, options.get("detail"))

        def write(encoded: Encoded, places: Sequence[int]) -> list[Caption]:
            return [
                self._caption(each, count, raw)
                for each in self._writer.write(encoded, [prompt] * len(places), settings, places)
            ]

        return write

    def _caption(self, hypotheses: Sequence[Hypothesis], count: int, raw: bool) -> Caption:
        found: dict[str, Caption] = {}
        for hypothesis in hypotheses:
            text = self._text(hypothesis, clean_caption, raw)
            confidence = _confidence(self.config.caption_calibration, hypothesis)
            found.setdefault(text.lower(), Caption(text, confidence, hypothesis.log_probability))
        best, *others = [caption for text, caption in found.items() if text] or list(found.values())
        return dataclasses.replace(best, alternatives=tuple(others[: count - 1]))

    def _checked(self, question: str, settings: GenerationSettings, errors: Errors) -> str | QuestionError:
        try:
            question = checked_question(question, self.config.language)
            tokens = prompts.question_tokens(self.folder.tokenizer, self.config.prompts, question)
            if len(tokens) + settings.max_tokens > self._writer.room:
                raise QuestionError(f"the question {question!r} is too long for this model: ask in fewer words")
        except QuestionError as error:
            if errors == "raise":
                raise
            return error
        return question

    def _answers(
        self,
        encoded: Encoded,
        questions: Sequence[str],
        settings: GenerationSettings,
        numbers: Sequence[int],
        raw: bool,
    ) -> list[Answer]:
        asked = [prompts.question_tokens(self.folder.tokenizer, self.config.prompts, each) for each in questions]
        found = self._writer.write(encoded, asked, settings, numbers)
        return [self._answer(question, each, raw) for question, each in zip(questions, found, strict=True)]

    def _answer(self, question: str, hypotheses: Sequence[Hypothesis], raw: bool) -> Answer:
        """The likeliest that says anything."""
        for hypothesis in hypotheses:
            if text := self._text(hypothesis, clean_answer, raw):
                break
        confidence = _confidence(self.config.answer_calibration, hypothesis)
        return Answer(question, text, confidence, hypothesis.log_probability)

    def _text(self, hypothesis: Hypothesis, clean: Callable[[str, str, bool], str], raw: bool) -> str:
        """What was written: clean, or all of it as it is."""
        text = self.folder.tokenizer.decode(hypothesis.tokens, special=raw)
        return text if raw else clean(text, self.config.language, hypothesis.finished)


def _listed(photos: Source | Photos) -> Photos | None:
    """The photos of a list or tuple; None for one photo, whatever it is (an array and bytes are sequences, too)."""
    return photos if isinstance(photos, list | tuple) else None


def _paired(photos: Source | Photos, questions: Sequence[str]) -> tuple[Photos, list[str]]:
    """The n-th photo and the n-th question, where one of the two may stand for all."""
    if (listed := _listed(photos)) is None:
        return [cast(Source, photos)] * len(questions), list(questions)
    asked = [questions] * len(listed) if isinstance(questions, str) else list(questions)
    if len(asked) != len(listed):
        raise OptionError(f"{len(listed)} photos and {len(asked)} questions: give one question, or one for each photo")
    return listed, asked


def _confidence(calibration: Calibration | None, hypothesis: Hypothesis) -> float | None:
    if calibration is None:
        return None
    mean = hypothesis.log_probability / len(hypothesis.token_log_probabilities)
    return (1 + math.tanh((calibration.slope * mean + calibration.bias) / 2)) / 2  # the sigmoid, without overflow
