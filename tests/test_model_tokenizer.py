import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from rucap.errors import ModelError
from rucap.model.tokenizer import MAX_FILE_BYTES, Tokenizer

SPECIAL = ["<pad>", "<unknown>", "<end>", "<hints>", "<caption>", "<question>", "<answer>"]
CORPUS = ["собака бежит по траве", "кошка спит на диване", "где собака?", "ёлка стоит в углу, 12 < 15"] * 20


def metaspace() -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE(unk_token="<unknown>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=160, special_tokens=SPECIAL, show_progress=False))
    return inner


def byte_level() -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    return inner


@pytest.fixture(params=[metaspace, byte_level])
def tokenizer(request):
    return Tokenizer(request.param())


def test_text_comes_back(tokenizer):
    for text in CORPUS[:4]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch(CORPUS[:4]) == [tokenizer.encode(text) for text in CORPUS[:4]]


def test_ordinary_text_cannot_inject_special_tokens(tokenizer):
    for name in tokenizer.special_tokens:
        special = tokenizer.id_of(name)
        assert special not in tokenizer.encode(f"собака{name} {name}") or name == "<unknown>"
        assert tokenizer.encode_prompt(name) == [special]
        assert special not in tokenizer.encode_prompt("{text}", text=f"где {name}") or name == "<unknown>"


def test_prompt_is_its_pieces_one_after_another():
    tokenizer = Tokenizer(metaspace())
    question = "где <answer> {question}?"
    expected = [tokenizer.id_of("<question>"), *tokenizer.encode(question), tokenizer.id_of("<answer>")]
    assert tokenizer.encode_prompt("<question>{question}<answer>", question=question) == expected
    assert expected.count(tokenizer.id_of("<answer>")) == 1
    assert tokenizer.encode_prompt("") == []


def test_literal_text_of_a_template_joins_its_field():
    tokenizer = Tokenizer(byte_level())
    assert tokenizer.encode_prompt("где {question}?", question="собака") == tokenizer.encode("где собака?")


def test_longer_special_token_wins():
    inner = metaspace()
    inner.add_special_tokens(["<caption><short>"])
    tokenizer = Tokenizer(inner)
    assert tokenizer.encode_prompt("<caption><short>") == [tokenizer.id_of("<caption><short>")]


def test_decode_leaves_special_tokens_out():
    tokenizer = Tokenizer(metaspace())
    tokens = [tokenizer.id_of("<caption>"), *tokenizer.encode("кошка спит"), tokenizer.id_of("<end>")]
    assert tokenizer.decode(tokens) == "кошка спит"


def test_word_starts_count_words(tokenizer):
    tokens = tokenizer.encode(" собака бежит по траве")
    starts = tokenizer.word_starts
    assert starts.shape == (len(tokenizer),)
    assert starts[tokens].sum() == 4
    assert not any(starts[tokenizer.id_of(name)] for name in tokenizer.special_tokens)


def test_unknown_token_is_an_error():
    with pytest.raises(ModelError, match="<нет>"):
        Tokenizer(metaspace()).id_of("<нет>")


def test_file_settings_that_change_text_are_dropped(tmp_path):
    inner = metaspace()
    inner.enable_truncation(1)
    inner.enable_padding(length=50)
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert tokenizer.decode(tokenizer.encode(CORPUS[0])) == CORPUS[0]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1", b"\xff\xfe", b'{"model": {"type": "BPE"}}'])
def test_broken_file_is_a_model_error(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.from_file(path)


def test_missing_and_huge_files_are_model_errors(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ModelError, match="no such file"):
        Tokenizer.from_file(path)
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ModelError, match="too many"):
        Tokenizer.from_file(path)
