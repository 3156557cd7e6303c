"""Decoding writes what `transformers.generate` writes from the same weights, prefix and prompts."""

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rucap.decoding import GenerationSettings, generate  # noqa: E402
from rucap.engines.torch import TorchLanguageModel  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Passing `no_repeat_ngram_size`")

WIDTH, VOCABULARY, PREFIX, END = 16, 30, 3, 7
LENGTHS = (4, 1, 0, 3)  # of the prompts: the shorter ones are padded on the left


@functools.cache
def model(seed):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=WIDTH, n_layer=2, n_head=2, initializer_range=0.4,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    network = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        # Peaky enough that no two sequences tie, with the end token within reach of each of them.
        network.transformer.ln_f.weight.mul_(1.5)
        network.transformer.ln_f.bias.add_(0.8 * network.lm_head.weight[END])
    return network


def prompts(seed):
    generator = np.random.default_rng(seed)
    longest = max(LENGTHS)
    prefix = generator.normal(size=(len(LENGTHS), PREFIX, WIDTH)).astype(np.float32)
    tokens = generator.integers(0, VOCABULARY, size=(len(LENGTHS), longest))
    mask = np.arange(longest) >= longest - np.array(LENGTHS)[:, None]
    return prefix, tokens, mask


def expected(seed, end_tokens=(END,), num_return_sequences=1, **options):
    """For each photo and hypothesis: the tokens before the end token, and the score of beam search."""
    prefix, tokens, mask = prompts(seed)
    network = model(seed)
    results = []
    # An empty prompt beside longer ones ends in padding, which transformers would read from: it goes alone.
    for rows in ([0, 1, 3], [2]):
        kept = mask[rows].any(axis=0)
        embedded = network.transformer.wte(torch.tensor(tokens[rows][:, kept]))
        inputs = torch.cat([torch.tensor(prefix[rows]), embedded], dim=1)
        whole = np.concatenate([np.ones((len(rows), PREFIX), bool), mask[rows][:, kept]], axis=1)
        output = network.generate(
            inputs_embeds=inputs, attention_mask=torch.tensor(whole).long(), eos_token_id=list(end_tokens),
            pad_token_id=end_tokens[0], num_return_sequences=num_return_sequences, return_dict_in_generate=True,
            output_scores=True, **options,
        )  # fmt: skip
        scores = getattr(output, "sequences_scores", None)
        for i, sequence in enumerate(output.sequences.tolist()):
            ends = [t for t, token in enumerate(sequence) if token in end_tokens]
            text = tuple(sequence[: ends[0]] if ends else sequence)
            results.append((rows[i // num_return_sequences], text, None if scores is None else scores[i].item()))
    by_photo = [[(text, score) for row, text, score in results if row == photo] for photo in range(len(LENGTHS))]
    return by_photo


def written(seed, **settings):
    settings = {"end_tokens": (END,), **settings}
    return generate(TorchLanguageModel(model(seed)), *prompts(seed), GenerationSettings(**settings))


def assert_equal(ours, theirs, length_penalty=0.0):
    for hypotheses, references in zip(ours, theirs, strict=True):
        assert [h.tokens for h in hypotheses] == [text for text, _ in references]
        for hypothesis, (_, score) in zip(hypotheses, references, strict=True):
            if score is not None:
                assert hypothesis.score(length_penalty) == pytest.approx(score, abs=1e-4)


def test_these_models_both_reach_the_end_token_and_the_limit():
    results = [h for seed in range(20) for photo in written(seed, max_tokens=12, beams=3, hypotheses=3) for h in photo]
    share = sum(h.finished for h in results) / len(results)
    assert 0.2 < share < 0.9
    assert len({h.tokens for h in results}) > len(results) / 2
    assert len({len(h.tokens) for h in results}) > 5


@pytest.mark.parametrize("max_tokens", [1, 6, 14])
def test_greedy(max_tokens):
    for seed in range(20):
        theirs = expected(seed, max_new_tokens=max_tokens, do_sample=False)
        assert_equal(written(seed, max_tokens=max_tokens), theirs)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("beams", [2, 3, 4, 5])
def test_beams(beams, length_penalty, early_stopping):
    for seed in range(4):
        for max_tokens in (1, 4, 12):
            theirs = expected(
                seed, max_new_tokens=max_tokens, num_beams=beams, num_return_sequences=beams, do_sample=False,
                length_penalty=length_penalty, early_stopping=early_stopping,
            )  # fmt: skip
            ours = written(
                seed, max_tokens=max_tokens, beams=beams, hypotheses=beams, length_penalty=length_penalty,
                early_stopping=early_stopping,
            )  # fmt: skip
            assert_equal(ours, theirs, length_penalty)


CONSTRAINTS = {
    "bigrams": ({"no_repeat_ngram": 2}, {"no_repeat_ngram_size": 2}),
    "trigrams": ({"no_repeat_ngram": 3}, {"no_repeat_ngram_size": 3}),
    "single tokens": ({"no_repeat_ngram": 1}, {"no_repeat_ngram_size": 1}),
    "min_tokens": ({"min_tokens": 5}, {"min_new_tokens": 5}),
    "suppressed": ({"suppressed": (1, 2, 3, 11)}, {"suppress_tokens": [1, 2, 3, 11]}),
    "several ends": ({"end_tokens": (END, 4, 19)}, {"end_tokens": (END, 4, 19)}),
}


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints(name, beams):
    ours, theirs = CONSTRAINTS[name]
    common = {"max_new_tokens": 10, "num_beams": beams, "num_return_sequences": beams, "do_sample": False}
    changed = 0
    for seed in range(10):
        free = written(seed, max_tokens=10, beams=beams, hypotheses=beams)
        bound = written(seed, max_tokens=10, beams=beams, hypotheses=beams, **ours)
        assert_equal(bound, expected(seed, length_penalty=0.0, **common, **theirs))
        changed += [[h.tokens for h in p] for p in free] != [[h.tokens for h in p] for p in bound]
    assert changed > 0


@pytest.mark.parametrize("beams", [1, 3])
def test_banned_sequences(beams):
    """The first one, two or three tokens of what the model would write unbound are banned."""
    changed = 0
    for seed in range(10):
        free = [photo[0].tokens for photo in written(seed, max_tokens=10, beams=beams)]
        banned = tuple({text[: 1 + len(text) % 3] for text in free if text})
        theirs = expected(
            seed, max_new_tokens=10, num_beams=beams, num_return_sequences=beams, do_sample=False, length_penalty=0.0,
            bad_words_ids=[list(sequence) for sequence in banned] or None,
        )  # fmt: skip
        ours = written(seed, max_tokens=10, beams=beams, hypotheses=beams, banned=banned)
        assert_equal(ours, theirs)
        changed += [photo[0].tokens for photo in ours] != free
    assert changed > 5


def repeats_itself(tokens):
    return len(set(tokens)) < len(tokens)


class RepeatsItself(transformers.StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.tensor([repeats_itself(row) for row in input_ids.tolist()])


@pytest.mark.parametrize("beams", [1, 4])
def test_stop_rule(beams):
    stopped = 0
    for seed in range(10):
        theirs = expected(
            seed, max_new_tokens=10, num_beams=beams, num_return_sequences=1, do_sample=False, length_penalty=0.5,
            stopping_criteria=transformers.StoppingCriteriaList([RepeatsItself()]),
        )  # fmt: skip
        ours = written(seed, max_tokens=10, beams=beams, length_penalty=0.5, stops=repeats_itself)
        assert_equal(ours, theirs, length_penalty=0.5)
        stopped += sum(h.finished and repeats_itself(h.tokens) for photo in ours for h in photo)
    assert stopped > 0


@pytest.mark.slow
def test_everything_at_once_over_many_models():
    generator = np.random.default_rng(0)
    for seed in range(300):
        beams, max_tokens = int(generator.integers(2, 6)), int(generator.integers(1, 25))
        options = {
            "length_penalty": float(generator.choice([0.0, 0.5, 1.0, 2.0, -0.5])),
            "early_stopping": bool(generator.integers(2)),
        }
        ngram, least = int(generator.integers(0, 4)), int(generator.integers(0, max_tokens))
        ends = (END, *generator.integers(0, VOCABULARY, size=generator.integers(0, 3)).tolist())
        banned = tuple(tuple(generator.integers(0, VOCABULARY, size=n).tolist()) for n in (1, 1, 2, 2, 3))
        banned = tuple(sequence for sequence in banned if sequence[-1] not in ends)
        theirs = expected(
            seed, max_new_tokens=max_tokens, num_beams=beams, num_return_sequences=beams, do_sample=False,
            no_repeat_ngram_size=ngram, min_new_tokens=least, end_tokens=ends,
            bad_words_ids=[list(sequence) for sequence in banned] or None, **options,
        )  # fmt: skip
        ours = written(
            seed, max_tokens=max_tokens, beams=beams, hypotheses=beams, no_repeat_ngram=ngram, min_tokens=least,
            end_tokens=ends, banned=banned, **options,
        )  # fmt: skip
        assert_equal(ours, theirs, options["length_penalty"])
