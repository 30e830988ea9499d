"""SQL: every statement is written in the source, and every value is bound."""

import ast
import contextlib
import dataclasses
import enum
import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

import store
import store.documents
from benchmarks.faults.injections import FAMILIES, of_family
from core.text import legible
from store.documents import Document

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "store", "resources", "assets", "orchestration", "web", "benchmarks", "scripts")
EXECUTING = {"execute", "executemany", "copy", "copy_expert", "stream"}
COMPOSED = {"Identifier", "Literal", "Placeholder"}

FROM_FILES = {
    ("store/migrate.py", "migration.sql.encode()"),
    ("benchmarks/compose.py", "(DEPLOY / 'postgres-init.sql').read_text()"),
}
"""Statements that are read, not written: files of this repository, which no input reaches."""


class Statements(ast.NodeVisitor):
    """The calls that run SQL, and those among them whose statement is put together at run time."""

    def __init__(self, path: str, source: str) -> None:
        self.path = path
        self.found: list[str] = []
        self.faults: list[str] = []
        self._scopes: list[ast.AST] = []
        tree = ast.parse(source)
        self._scopes.append(tree)
        self.visit(tree)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._scopes.append(node)
        self.generic_visit(node)
        self._scopes.pop()

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = node.func
        if not isinstance(called, ast.Attribute) or called.attr not in EXECUTING or not node.args:
            return
        if ast.unparse(called.value) in {"shutil", "copy"}:
            return
        source = ast.unparse(node.args[0])
        self.found.append(source)
        if (self.path, source) not in FROM_FILES and not self._is_written(node.args[0]):
            self.faults.append(f"{self.path}:{node.lineno}: {source}")

    def _is_written(self, node: ast.expr) -> bool:
        """Whether the statement stands in the source, apart from quoted names."""
        match node:
            case ast.Constant(value=str() | bytes()):
                return True
            case ast.Name(id=name):
                values = list(self._values(name))
                return bool(values) and all(self._is_written(value) for value in values)
            case ast.Call(func=ast.Attribute(value=statement, attr="format")):
                parts = [*node.args, *(keyword.value for keyword in node.keywords)]
                return self._is_sql(statement) and all(map(self._is_composed, parts))
            case _:
                return self._is_sql(node)

    def _is_sql(self, node: ast.expr) -> bool:
        match node:
            case ast.Call(func=called, args=[ast.Constant(value=str())]):
                return _last_name(called) == "SQL"
            case ast.Name(id=name):
                values = list(self._values(name))
                return bool(values) and all(self._is_sql(value) for value in values)
            case _:
                return False

    def _is_composed(self, node: ast.expr) -> bool:
        match node:
            case ast.Call(func=called):
                return _last_name(called) in COMPOSED
            case ast.Name(id=name):
                values = list(self._values(name))
                return bool(values) and all(self._is_composed(value) for value in values)
            case _:
                return False

    def _values(self, name: str) -> Iterator[ast.expr]:
        """What is ever assigned to a name, in the innermost scope that assigns to it."""
        for scope in reversed(self._scopes):
            values = [
                node.value
                for node in ast.walk(scope)
                if isinstance(node, ast.Assign)
                and any(isinstance(to, ast.Name) and to.id == name for to in node.targets)
            ]
            if values:
                yield from values
                return


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def test_every_statement_stands_in_the_source() -> None:
    statements: list[str] = []
    faults: list[str] = []
    for path in sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        looked_at = Statements(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
        statements += looked_at.found
        faults += looked_at.faults
    assert faults == []
    assert len(statements) > 60
    assert any("INSERT INTO documents" in statement for statement in statements)


@pytest.mark.parametrize(
    "source",
    [
        "db.execute(f'SELECT {name}')",
        "db.execute('SELECT ' + name)",
        "db.execute('SELECT %s' % name)",
        "db.execute('SELECT {}'.format(name))",
        "db.execute(name)",
        "db.execute(SQL(f'SELECT {name}'))",
        "db.execute(SQL('SELECT {}').format(SQL(name)))",
        "db.execute(SQL('SELECT {}').format(name))",
        "query = 'SELECT 1'\nquery = f'SELECT {name}'\ndb.execute(query)",
        "def f(query):\n    db.execute(query)",
        "with cursor.copy('COPY ' + table) as copy: pass",
    ],
)
def test_a_statement_put_together_at_run_time_is_noticed(source: str) -> None:
    assert len(Statements("x.py", source).faults) == 1


@pytest.mark.parametrize(
    "source",
    [
        "db.execute('SELECT %(x)s', {'x': name})",
        "db.execute(SQL('SELECT 1 FROM {t}').format(t=Identifier(name)))",
        "query = sql.SQL('CREATE {}')\ndb.execute(query.format(sql.Identifier(name)))",
        "shutil.copy(a, b)",
        "array.copy()",
    ],
)
def test_a_statement_with_bound_values_is_not(source: str) -> None:
    assert Statements("x.py", source).faults == []


def store_functions() -> dict[str, Callable[..., Any]]:
    """Every function of the store that takes a connection; migrations bring files of their own."""
    found: dict[str, Callable[..., Any]] = {}
    for info in pkgutil.iter_modules(store.__path__):
        module = importlib.import_module(f"store.{info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("_") or function.__module__ != module.__name__:
                continue
            if "db" in inspect.signature(function).parameters and info.name != "migrate":
                found[f"{info.name}.{name}"] = function
    return found


KEYS = {"document_id": "ab" * 32, "batch_key": "batch-1", "batches": "batch-1", "status": "ok"}
"""Values that the schema accepts where it accepts few; everything else stays hostile."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Makes arguments of any type, with the text wherever a text may be."""

    db: psycopg.Connection
    text: str
    keys: Mapping[str, str]

    def of(self, kind: Any, name: str = "") -> Any:
        """A value of a type, for a parameter or field of a name."""
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if isinstance(kind, types.UnionType) or origin is typing.Union:
            return self.of(next(k for k in inner if k is not types.NoneType), name)
        if kind is str:
            return self.keys.get(name.removesuffix("s"), self.keys.get(name, self.text))
        if kind is Any:
            return {self.text: self.text}
        if origin is typing.Literal:
            return inner[0]
        if origin is np.ndarray:
            return np.ones((1, 1), np.float32)
        if origin is tuple:
            some = inner[:1] if inner[-1] is Ellipsis else inner
            return tuple(self.of(k, name) for k in some)
        if origin in (list, Sequence, Iterable):
            return [self.of(inner[0], name)]
        if origin in (dict, Mapping):
            return {self.of(inner[0]): self.of(inner[1])}
        if inspect.isclass(origin or kind) and issubclass(origin or kind, psycopg.Connection):
            return self.db
        if inspect.isclass(kind) and issubclass(kind, enum.Enum):
            return next(iter(kind))
        if dataclasses.is_dataclass(kind):
            hints = typing.get_type_hints(kind)
            fields = [field.name for field in dataclasses.fields(kind) if field.init]
            made: Any = kind
            return made(**{field: self.of(hints[field], field) for field in fields})
        plain = {bytes: self.text.encode(), int: 1, float: 0.5, bool: False, date: date.min}
        return plain[kind]

    def call(self, function: Callable[..., Any]) -> None:
        """Call the function, and use up what comes back."""
        hints = typing.get_type_hints(function)
        names = inspect.signature(function).parameters
        result = function(**{name: self.of(hints[name], name) for name in names})
        if isinstance(result, contextlib.AbstractContextManager):
            with result:  # pyright: ignore[reportUnknownVariableType]
                return
        if isinstance(result, Iterator):
            for _, _ in zip(range(3), result, strict=False):  # pyright: ignore[reportUnknownVariableType]
                pass


VECTORS = ("tile_embeddings_", "chunk_embeddings_", "template_embeddings_")
"""Tables that come with the first vector of an encoder."""


def tables(db: psycopg.Connection) -> set[str]:
    rows = db.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    ).fetchall()
    return {name for (name,) in rows if not name.startswith(VECTORS)}


REFUSALS = (
    psycopg.errors.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.InvalidDatetimeFormat,
    ValueError,
    AssertionError,
)
"""What the schema forbids, keys longer than an index takes, what is no date, and what a function
itself refuses."""

TEXTS = [*(" ".join(of_family(family)) for family in FAMILIES), *of_family("sql")]


@pytest.mark.parametrize("text", TEXTS, ids=[*FAMILIES, *map(str, range(len(of_family("sql"))))])
def test_every_function_of_the_store_takes_the_corpus_as_values(
    db: psycopg.Connection, text: str
) -> None:
    """What the schema forbids is refused by its constraints; nothing is read as SQL."""
    text = legible(text)
    before = tables(db)
    functions = store_functions()
    refused: set[str] = set()
    misread: set[str] = set()
    # The second round refers to what the first has stored, the third has no valid key at all.
    for keys in (KEYS, KEYS, {}):
        for name, function in functions.items():
            try:
                with db.transaction():
                    Arguments(db, text, keys).call(function)
            except psycopg.errors.UndefinedTable:
                misread.add(name)
            except psycopg.ProgrammingError as error:
                if error.sqlstate is not None:
                    raise
                misread.add(name)  # psycopg takes a percent sign in a name for a placeholder
            except REFUSALS:
                refused.add(name)
            else:
                refused.discard(name)
        if keys is KEYS:
            assert not refused & {"documents.add", "page_batches.add", "work.record"}
    # Names of tables are Quire's own; quoted, the text is the name of none.
    assert all("table" in inspect.signature(functions[name]).parameters for name in misread)
    assert tables(db) == before
    stored = db.execute("SELECT name, title, reason FROM documents").fetchall()
    assert stored == [(text, text, text)]


def test_what_is_stored_comes_back_as_it_was(db: psycopg.Connection) -> None:
    for number, text in enumerate(map(legible, TEXTS)):
        document = Arguments(db, text, {**KEYS, "document_id": f"{number:064x}"}).of(Document)
        assert store.documents.add(db, document)
        assert store.documents.get(db, [document.document_id]) == [document]
