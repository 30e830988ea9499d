"""The list of ways holds against code and docs: nothing tells of a loss that is not in it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.complaints import KINDS, OTHER
from core.degraded import WAYS

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "store", "resources", "assets")
TELLING = ("InputError", "BudgetError", "WorkerError", "NotNowError", "Refusal", "refuse", "Loss")
"""What a message is given to that ends as the reason of something that was not looked at."""

ELSEWHERE = {
    "could not be read: its reader had ended": "a request after the file was closed",
    "needed more memory than there is": "becomes page_over_budget",
    "has no finite size": "page_without_area, in the words of the parser's caller",
    "; about MB would do": "follows what is said of item_over_budget or op_stopped",
    "there is no such file or folder": "a wrong command: nothing is run, exit code 2",
    "is there already; name a folder": "a wrong command: nothing is converted",
    "tesseract crashed": "of reading, which no report needs: docs/reading.md",
    "tesseract needs more than": "of reading, likewise",
}
"""Messages that reach nobody as they are, or only together with one that is listed."""

OF_GALLERY = (
    "a manifest ends in .csv, .jsonl or .json",
    "its first line is to name the fields",
    "is to be a list of objects, one for each item",
    "the id is that of",
    "it has no id",
    "is to be a text or a number",
    "letters; at most",
    "its images are to be names of files",
    "is to be named relative to the manifest",
    "it is no picture that is taken",
    "pixels, more than million; make it smaller",
    "the picture is damaged",
    "its stored copy is missing; add it again",
    "has no reference picture",
    "the item has no template yet",
    "the gallery holds no templates",
    "no item of the gallery is of",
    "the gallery could not be searched",
    "its candidates have left the gallery",
)
"""Messages of the gallery, of which no report of copies knows: ``quire gallery add`` and ``quire
identify`` tell them (docs/gallery.md), and tests of the gallery provoke them."""


def rooms() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((ROOT / room).glob("*.py"))
    yield ROOT / "orchestration" / "files.py"
    yield ROOT / "orchestration" / "ingest.py"


def text_of(node: ast.expr) -> str:
    """The constant parts of a string, with a blank for each part that is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            text_of(part) if isinstance(part, ast.Constant) else " " for part in node.values
        )
    return ""


def messages() -> Iterator[tuple[str, str]]:
    """Where a loss is told, and the fixed words of its sentence."""
    for path in rooms():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name not in TELLING:
                continue
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                text = " ".join(text_of(argument).split())
                if len(text.split()) > 3:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def is_listed(text: str) -> bool:
    words = " ".join(text.split())
    return any(way.says and way.says in words for way in WAYS) or any(
        known in words for known in (*ELSEWHERE, *OF_GALLERY)
    )


def test_every_message_that_tells_of_a_loss_belongs_to_a_way() -> None:
    found = list(messages())
    assert len(found) > 25  # the search itself works
    unlisted = [f"{where}: {text!r}" for where, text in found if not is_listed(text)]
    assert not unlisted, "add a way to core.degraded.WAYS, and its test"


def test_every_message_of_the_gallery_is_one() -> None:
    found = [text for _, text in messages()]
    assert [known for known in OF_GALLERY if not any(known in text for text in found)] == []


def test_every_complaint_about_a_page_belongs_to_a_way() -> None:
    words = [*(kind.words for kind in KINDS if kind.words), OTHER]
    assert [each for each in words if not is_listed(each)] == []


def test_the_names_and_the_sentences_of_ways_are_their_own() -> None:
    assert len({way.name for way in WAYS}) == len(WAYS)
    sayings = [way.says for way in WAYS if way.says]
    assert len(set(sayings)) == len(sayings)


def table() -> str:
    """The table of docs/reports.md."""
    lines = ["| way | flag | the report says | what it is |", "|---|---|---|---|"]
    for way in WAYS:
        flag = f"`{way.kind}`" if way.kind else "the run fails"
        says = f"“{way.says}”" if way.says else ""
        lines.append(f"| `{way.name}` | {flag} | {says} | {way.means} |")
    return "\n".join(lines) + "\n"


def test_the_docs_list_every_way() -> None:
    docs = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    assert table() in docs, f"docs/reports.md is to hold this table:\n\n{table()}"


DEFAULTS = ("report_contents.py", "duplicate_reports.py")


@pytest.mark.parametrize("name", DEFAULTS)
def test_no_result_is_made_of_nothing(name: str) -> None:
    """What gathers a result holds no `or []`, and no `except` that passes over what it caught."""
    tree = ast.parse((ROOT / "assets" / name).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            empty = node.values[-1]
            assert not (isinstance(empty, ast.List) and not empty.elts), node.lineno
        if isinstance(node, ast.ExceptHandler):
            assert not all(isinstance(each, ast.Pass | ast.Continue) for each in node.body)
