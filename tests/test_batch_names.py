import os

import pytest

from rucap.batch.names import find_photos


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "in/2.webp", "in/1.jpg", "in/deep/x.jpeg", ".git/y.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*given, **options):
    return [item.row["image"] for item in find_photos(given, **options)]


def errors(*given):
    return [item.row.get("error", "") for item in find_photos(given)]


def test_folder_by_name_its_own_photos_first(tree):
    expected = ["a.PNG", "b.jpg", "in/1.jpg", "in/2.webp", "in/deep/x.jpeg"]
    assert names("photos") == [f"photos/{name}" for name in expected]
    assert names("photos", recursive=False) == ["photos/a.PNG", "photos/b.jpg"]


def test_patterns(tree):
    assert names("photos/*.jpg") == ["photos/b.jpg"]
    assert names("photos/**/*.jpg") == ["photos/b.jpg", "photos/in/1.jpg"]
    assert names("photos/in/*") == ["photos/in/1.jpg", "photos/in/2.webp", "photos/in/deep/x.jpeg"]
    (tree / "c[1].jpg").write_bytes(b"")
    assert names("c[1].jpg") == ["c[1].jpg"]


def test_a_file_and_an_address_are_taken_as_they_are(tree):
    given = ["photos/notes.txt", "missing.jpg", "https://example.org/a.jpg?x=[1]"]
    assert names(*given) == given
    assert errors(*given) == ["", "", ""]


def test_what_gives_no_photo_gives_an_error(tree):
    assert names("empty", "no*.jpg") == ["empty", "no*.jpg"]
    empty, pattern = errors("empty", "no*.jpg")
    assert "empty: no photos" in empty and "no*.jpg: matches no photo" in pattern


def test_links(tree):
    os.symlink(tree / "photos", tree / "photos" / "loop")
    os.symlink(tree / "nowhere.jpg", tree / "photos" / "broken.jpg")
    found = names("photos")
    assert "photos/broken.jpg" in found
    assert not any("loop" in name for name in found)
    assert names(str(tree / "photos" / "loop"), recursive=False)  # given by itself it is a folder


def test_pipe_in_a_folder_is_passed_over(tree):
    os.mkfifo(tree / "photos" / "pipe.jpg")
    assert "photos/pipe.jpg" not in names("photos")


def test_folders_are_read_when_their_turn_comes(tree, monkeypatch):
    read, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (read.append(path), scandir(path))[1])
    found = find_photos(["photos", "photos/in"])
    next(found)
    assert read == ["photos"]
    assert len(list(found)) == 7
    assert read == ["photos", "photos/in", "photos/in/deep", "photos/in", "photos/in/deep"]


def test_a_folder_that_cannot_be_read(tree, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if path.endswith("in"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names("photos") == ["photos/a.PNG", "photos/b.jpg", "photos/in"]
    assert "Permission denied" in errors("photos")[-1]
