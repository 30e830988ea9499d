"""Manifests: the list of a gallery's items, as CSV, JSON or one JSON object per line."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, cast

from core.errors import InputError
from core.gallery import GalleryItem
from core.text import well_formed

NAMES = {
    "item_id": ("id", "item_id", "card_id"),
    "name": ("name", "title"),
    "set_code": ("set", "set_code"),
    "number": ("number", "num", "no"),
    "language": ("language", "lang"),
    "images": ("image", "images", "template", "templates", "file", "files"),
}
"""What a field may be called, in the order in which names are tried."""

MOST_ID, MOST_TEXT = 200, 500
"""Letters of an id and of any other field."""


@dataclass(frozen=True)
class ManifestRow:
    """One item and the pictures that the manifest names for it, relative to the manifest."""

    item: GalleryItem
    images: tuple[str, ...]


def read_manifest(name: str, text: str) -> Iterator[ManifestRow | InputError]:
    """The items of a manifest, in its order; a row at fault is given as what is wrong with it.

    Args:
        name: What the manifest is called; its ending says what it is: ``.csv``, ``.jsonl`` or
            ``.json`` (a list of objects).
        text: Its content.

    Raises:
        InputError: It is none of these, cannot be read at all, or its first line names no id.
    """
    ending = PurePosixPath(name).suffix.lower()
    if ending == ".csv":
        rows = _csv_rows(name, text)
    elif ending in (".jsonl", ".ndjson"):
        rows = _json_lines(text)
    elif ending == ".json":
        rows = _json_list(name, text)
    else:
        raise InputError(f"{name}: a manifest ends in .csv, .jsonl or .json")
    seen: dict[str, str] = {}
    for where, row in rows:
        place = f"{name}, {where}"
        try:
            if isinstance(row, str):
                raise InputError(row)
            found = _row(row, place)
            if found.item.item_id in seen:
                raise InputError(
                    f"the id {found.item.item_id!r} is that of {seen[found.item.item_id]}"
                )
            seen[found.item.item_id] = where
            yield found
        except InputError as error:
            yield InputError(f"{place}: {error}")


def _csv_rows(name: str, text: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        fields = {field.strip().casefold() for field in reader.fieldnames or ()}
        if not fields.intersection(NAMES["item_id"]):
            raise InputError(
                f"{name}: its first line is to name the fields, with commas between them, and one "
                "of them is id"
            )
        for row in reader:
            if None in row:
                yield f"line {reader.line_num}", "more fields than the first line names"
            else:
                yield f"line {reader.line_num}", {k: v for k, v in row.items() if v is not None}
    except csv.Error as error:
        yield f"line {reader.line_num}", f"it is no CSV from here on ({error})"


def _json_lines(text: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"line {number}", _object(line)


def _json_list(name: str, text: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is no JSON: {error}") from error
    if not isinstance(rows, list):
        raise InputError(f"{name} is to be a list of objects, one for each item")
    for number, row in enumerate(cast(list[Any], rows), start=1):
        is_object = isinstance(row, dict)
        yield f"item {number}", cast(dict[str, Any], row) if is_object else "no object of fields"


def _object(line: str) -> dict[str, Any] | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"no JSON ({error})"
    return cast(dict[str, Any], row) if isinstance(row, dict) else "no object of fields"


def _row(row: dict[str, Any], source: str) -> ManifestRow:
    known = {str(key).strip().casefold(): value for key, value in row.items()}

    def field(name: str) -> Any:
        return next((known[each] for each in NAMES[name] if known.get(each) not in (None, "")), "")

    item_id = _text(field("item_id"), "id", MOST_ID)
    if not item_id:
        raise InputError("it has no id")
    return ManifestRow(
        GalleryItem(
            item_id=item_id,
            name=_text(field("name"), "name"),
            set_code=_text(field("set_code"), "set"),
            number=_text(field("number"), "number"),
            language=_text(field("language"), "language"),
            source=source,
        ),
        _images(field("images")),
    )


def _text(value: Any, name: str, most: int = MOST_TEXT) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise InputError(f"its {name} is to be a text or a number")
    text = well_formed(str(value).replace("\0", "")).strip()
    if len(text) > most:
        raise InputError(f"its {name} has {len(text)} letters; at most {most} are taken")
    return text


def _images(value: Any) -> tuple[str, ...]:
    """Names of pictures: a list, or one text with ``;`` or ``|`` between them."""
    parts: Sequence[Any] = cast(list[Any], value) if isinstance(value, list) else [value]
    if isinstance(value, str):
        parts = value.replace("|", ";").split(";")
    if not all(isinstance(part, str) for part in parts):
        raise InputError("its images are to be names of files")
    names = [well_formed(part).strip() for part in parts if part.strip()]
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or "\0" in name or ":/" in name:
            raise InputError(
                f"the picture {name!r} is to be named relative to the manifest, within its folder"
            )
    return tuple(dict.fromkeys(names))
