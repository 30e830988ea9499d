import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from core.report import Report, ReportPair
from core.report_json import SCHEMA, Fingerprint, write_json
from core.text import well_formed
from tests.core.report_samples import (
    HOSTILE,
    degraded,
    failed,
    hostile,
    report_of,
    sample_pairs,
)

SCHEMA_FILE = json.loads(files("core").joinpath("data/pairs.schema.json").read_text("utf-8"))
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,),
    "null": (type(None),), "integer": (int,), "number": (int, float),
}  # fmt: skip


def text_of(report: Report, pairs: Sequence[ReportPair] = ()) -> str:
    file = io.StringIO()
    write_json(report, pairs, file)
    return file.getvalue()


def faults(value: Any, schema: dict[str, Any], where: str = "$") -> Iterator[str]:
    """Where the value departs from the schema, for the keywords that `pairs.schema.json` uses."""
    known = {"type", "properties", "required", "additionalProperties", "items", "minItems",
             "maxItems", "minimum", "maximum", "exclusiveMinimum", "pattern", "enum", "const",
             "anyOf", "$ref", "$defs", "$schema", "title", "description"}  # fmt: skip
    assert set(schema) <= known, f"the check does not know {set(schema) - known}"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        yield from faults(value, SCHEMA_FILE["$defs"][name], where)
    if "anyOf" in schema and all(list(faults(value, one, where)) for one in schema["anyOf"]):
        yield f"{where}: {value!r} fits no alternative"
    if "type" in schema:
        fits = isinstance(value, TYPES[schema["type"]])
        if not fits or (isinstance(value, bool) and schema["type"] != "boolean"):
            yield f"{where}: {value!r} is not of type {schema['type']}"
            return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} not in {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{where}: {value!r} is not {schema['const']!r}"
    if "pattern" in schema and not re.search(schema["pattern"], str(value)):
        yield f"{where}: {value!r} does not match"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{where}: {value} is too small"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"{where}: {value} is too large"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        yield f"{where}: {value} is too small"
    if isinstance(value, list):
        items: list[Any] = value
        if not schema.get("minItems", 0) <= len(items) <= schema.get("maxItems", len(items)):
            yield f"{where}: {len(items)} items"
        for position, item in enumerate(items):
            yield from faults(item, schema.get("items", {}), f"{where}[{position}]")
    if isinstance(value, dict):
        fields: dict[str, Any] = value
        properties = schema.get("properties", {})
        yield from (
            f"{where}: {key} missing" for key in schema.get("required", ()) if key not in fields
        )
        extra = schema.get("additionalProperties", True)
        for key, item in fields.items():
            if key in properties:
                yield from faults(item, properties[key], f"{where}.{key}")
            elif extra is False:
                yield f"{where}: {key} is not in the schema"
            elif extra is not True:
                yield from faults(item, extra, f"{where}.{key}")


@pytest.mark.parametrize(
    ("report", "pairs"),
    [
        (report_of(()), ()),
        (degraded(report_of(())), ()),
        (failed(), ()),
        (report_of(sample_pairs()), sample_pairs()),
        hostile(HOSTILE[0]),
    ],
)
def test_every_outcome_fits_the_published_schema(
    report: Report, pairs: Sequence[ReportPair]
) -> None:
    written = json.loads(text_of(report, pairs))
    assert written["schema"] == SCHEMA
    assert list(faults(written, SCHEMA_FILE)) == []


def test_the_schema_check_can_fail() -> None:
    written = json.loads(text_of(report_of(sample_pairs()), sample_pairs()))
    written["pairs"][0]["tier"] = "C"
    written["pairs"][1]["a"]["page"] = 0
    del written["report"]["status"]
    written["report"]["extra"] = 1
    assert len(list(faults(written, SCHEMA_FILE))) == 4


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_back_as_it_was_out_of_plain_ascii(text: str) -> None:
    report, pairs = hostile(text)
    raw = text_of(report, pairs)
    assert raw.isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f<>&]", raw)
    written = json.loads(raw)
    json.dumps(written, ensure_ascii=False).encode("utf-8")  # no half of a character is left
    assert written["report"]["title"] == well_formed(text)
    assert [one["a"]["name"] for one in written["pairs"]] == [well_formed(text)] * 5


def test_a_pair_can_be_followed_to_the_object_in_the_file() -> None:
    first = sample_pairs()[0]
    written = json.loads(text_of(report_of([first]), [first]))["pairs"][0]
    for letter, side in (("a", first.a), ("b", first.b)):
        record = written[letter]
        assert record["document"] == side.document
        assert (record["page"], record["xref"]) == (side.page, side.xref)
        assert record["crop"]["sha256"] == hashlib.sha256(side.crop.data).hexdigest()
    assert written["channels"] == ["local"]
    assert written["code_version"] == first.code_version
    assert first.aligned is not None
    assert written["aligned_sha256"] == hashlib.sha256(first.aligned).hexdigest()


def test_equal_results_are_equal_bytes_whatever_the_order_of_keys() -> None:
    pairs = sample_pairs()
    report = report_of(pairs)
    turned = replace(report, specs=dict(reversed(list(report.specs.items()))))
    other = [replace(one, evidence=dict(reversed(list(one.evidence.items())))) for one in pairs]
    assert text_of(report, pairs) == text_of(turned, other)


def test_the_fingerprint_is_the_hash_of_the_file() -> None:
    for pairs in (sample_pairs(), []):
        report = report_of(pairs)
        fingerprint = Fingerprint(report)
        for one in pairs:
            fingerprint.add(one)
        assert fingerprint.hex() == hashlib.sha256(text_of(report, pairs).encode()).hexdigest()


def test_a_file_that_was_cut_off_is_no_json() -> None:
    pairs = sample_pairs()
    whole = text_of(report_of(pairs), pairs)
    for end in range(0, len(whole) - 2, 97):
        with pytest.raises(json.JSONDecodeError):
            json.loads(whole[:end])


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    one: Any = replace(
        sample_pairs()[0],
        inliers=np.int64(7),  # pyright: ignore[reportArgumentType]
        ncc=np.float32(0.5),  # pyright: ignore[reportArgumentType]
        evidence={"x": np.float32(0.25)},  # pyright: ignore[reportArgumentType]
    )
    written = json.loads(text_of(report_of([one]), [one]))["pairs"][0]
    assert (written["inliers"], written["ncc"], written["evidence"]) == (7, 0.5, {"x": 0.25})
