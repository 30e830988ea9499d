"""The corpus of injections through a real run: inert in every place where its words come out."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from markdown_it import MarkdownIt

import store.documents
from benchmarks.faults.injections import INJECTIONS
from core.report_tsv import COLUMNS
from core.text import legible, visible
from resources.postgres import Postgres
from store.documents import Document
from tests.hostile import small_paper
from tests.security.conftest import Home, HostileRun

pytestmark = pytest.mark.timeout(900)  # the fixture is a run of its own

ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def acting(text: str, allowed: str = "\n") -> set[str]:
    """Characters that act without showing."""
    return {c for c in text if unicodedata.category(c) in ACTING and c not in allowed}


def strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            yield from strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from strings(key)
            yield from strings(item)


def test_the_run_ends_as_incomplete_and_every_file_is_in_the_report(
    hostile_run: HostileRun,
) -> None:
    assert hostile_run.outcome.returncode == 3, hostile_run.outcome.stderr
    report = json.loads((hostile_run.out / "pairs.json").read_text("ascii"))
    told = {document["name"] for document in report["report"]["documents"]}
    assert told == {legible(name) for name in hostile_run.names}
    assert len(report["pairs"]) >= 2 * 5


def test_nothing_acts_on_the_terminal_and_no_line_is_forged(hostile_run: HostileRun) -> None:
    status = hostile_run.home.quire("status")
    assert status.returncode == 0
    for text in (hostile_run.outcome.stdout, hostile_run.outcome.stderr, status.stdout):
        assert acting(text) == set()
    for line in hostile_run.outcome.stderr.splitlines():
        assert line.startswith("quire: ")
    assert "quire: finished, everything was looked at" not in (
        *hostile_run.outcome.stderr.splitlines(),
        *hostile_run.outcome.stdout.splitlines(),
    )


def test_markup_of_the_terminal_library_is_shown_as_it_is(hostile_run: HostileRun) -> None:
    said = hostile_run.outcome.stderr
    assert "[bold red]loud" in said
    assert ":warning: :skull:" in said
    assert "[link=http:" in said


def test_the_table_reads_the_same_by_every_separator_and_holds_no_formula(
    hostile_run: HostileRun,
) -> None:
    table = (hostile_run.out / "pairs.tsv").read_text("utf-8")
    assert acting(table, allowed="\n\t") == set()
    rows = list(csv.DictReader(io.StringIO(table), dialect="excel-tab", strict=True))
    assert len(table.splitlines()) == len(rows) + 1
    assert all(len(line.split("\t")) == len(COLUMNS) for line in table.splitlines())
    names = {row["Name_A"].lstrip("'") for row in rows if row["Record"] == "document"}
    assert len(names) == len(hostile_run.names)
    sign = r"[=+\-@\uff1d\uff0b\uff0d\uff20](?![\d.]+(?:e-?\d+)?[\]\s]*(?:$|[,;|\t]))"
    for line in table.splitlines():
        for start in re.finditer(r"(?:^|[,;|\t])([\s\"'`]*)", line):
            assert "'" in start[1] or not re.match(sign, line[start.end() :]), line[start.start() :]


def test_the_record_is_strict_json_that_a_page_may_hold(hostile_run: HostileRun) -> None:
    raw = (hostile_run.out / "pairs.json").read_text("ascii")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f<>&]", raw)
    json.dumps(json.loads(raw), ensure_ascii=False).encode("utf-8")


def test_what_dagster_stores_is_plain_text(hostile_run: HostileRun) -> None:
    """The UI renders Markdown metadata: none of it may come from a file."""
    events = hostile_run.home.events()
    texts = {text for event in events for text in strings(event)}
    assert any("quire_was_injected" in text for text in texts)
    for text in texts:
        assert acting(text, allowed="\n\t") == set(), ascii(text[:300])
    markdown = [text for event in events for text in _markdown(event)]
    for text in markdown:
        assert re.fullmatch(r"!\[panels\]\(data:image/jpeg;base64,[\w+/=]+\)", text), text[:200]


def _markdown(value: Any) -> Iterator[str]:
    """Texts that Dagster was told to render."""
    if isinstance(value, list):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _markdown(item)
    elif isinstance(value, dict):
        if str(value.get("__class__")).startswith("Markdown"):
            yield str(value.get("md_str"))
        for item in value.values():  # pyright: ignore[reportUnknownVariableType]
            yield from _markdown(item)


def test_descriptions_of_checks_which_dagster_renders_hold_words_from_outside_as_code(
    hostile_run: HostileRun,
) -> None:
    """Anything else could make the browser of whoever looks ask for a picture somewhere."""
    own = {
        "Everything was looked at.",
        "No image encoder is configured, so there is nothing to embed.",
        "; ",
    }
    spans: list[str] = []
    for event in hostile_run.home.events():
        for description in _evaluations(event) if event["run_id"] else ():
            for part in MarkdownIt("js-default").parseInline(description)[0].children or ():
                assert part.type in {"text", "code_inline"}, description
                assert part.type == "code_inline" or part.content in own, description
                spans += [part.content] * (part.type == "code_inline")
    assert any("[bold red]loud" in span or "quire_was_injected" in span for span in spans)


def _evaluations(value: Any) -> Iterator[str]:
    """Descriptions of evaluations of checks."""
    if isinstance(value, list):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _evaluations(item)
    elif isinstance(value, dict):
        if value.get("__class__") == "AssetCheckEvaluation":
            yield str(value["description"])
        for item in value.values():  # pyright: ignore[reportUnknownVariableType]
            yield from _evaluations(item)


def test_dagster_lists_the_documents_by_their_names_spelled_out(hostile_run: HostileRun) -> None:
    texts = {text for event in hostile_run.home.events() for text in strings(event)}
    for name in hostile_run.names:
        assert visible(legible(name))[:300] in texts


def test_logs_hold_no_escape_and_no_file_is_named_by_a_document(hostile_run: HostileRun) -> None:
    home = hostile_run.home
    logs = [home.server.log_file, *(home.path / "dagster").rglob("*.out")]
    logs += (home.path / "dagster").rglob("*.err")
    assert len(logs) > 1
    for log in logs:
        text = log.read_text("utf-8", "surrogateescape")
        assert acting(text, allowed="\n\t") == set(), log
    for path in home.path.rglob("*"):
        assert re.fullmatch(r"[\w.@+-]+", path.name), path
    assert not Path("injected").exists()


def test_a_row_that_is_refused_is_quoted_with_nothing_that_acts_and_not_in_the_log(
    hostile_run: HostileRun,
) -> None:
    home = hostile_run.home
    name = "".join(one.text for one in INJECTIONS if one.family == "terminal")
    refused = Document("no hash", name, 1, 1, name, "ok", name, "key")
    with (
        pytest.raises(psycopg.errors.CheckViolation) as caught,
        Postgres(database_url=home.server.url).connect() as db,
    ):
        store.documents.add(db, refused)
    assert "Failing row contains" in str(caught.value)
    assert acting(str(caught.value)) == set()
    log = home.server.log_file.read_text("utf-8", "surrogateescape")
    assert "violates check constraint" in log
    assert acting(log, allowed="\n\t") == set()


def test_a_database_error_that_quotes_a_document_fails_the_run_and_does_nothing_else(
    hostile_run: HostileRun, tmp_path: Path
) -> None:
    """The refusal comes from a trigger, in the words of the corpus, in the middle of a run."""
    home = hostile_run.home
    hostile = "".join(name for name in hostile_run.names if "\x1b" in name)
    assert hostile
    with_trigger = f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $refuse$
        BEGIN RAISE EXCEPTION USING MESSAGE = convert_from('\\x{hostile.encode().hex()}', 'UTF8');
        END $refuse$;
        CREATE TRIGGER refuse BEFORE INSERT ON panel_features
        FOR EACH ROW EXECUTE FUNCTION refuse(); SELECT 1
    """
    small = tmp_path / "paper.pdf"
    small_paper(small, seed=520, panels=4)
    before = len(home.events())
    try:
        _execute(home, with_trigger)
        failed = home.quire("run", str(small), "--out", str(tmp_path / "out"))
    finally:
        _execute(home, "DROP TRIGGER refuse ON panel_features; DROP FUNCTION refuse()")
    assert failed.returncode == 1
    assert "panel_features: " in failed.stderr
    assert visible(visible(hostile))[:60] in failed.stderr  # where it was caught, and here
    assert acting(failed.stdout + failed.stderr) == set()
    assert all(line.startswith("quire: ") for line in failed.stderr.splitlines())
    for event in home.events()[before:]:
        for text in strings(event):
            assert acting(text, allowed="\n\t") == set(), ascii(text[:300])


def _execute(home: Home, statements: str) -> None:
    with psycopg.connect(home.server.url, autocommit=True) as db:
        db.execute(statements.encode())
