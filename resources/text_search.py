"""Search as one object: the database, the encoder, and the answers that were given before.

Nothing here knows Dagster or torch: the command line and the service both use it.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import psycopg
from psycopg import IsolationLevel
from psycopg.errors import QueryCanceled

import store.chunk_embeddings
import store.search
from core.encoders import EncoderError, Vectors
from core.passages import demands_words, highlight, snippet_of, terms_of, uses_operators
from core.search import (
    NO_FILTERS,
    Answer,
    Channel,
    ChannelName,
    Coverage,
    Filters,
    Fused,
    Hit,
    IndexSpec,
    Query,
    Ranked,
    Scope,
    SearchSpec,
    SearchUnavailableError,
    fuse,
    reason_for_fewer,
)
from core.text_encoders import WITNESS, TextEncoder, each_text_encoder, require_agreement
from resources.database import DatabaseAccess, is_gone
from resources.image_files import ImageFiles
from resources.remote_text_encoder import RemoteAccess
from resources.text_encoder import open_text_encoder, serving_of
from store.database import Db
from store.search import State

Done = TypeVar("Done")
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Patience:
    """How long is waited for, in seconds."""

    connection_s: float = 5.0
    """For one of the connections; whoever waits longer is told that the service is busy."""

    encoder_s: float = 30.0
    """Until an encoder that did not open is tried again."""


PATIENCE = Patience()

OpenEncoder = Callable[[str], TextEncoder]
"""Opens the encoder that serves, given the id of the one that was last switched to, or ""."""


class BusyError(SearchUnavailableError):
    """All connections are in use, and none came free in time."""


class Connections:
    """A few open connections for reading, handed out one at a time and kept for the next.

    A transaction on one sees one moment, writes nothing, and none of its statements takes long.

    Args:
        database: Where they lead.
        most: How many there are at the same time.
        statement_s: How long one statement may take.
    """

    def __init__(self, database: DatabaseAccess, most: int, statement_s: float) -> None:
        self._database = database
        self._statement_s = statement_s
        self._free = threading.BoundedSemaphore(most)
        self._idle: list[tuple[Db, contextlib.ExitStack]] = []

    def run(self, work: Callable[[Db], Done]) -> Done:
        """Do something that only reads; it is begun again where a kept connection proves dead.

        Raises:
            BusyError: None came free in time.
            DatabaseUnavailableError: There is no database.
        """
        if not self._free.acquire(timeout=PATIENCE.connection_s):
            raise BusyError("too many searches at the same time; try again in a moment")
        try:
            while True:
                kept = bool(self._idle)
                db, closing = self._idle.pop() if kept else self._open()
                try:
                    result = work(db)
                except psycopg.OperationalError as error:
                    closing.close()
                    if kept and is_gone(error):
                        continue
                    raise
                except BaseException:
                    closing.close()
                    raise
                self._idle.append((db, closing))
                return result
        finally:
            self._free.release()

    def close(self) -> None:
        """Close what is kept."""
        while self._idle:
            _, closing = self._idle.pop()
            closing.close()

    def _open(self) -> tuple[Db, contextlib.ExitStack]:
        with contextlib.ExitStack() as opening:
            db = opening.enter_context(self._database.connect())
            db.execute(
                "SELECT set_config('statement_timeout', %(ms)s, false)",
                {"ms": str(max(1, round(self._statement_s * 1000)))},
            )
            db.isolation_level = IsolationLevel.REPEATABLE_READ
            db.read_only = True
            return db, opening.pop_all()


class Latest(Generic[Key, Value]):
    """What was worked out last, by key; the least recently used is dropped for the next."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """What is kept under the key, which becomes the latest."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Key, value: Value) -> None:
        """Keep something."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)


class Encoders:
    """The encoder of queries: opened when it is first needed, tried again when it did not open."""

    def __init__(self, open_encoder: OpenEncoder) -> None:
        self._open = open_encoder
        self._lock = threading.Lock()
        self._encoder: TextEncoder | None = None
        self._switched = ""
        self._reason = ""
        self._tried = float("-inf")
        self._agreed: set[str] = set()

    def get(self, db: Db) -> TextEncoder:
        """The encoder that serves; another one is opened when somebody has switched.

        Raises:
            EncoderError: It cannot be opened.
        """
        switched = store.chunk_embeddings.switched_to(db) or ""
        with self._lock:
            if switched != self._switched:
                self._encoder, self._switched, self._tried = None, switched, float("-inf")
            if self._encoder is not None:
                return self._encoder
            if time.monotonic() - self._tried < PATIENCE.encoder_s:
                raise EncoderError(self._reason)
            try:
                self._encoder = self._open(switched)
            except Exception as error:  # the store may be out of reach, too
                self._reason = str(error) or type(error).__name__
                self._tried = time.monotonic()
                raise EncoderError(self._reason) from error
            return self._encoder

    def agree(self, db: Db, encoder: TextEncoder) -> None:
        """Make sure once that the encoder is the one by which the stored vectors were made.

        Raises:
            EncoderError: It is another one under the same name.
        """
        name = encoder.spec.encoder_id
        if name in self._agreed:
            return
        wanted = store.chunk_embeddings.witness(db, name)
        if wanted is not None:
            seen = encoder.encode([WITNESS], "passage").vectors[0]
            require_agreement(wanted, seen.tolist(), name)
            self._agreed.add(name)


@dataclass(frozen=True)
class Health:
    """What a probe found; each reason is empty where all is well.

    Attributes:
        database: Why it does not answer.
        encoder: Why it does not encode.
        index_version: As answers have it; empty where the database does not answer.
        encoder_id: The encoder in use.
        indexed: Whether an approximate index serves.
        embedded: Whether the encoder has vectors here at all.
    """

    database: str = ""
    encoder: str = ""
    index_version: str = ""
    encoder_id: str = ""
    indexed: bool = False
    embedded: bool = False


COUNTING = "counting"
"""The third part of an answer: how much there is that could have been found."""


class _TooSlowError(Exception):
    """A statement of one part was cancelled because it took too long (SQLSTATE 57014)."""

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self.part = part


@contextlib.contextmanager
def _in_time(part: str) -> Generator[None]:
    """What is done for one part of an answer: when it takes too long, it is known which."""
    try:
        yield
    except QueryCanceled as slow:
        raise _TooSlowError(part) from slow


@dataclass(frozen=True)
class _Efforts:
    """How often each part of an answer has taken too long: it tries less hard, or not at all."""

    dense: int = 0
    words: int = 0
    counting: int = 0

    def less(self, part: str) -> "_Efforts":
        """Once this part has taken too long."""
        return replace(self, **{part: getattr(self, part) + 1})


@dataclass(frozen=True)
class _Vector:
    """A query as a vector, or why there is none."""

    vectors: Vectors | None
    loss: str = ""
    note: str = ""


class _Asked:
    """A query and what encodes it, in a thread of its own that touches no database.

    Meanwhile the database looks for the words: each of the two is a good part of a search. It is
    encoded once, however often its answer is begun again.

    Attributes:
        query: What is asked.
        encoder: What encodes it; None where there is none.
        loss: Why there is none.
    """

    def __init__(self, query: Query, encoder: TextEncoder | None, loss: str) -> None:
        self.query, self.encoder, self.loss = query, encoder, loss
        self._encoding: threading.Thread | None = None
        self._vector = _Vector(None, "the query was not encoded")  # nothing else was said of it

    def begin(self) -> None:
        """Begin to encode it, unless that has begun."""
        if self._encoding is None:
            self._encoding = threading.Thread(target=self._encode, daemon=True)
            self._encoding.start()

    def vector(self) -> _Vector:
        """What came of it, waited for."""
        if self._encoding is not None:
            self._encoding.join()
        return self._vector

    def _encode(self) -> None:
        assert self.encoder is not None
        try:
            encoded = self.encoder.encode([self.query.text], "query")
            cut = encoded.cut[0]
        except Exception as error:  # noqa: BLE001 - words are searched whatever is wrong with it
            self._vector = _not_encoded(error)
            return
        note = f"the encoder did not see the last {cut} tokens of the query" if cut else ""
        self._vector = _Vector(encoded.vectors, note=note)


def _not_encoded(error: Exception) -> _Vector:
    return _Vector(None, f"the query was not encoded: {error or type(error).__name__}")


class TextSearch:
    """Answers queries. Making it opens nothing; ``close`` ends its connections.

    Args:
        database: Where passages are.
        open_encoder: Opens the encoder that serves; called when it is first needed.
        spec: The numbers that decide an answer.
        connections: Searches at the same time.
    """

    def __init__(
        self,
        database: DatabaseAccess,
        open_encoder: OpenEncoder,
        *,
        spec: SearchSpec | None = None,
        connections: int = 4,
    ) -> None:
        self.spec = spec or SearchSpec()
        self._least_recall = IndexSpec().least_recall
        self.connections = Connections(database, connections, self.spec.statement_s)
        self._encoders = Encoders(open_encoder)
        self._answers: Latest[tuple[Query, str, str], Answer] = Latest(self.spec.cached)
        self._languages: Latest[tuple[str, str], list[str]] = Latest(4)
        self._coverage: Latest[tuple[Filters, str, str], Coverage] = Latest(self.spec.cached)

    def close(self) -> None:
        """End the connections."""
        self.connections.close()

    def search(self, query: Query) -> Answer:
        """The answer to a query: exactly as many hits as were asked for, or the reason why not.

        Raises:
            SearchUnavailableError: Neither channel could answer, or there is no free connection.
            DatabaseUnavailableError: There is no database.
        """
        started = time.monotonic()

        def work(db: Db) -> Answer:
            try:
                encoder, loss = self._encoders.get(db), ""
            except EncoderError as error:
                encoder, loss = None, f"there is no encoder: {error}"
            asked, efforts = _Asked(query, encoder, loss), _Efforts()
            while True:
                try:
                    with db.transaction():
                        state = store.search.state(db, encoder.spec.encoder_id if encoder else "")
                        key = (query, state.version, state.table)
                        known = self._answers.get(key) if encoder else None
                        if known is not None:
                            return known.again(time.monotonic() - started)
                        answer = self._answer(db, state, asked, efforts)
                    break
                except _TooSlowError as slow:
                    efforts = efforts.less(slow.part)
            answer = replace(answer, seconds=time.monotonic() - started)
            if efforts == _Efforts() and all(channel.ran for channel in answer.channels):
                self._answers.put(key, answer)
            return answer

        try:
            return self.connections.run(work)
        except QueryCanceled as slow:
            raise SearchUnavailableError(
                f"the database takes longer than {self.spec.statement_s:g} s to answer"
            ) from slow

    def health(self) -> Health:
        """Ask the database and the encoder, and change nothing."""

        def work(db: Db) -> Health:
            health, name = Health(), ""
            try:
                encoder = self._encoders.get(db)
                encoder.encode(["health"], "query")
                name = encoder.spec.encoder_id
            except psycopg.Error:
                raise
            except Exception as error:  # noqa: BLE001 - as for the database
                health = Health(encoder=str(error) or type(error).__name__)
            state = store.search.state(db, name)
            return replace(
                health,
                index_version=state.version,
                encoder_id=name,
                indexed=state.indexed,
                embedded=bool(state.table),
            )

        try:
            return self.connections.run(work)
        except Exception as error:  # noqa: BLE001 - a probe says what is wrong, whatever it is
            return Health(database=str(error) or type(error).__name__)

    def coverage(self) -> Coverage:
        """How much there is to be found in all.

        Raises:
            SearchUnavailableError: It could not be counted in time.
            DatabaseUnavailableError: There is no database.
        """

        def work(db: Db) -> Coverage:
            try:
                name = self._encoders.get(db).spec.encoder_id
            except EncoderError:
                name = ""
            with db.transaction():
                return self._covered(db, store.search.state(db, name), NO_FILTERS)

        try:
            coverage = self.connections.run(work)
        except (QueryCanceled, _TooSlowError) as slow:
            raise SearchUnavailableError("what is stored could not be counted in time") from slow
        return coverage

    def _answer(self, db: Db, state: State, asked: _Asked, efforts: _Efforts) -> Answer:
        query = asked.query
        filters, unknown = _resolved(db, query.filters)
        if unknown and not filters.documents:
            scope = Scope(0, stored=True, unknown=unknown)
            reason = reason_for_fewer(query, 0, scope, dense_ran=True)
            channels = tuple(Channel(name) for name in ChannelName)
            return Answer(query, (), reason, channels, (), state.version)
        lost = self._begin(db, state, asked)
        coverage = None if efforts.counting else self._covered(db, state, filters)
        words, words_channel = self._words(db, state, query, filters, efforts.words)
        vector = lost or asked.vector()
        near = _Near(db, state, vector, filters, coverage)
        dense, dense_channel = self._dense(near, efforts.dense)
        channels = (dense_channel, words_channel)
        if not dense_channel.ran and not words_channel.ran:
            raise SearchUnavailableError("; ".join(channel.loss for channel in channels))
        fused = fuse({ChannelName.DENSE: dense, ChannelName.WORDS: words}, self.spec, query.top_k)
        hits = self._hits(db, query, fused)
        degraded = [channel.loss for channel in channels if channel.loss]
        degraded += [vector.note] if vector.note else []
        degraded += [f"no document is called {name!r}" for name in unknown]
        if coverage is None:
            degraded.append("what is not read or embedded yet could not be counted in time")
        else:
            degraded += coverage.losses(dense=dense_channel.ran)
        scope = Scope(
            coverage.passages if coverage else len(hits),
            stored=bool(self._spoken(db, state)),
            unknown=(),
            cut_short=any(channel.cut_short for channel in channels),
        )
        reason = reason_for_fewer(query, len(hits), scope, dense_ran=dense_channel.ran)
        return Answer(query, hits, reason, channels, tuple(degraded), state.version)

    def _begin(self, db: Db, state: State, asked: _Asked) -> _Vector | None:
        """Have a query encoded where that is of use; else why there will be no vector."""
        encoder = asked.encoder
        if demands_words(asked.query.text):
            return _Vector(None)
        if encoder is None:
            return _Vector(None, asked.loss)
        if not state.table:
            return _Vector(None, f"nothing is embedded with {encoder.spec.encoder_id} yet")
        try:
            self._encoders.agree(db, encoder)
        except psycopg.Error:
            raise
        except Exception as error:  # noqa: BLE001 - words are searched whatever is wrong with it
            return _not_encoded(error)
        asked.begin()
        return None

    def _dense(self, near: "_Near", effort: int) -> tuple[list[Ranked], Channel]:
        """The nearest passages, by the way that is complete or else fast enough."""
        name, spec, vector = ChannelName.DENSE, self.spec, near.vector
        late = f"searching by meaning took longer than {spec.statement_s:g} s" if effort else ""
        if vector.vectors is None:  # or the query says of its words what no vector knows
            loss = f"not searched by meaning: {vector.loss}" if vector.loss else ""
            return [], Channel(name, loss=loss)
        if effort > 1 or (effort and not near.state.indexed):
            return [], Channel(name, loss=f"not searched by meaning: {late}", cut_short=True)
        with _in_time(name):
            if effort:
                found = near.indexed(spec.cheap_depth, spec.cheap_ef_search)
                loss = f"{late}; a cheaper search found the nearest {len(found)}"
                return found, Channel(name, "hnsw", len(found), loss, cut_short=True)
            if self._is_good(near.state) and not near.is_narrow(spec.exact_rows):
                found = near.indexed(spec.depth, spec.hnsw_ef_search)
                if len(found) == spec.depth:
                    return found, Channel(name, "hnsw", len(found))
            found = near.exact(spec.depth, spec.few)
            return found, Channel(name, "exact", len(found))

    def _is_good(self, state: State) -> bool:
        """Whether there is an index that finds what it has to, as far as it was measured."""
        return state.indexed and (state.recall is None or state.recall >= self._least_recall)

    def _words(
        self, db: Db, state: State, query: Query, filters: Filters, effort: int
    ) -> tuple[list[Ranked], Channel]:
        """Passages with the words: those with all of them first, then those with any."""
        name, spec = ChannelName.WORDS, self.spec
        late = f"searching by words took longer than {spec.statement_s:g} s" if effort else ""
        if effort > 1:
            return [], Channel(name, loss=f"not searched by words: {late}", cut_short=True)
        most = spec.cheap_ranked_rows if effort else spec.ranked_rows
        with _in_time(name):
            spoken = self._spoken(db, state)
            found = store.search.with_all_words(
                db, state.chunk_set, query.text, spoken, filters, spec.depth, most
            )
            passages, capped, method = found.passages, found.capped, "full text"
            if len(passages) < query.top_k and not effort and not uses_operators(query.text):
                more = store.search.with_any_word(
                    db, state.chunk_set, query.text, spoken, filters, spec.depth, spec.telling_rows
                )
                have = {passage.chunk_id for passage in passages}
                passages += [passage for passage in more if passage.chunk_id not in have]
                method = "full text, any word"
        loss = f"{late}; only passages with all words were ranked, up to {most:,}" if late else ""
        if capped and not late:
            loss = f"more than {most:,} passages have these words; the others are not ranked"
        passages = passages[: spec.depth]
        return passages, Channel(name, method, len(passages), loss, cut_short=bool(late))

    def _spoken(self, db: Db, state: State) -> list[str]:
        """The languages of the stored passages, looked up once per version."""
        key = (state.version, state.chunk_set)
        known = self._languages.get(key)
        if known is None:
            known = store.search.languages(db, state.chunk_set)
            self._languages.put(key, known)
        return known

    def _hits(self, db: Db, query: Query, fused: list[Fused]) -> tuple[Hit, ...]:
        terms, spec = terms_of(query.text), self.spec
        known = {
            passage.chunk_id: passage
            for passage in store.search.passages(db, [f.chunk_id for f in fused])
        }
        hits: list[Hit] = []
        for rank, found in enumerate(fused, start=1):
            passage = known[found.chunk_id]
            hits.append(
                Hit(
                    rank=rank,
                    chunk_id=passage.chunk_id,
                    document_id=passage.document_id,
                    document=passage.document,
                    page=passage.page,
                    start_char=passage.start_char,
                    end_char=passage.end_char,
                    kind=passage.kind,
                    language=passage.language,
                    snippet=snippet_of(passage.text, terms, spec.snippet_letters),
                    highlight=highlight(
                        passage.words, passage.text, passage.start_char, terms, spec.most_boxes
                    ),
                    score=found.score,
                    parts=found.parts,
                )
            )
        return tuple(hits)

    def _covered(self, db: Db, state: State, filters: Filters) -> Coverage:
        """How much there is, counted once per version."""
        key = (filters, state.version, state.table)
        known = self._coverage.get(key)
        if known is not None:
            return known
        with _in_time(COUNTING):
            coverage = store.search.coverage(db, state.chunk_set, filters)
            if state.table:
                vectors = store.search.embedded(db, state.table, state.chunk_set, filters)
                coverage = replace(coverage, passages_embedded=vectors)
        self._coverage.put(key, coverage)
        return coverage


def open_serving(
    setting: str, images: ImageFiles, *, cores: int = 1, remote: RemoteAccess | None = None
) -> OpenEncoder:
    """What opens the encoder that serves, out of a setting that names one or two.

    Args:
        setting: As ``QUIRE_TEXT_ENCODER`` has it.
        images: The image store, with what checkpoints were converted to.
        cores: Threads of computation.
        remote: What may leave this machine.
    """
    choices = each_text_encoder(setting)

    def open_it(switched: str) -> TextEncoder:
        serving = serving_of(choices, images, switched)
        return open_text_encoder(serving, images, cores=cores, remote=remote)

    return open_it


def _resolved(db: Db, filters: Filters) -> tuple[Filters, tuple[str, ...]]:
    """The filter with names of documents as ids, and the names that no document has."""
    if not filters.documents:
        return filters, ()
    called = store.search.documents_called(db, filters.documents)
    known = {wanted for wanted, _ in called}
    ids = tuple(dict.fromkeys(document_id for _, document_id in called))
    unknown = tuple(name for name in filters.documents if name not in known)
    return replace(filters, documents=ids), unknown


@dataclass(frozen=True)
class _Near:
    """One query by meaning, and the two ways to look for it.

    Attributes:
        db: A connection.
        state: What can be searched.
        vector: The query.
        filters: What may be found.
        coverage: How much that is; None where it could not be counted in time.
    """

    db: Db
    state: State
    vector: _Vector
    filters: Filters
    coverage: Coverage | None

    def is_narrow(self, most: int) -> bool:
        """Whether a filter leaves so few passages that each can be compared."""
        if self.filters == NO_FILTERS:
            return False
        if self.coverage is not None:
            return self.coverage.passages <= most
        found = store.search.matching(self.db, self.state.chunk_set, self.filters, most + 1)
        return found <= most

    def exact(self, limit: int, few: float) -> list[Ranked]:
        assert self.vector.vectors is not None
        are_few = self.coverage is not None and self.coverage.passages <= few * self.state.about
        return store.search.nearest_exact(
            self.db, self.state.table, self.state.chunk_set, self.vector.vectors[0], self.filters,
            limit, few=are_few,
        )  # fmt: skip

    def indexed(self, limit: int, ef_search: int) -> list[Ranked]:
        assert self.vector.vectors is not None
        return store.search.nearest_indexed(
            self.db, self.state.table, self.state.chunk_set, self.vector.vectors[0], self.filters,
            limit, ef_search,
        )  # fmt: skip
