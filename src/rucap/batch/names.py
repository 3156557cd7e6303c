"""From files, folders, patterns and URLs to the names of photos, one by one; at most a folder's are held at once.

A photo in a folder is known by its name's ending; a file named by itself is taken as it is.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator

from rucap.batch.items import Item
from rucap.images import describe, is_photo_name

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def find_photos(given: Iterable[str], recursive: bool = True) -> Iterator[Item]:
    """The photos of each file, folder, pattern (`*`, `?`, `[...]`, `**`) and URL, in the order given.

    A folder gives its own photos by name, then those of its folders where `recursive`; hidden folders and links to
    folders are passed over. Whatever gives no photo gives an error instead, so nothing given goes unnoticed.
    """
    for name in given:
        if _URL.match(name):
            yield _photo(name)
        elif os.path.isdir(name):
            yield from _or_error(name, _in_folder(name, recursive), "no photos in this folder; check the path")
        elif not os.path.lexists(name) and glob.has_magic(name):
            yield from _or_error(name, _matching(name, recursive), "matches no photo; check the pattern")
        else:
            yield _photo(name)


def _or_error(name: str, found: Iterator[Item], otherwise: str) -> Iterator[Item]:
    empty = True
    for photo in found:
        empty = False
        yield photo
    if empty:
        yield _none(name, otherwise)


def _in_folder(top: str, recursive: bool) -> Iterator[Item]:
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        photos, folders = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif is_photo_name(entry.name) and (entry.is_file() or entry.is_symlink()):
                        photos.append(entry.name)
        except OSError as error:
            yield _none(folder, f"cannot be read ({error.strerror}); check the folder")
            continue
        yield from (_photo(os.path.join(folder, name)) for name in sorted(photos))
        if recursive:
            inner = sorted((name for name in folders if not name.startswith(".")), reverse=True)
            waiting += (os.path.join(folder, name) for name in inner)


def _matching(pattern: str, recursive: bool) -> Iterator[Item]:
    for name in sorted(glob.iglob(pattern, recursive=True)):
        if not os.path.isdir(name):
            if is_photo_name(name):
                yield _photo(name)
        elif "**" not in pattern:  # which has matched what is in the folder, too
            yield from _in_folder(name, recursive)


def _photo(name: str) -> Item:
    return Item({"image": name}, name)


def _none(name: str, reason: str) -> Item:
    return Item({"image": name, "error": f"{describe(name)}: {reason}"})
