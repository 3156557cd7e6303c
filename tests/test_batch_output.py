import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rucap.batch.formats import format_of, json_line, records
from rucap.batch.output import OutputFile
from rucap.errors import DataError, OptionError

COLUMNS = ("image", "caption", "confidence", "error")
ROWS = [
    {"image": "a.jpg", "caption": "Собака бежит", "confidence": 0.5},
    {"image": 'b "1",\n.jpg', "caption": "Кошка, спит", "confidence": None},
    {"image": "c.jpg", "caption": None, "confidence": 0.25},
]
FAILED = {"image": "d.jpg", "error": "d.jpg: no such file"}


def write(path, rows):
    with OutputFile(path, COLUMNS) as output:
        fresh = [row for row in rows if row not in output]
        output.write(fresh)
    return fresh


def read(path):
    form = format_of(path, COLUMNS)
    with path.open("rb") as file:
        return [form.decode(record) for record in records(file, form) if record != form.header]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_rows_come_back(tmp_path, name):
    write(tmp_path / name, [*ROWS, FAILED])
    found = read(tmp_path / name)
    assert [row["image"] for row in found] == [*(row["image"] for row in ROWS), "d.jpg"]
    assert found[0] == {"image": "a.jpg", "caption": "Собака бежит", "confidence": 0.5 if "jsonl" in name else "0.5"}


def test_json_is_plain_and_csv_has_a_header(tmp_path):
    write(tmp_path / "out.jsonl", ROWS[:1])
    assert (tmp_path / "out.jsonl").read_text("utf-8") == json.dumps(ROWS[0], ensure_ascii=False) + "\n"
    write(tmp_path / "out.csv", [*ROWS[:1], FAILED])
    assert (tmp_path / "out.csv").read_text("utf-8").splitlines() == [
        '"image","caption","confidence","error"',
        '"a.jpg","Собака бежит",0.5,""',
        '"d.jpg","","","d.jpg: no such file"',
    ]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_killed_at_any_byte_it_goes_on(tmp_path, name):
    path = tmp_path / name
    write(path, ROWS)
    whole = path.read_bytes()
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        write(path, ROWS)
        assert path.read_bytes() == whole, size


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_what_failed_is_tried_again(tmp_path, name):
    path = tmp_path / name
    write(path, [ROWS[0], FAILED, ROWS[1]])
    mended = {"image": "d.jpg", "caption": "Лес", "confidence": 0.75}
    assert write(path, [ROWS[0], mended, ROWS[1]]) == [mended]
    write(tmp_path / f"expected-{name}", [ROWS[0], ROWS[1], mended])
    assert path.read_bytes() == (tmp_path / f"expected-{name}").read_bytes()
    assert write(path, [ROWS[0], mended, ROWS[1]]) == []
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"expected-{name}", name]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("out.jsonl", b"[1, 2]\n"),
        ("out.jsonl", b'{"image": "a.jpg"}\n\xff\xfe\n'),
        ("out.jsonl", b"\x89PNG"),
        ("out.jsonl", b'{"' + b"x" * (1 << 21)),
        ("out.csv", b"name,price\na,1\n"),
        ("out.csv", b'"image","caption","confidence","error"\n"a.jpg"\n'),
    ],
)
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="choose another file"):
        write(tmp_path / name, ROWS)
    assert (tmp_path / name).read_bytes() == content


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(OptionError, match=r"\.jsonl or a \.csv"):
        write(tmp_path / "out.txt", ROWS)
    with pytest.raises(OptionError, match="cannot be written"):
        write(tmp_path / "missing" / "out.csv", ROWS)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OptionError, match="cannot be written"):
        write(tmp_path / "folder.csv", ROWS)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(blacklist_characters="\0")).filter(bool), unique=True, max_size=5))
def test_any_name_is_found_again(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    names = [name.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape") for name in names]
    for name in ("out.jsonl", "out.csv"):
        rows = [{"image": image, "caption": "Лес", "confidence": 0.5} for image in names]
        assert write(folder / name, rows) == rows
        assert write(folder / name, rows) == []
        assert [row["image"] for row in read(folder / name)] == names


def test_a_name_that_is_not_utf8_stays_json():
    line = json_line({"image": b"\xff.jpg".decode("utf-8", "surrogateescape")})
    assert json.loads(line.encode("utf-8"))["image"].encode("utf-8", "surrogateescape") == b"\xff.jpg"
