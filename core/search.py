"""Search: what may be asked, how two channels become one list, and what an answer says.

A query is looked for in two ways, by meaning (vectors, "dense") and by its words (full text,
"words"). Each gives a ranked list; reciprocal rank fusion makes one of the two. An answer has
exactly as many hits as were asked for, or says why not, and names every channel that did not run
or did not see everything.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum

from core.passages import Highlight, Snippet
from core.text import inert


class QueryError(ValueError):
    """What was asked cannot be searched for; one sentence for whoever asked."""


class SearchUnavailableError(Exception):
    """No channel could answer; one sentence that says why. It never looks like an empty answer."""


@dataclass(frozen=True)
class SearchSpec:
    """The numbers that decide an answer."""

    top_k: int = 10
    """Hits, unless told otherwise: what fits on a screen."""

    most_hits: int = 100
    """Hits that may be asked for at once. Beyond it nobody reads; each costs its page's words."""

    most_letters: int = 1_000
    """Of a query. Encoders see some 250 words; what lies beyond is not a query but a document."""

    most_names: int = 200
    """Documents, languages or kinds that a filter may list."""

    depth: int = 200
    """Passages that each channel ranks. A passage beyond place 200 in one channel adds less than
    1/260 to its score, a quarter of what the first place adds, and could only reorder the tail."""

    rrf_k: int = 60
    """Cormack, Clarke and Buettcher (SIGIR 2009) found 60 best and the choice uncritical: places
    one and two then differ by 1.6 %, so agreement of both channels outweighs a first place."""

    dense_weight: float = 1.0
    words_weight: float = 1.0
    """Equal. Paraphrases are found by meaning; names, numbers and formulas by their letters; which
    of the two a query is cannot be told beforehand, and nothing measured here favours one."""

    exact_rows: int = 20_000
    """A filter that leaves no more than this is searched exactly, and so completely."""

    few: float = 0.1
    """Of all vectors: where a filter leaves no more than this share, each is looked up by its key.
    Where it leaves more, reading all of them in their order on the disk takes less."""

    hnsw_ef_search: int = 400
    """Twice the depth. pgvector's default of 40 returns at most 40 rows, whatever is asked for."""

    cheap_ef_search: int = 40
    cheap_depth: int = 25
    """Of the one repetition after a timeout: a tenth of the work, and enough for a first screen."""

    ranked_rows: int = 1_000
    """Passages with all the words that are ranked. Ranking one costs some 20 microseconds; words
    that more passages have tell little, and an answer says that only the first were ranked."""

    telling_rows: int = 300
    """Where too few passages have all the words, those with some are sought: a word that more
    passages have than this counts nothing there. It is among the most frequent ones of a language,
    or the library is about it."""

    cheap_ranked_rows: int = 100
    """Of the one repetition after a timeout."""

    statement_s: float = 2.0
    """Per statement; a hundred times what it takes. Then comes the cheaper repetition."""

    cached: int = 256
    """Answers kept. One is some 20 kB with its boxes, so 5 MB in all."""

    snippet_letters: int = 240
    """Three lines of a terminal."""

    most_boxes: int = 200
    """Highlighted boxes per hit; a passage of 250 words has fewer."""


@dataclass(frozen=True)
class IndexSpec:
    """When vectors get an approximate index, and what it has to find."""

    index_rows: int = 50_000
    """From here on an HNSW index is built. Below, an exact scan of 384 dimensions in half precision
    (38 MB) answers in some 10 to 20 ms; building the index costs minutes, and exact is exact."""

    drop_rows: int = 25_000
    """Below this the index is dropped again. Half, so that it does not come and go."""

    hnsw_m: int = 16
    hnsw_ef_construction: int = 64
    """pgvector's defaults; more neighbours cost memory and time and gained under one point."""

    least_recall: float = 0.95
    """Of the exact nearest 50 that the index has to find; below, it is built anew."""

    recall_queries: int = 30
    recall_depth: int = 50
    """30 x 50 neighbours: a recall of .95 is then known to about .01."""

    measure_again: float = 0.2
    """The index is measured again when a fifth of the rows is new or gone."""

    memory_mb: int = 128
    """What the server may hold while it builds: the graph of 100,000 rows. Beyond it the build goes
    on, several times more slowly."""

    timeout_s: float = 7_200.0
    """A million rows take half an hour on two cores."""

    changes_kept: int = 1_000
    """Transactions remembered for the version of answers; counting so many takes 0.1 ms."""


class IndexWork(StrEnum):
    """What is to be done about an index."""

    NOTHING = "nothing"
    BUILD = "build"
    MEASURE = "measure"
    DROP = "drop"


def index_work(
    rows: int, indexed: bool, measured_rows: int | None, spec: IndexSpec | None = None
) -> IndexWork:
    """What is to be done about the index of a table.

    Args:
        rows: Vectors in it.
        indexed: Whether there is an index.
        measured_rows: Vectors when it was last measured under this spec; None: never.
        spec: The numbers.
    """
    spec = spec or IndexSpec()
    if not indexed:
        return IndexWork.BUILD if rows >= spec.index_rows else IndexWork.NOTHING
    if rows < spec.drop_rows:
        return IndexWork.DROP
    if measured_rows is None or abs(rows - measured_rows) > spec.measure_again * measured_rows:
        return IndexWork.MEASURE
    return IndexWork.NOTHING


class PageKind(StrEnum):
    """How the text of a page was got; pages without text have no passages."""

    TEXT_LAYER = "text_layer"
    OCR = "ocr"
    HYBRID = "hybrid"


@dataclass(frozen=True)
class Filters:
    """Which passages may be found; each field leaves everything where it is None or empty.

    They reach SQL as bound values and in no other way.

    Attributes:
        documents: Ids (SHA-256) or names of documents.
        first_page: First page, numbered from 1.
        last_page: Last page.
        languages: As pages have them, three letters: ``eng``.
        kinds: How the text was got; see ``PageKind``.
        since: Day (UTC) on which a document was received at the earliest.
        until: Day on which it was received at the latest.
    """

    documents: tuple[str, ...] = ()
    first_page: int | None = None
    last_page: int | None = None
    languages: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None


NO_FILTERS = Filters()


@dataclass(frozen=True)
class Query:
    """What was asked: ``parse_query`` makes one that can be searched for."""

    text: str
    top_k: int = SearchSpec.top_k
    filters: Filters = NO_FILTERS


def parse_query(
    text: str,
    *,
    top_k: int = SearchSpec.top_k,
    documents: Sequence[str] = (),
    pages: str = "",
    languages: Sequence[str] = (),
    kinds: Sequence[str] = (),
    since: str = "",
    until: str = "",
    spec: SearchSpec | None = None,
) -> Query:
    """A query out of what a person or a program wrote.

    Args:
        text: Words, in any order; ``"in quotes"`` for a phrase, ``-word`` for without, ``or``.
        top_k: How many hits.
        documents: Ids or names.
        pages: ``5``, ``3-7``, ``3-`` or ``-7``.
        languages: Three letters each.
        kinds: ``text_layer``, ``ocr``, ``hybrid``.
        since: ``2026-01-31``.
        until: The same; both days are included.
        spec: Limits.

    Raises:
        QueryError: Something of it cannot be understood or is beyond a limit.
    """
    spec = spec or SearchSpec()
    words = " ".join(inert(text).split())
    if not re.search(r"\w", words):
        raise QueryError("there is no word in the query")
    if len(words) > spec.most_letters:
        raise QueryError(
            f"the query has {len(words):,} letters, more than the {spec.most_letters:,} allowed"
        )
    if not 1 <= top_k <= spec.most_hits:
        raise QueryError(f"top_k is 1 to {spec.most_hits}, not {top_k}")
    first, last = _pages(pages)
    received = _day("since", since), _day("until", until)
    if received[0] and received[1] and received[0] > received[1]:
        raise QueryError(f"since ({since}) is later than until ({until})")
    filters = Filters(
        documents=_names("documents", documents, spec),
        first_page=first,
        last_page=last,
        languages=tuple(map(_language, _names("languages", languages, spec))),
        kinds=tuple(map(_kind, _names("kinds", kinds, spec))),
        since=received[0],
        until=received[1],
    )
    return Query(words, top_k, filters)


def _names(what: str, given: Sequence[str], spec: SearchSpec) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(given))
    if len(names) > spec.most_names:
        raise QueryError(f"{len(names)} {what} are more than the {spec.most_names} allowed")
    if not all(names):
        raise QueryError(f"one of the {what} is empty")
    if any("\x00" in name or name != _paired(name) for name in names):
        raise QueryError(f"one of the {what} holds a character that no stored name has")
    return names


def _paired(text: str) -> str:
    """The text without lone surrogates, which no database holds."""
    return text.encode("utf-8", "replace").decode()


MOST_PAGES = 2**31 - 1
"""What the column holds."""


def _pages(text: str) -> tuple[int | None, int | None]:
    text = text.strip()
    if not text:
        return None, None
    matched = re.fullmatch(r"(\d{1,9})|(\d{1,9})?\s*-\s*(\d{1,9})?", text, re.ASCII)
    if matched is None or text == "-":
        raise QueryError("pages are written as 5, 3-7, 3- or -7")
    if matched[1]:
        first = last = int(matched[1])
    else:
        first = int(matched[2]) if matched[2] else None
        last = int(matched[3]) if matched[3] else None
    if first == 0 or last == 0:
        raise QueryError("pages are numbered from 1")
    if first and last and first > last:
        raise QueryError(f"the last page ({last}) lies before the first ({first})")
    return first, last


def _day(what: str, text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise QueryError(f"{what} is a day like 2026-01-31") from None


def _language(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{3}(_[A-Za-z]{2,8})?", text, re.ASCII):
        raise QueryError("a language is written with three letters, like eng or deu")
    return text[:3].lower() + text[3:]


def _kind(text: str) -> str:
    if text not in list(PageKind):
        raise QueryError(f"kinds of pages are {', '.join(PageKind)}")
    return text


class ChannelName(StrEnum):
    """The two ways in which a passage can be found."""

    DENSE = "dense"
    WORDS = "words"


@dataclass(frozen=True)
class Ranked:
    """A passage as one channel ranked it.

    Attributes:
        chunk_id: Which passage.
        score: Higher is closer: a cosine for ``dense``, for ``words`` cover density, or
            what the words that it has are worth.
    """

    chunk_id: str
    score: float


@dataclass(frozen=True)
class Part:
    """What one channel contributed to a hit's score.

    Attributes:
        channel: Which one.
        rank: The place there, from 1.
        score: What the channel itself measured.
        share: What it adds to the fused score: weight / (k + rank).
    """

    channel: ChannelName
    rank: int
    score: float
    share: float


@dataclass(frozen=True)
class Fused:
    """A passage after fusion: its score, and what it is the sum of."""

    chunk_id: str
    score: float
    parts: tuple[Part, ...]


def fuse(
    ranked: Mapping[ChannelName, Sequence[Ranked]],
    spec: SearchSpec | None = None,
    most: int | None = None,
) -> list[Fused]:
    """One list out of several, by reciprocal rank.

    Ranks can be added up where scores cannot: a cosine and a cover density have no common unit.

    Args:
        ranked: Passages of each channel, the best first; none twice in one channel.
        spec: The constant and the weights.
        most: How many are returned; None: all.

    Returns:
        The passages that any channel has, the best first. Equal scores are ordered by the better
        single rank and then by id, so that the same query has the same answer.

    Source:
        Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual
        Rank Learning Methods", SIGIR 2009.
    """
    spec = spec or SearchSpec()
    weights = {ChannelName.DENSE: spec.dense_weight, ChannelName.WORDS: spec.words_weight}
    scores: dict[str, float] = {}
    best: dict[str, int] = {}
    places: dict[str, list[tuple[ChannelName, int, float, float]]] = {}
    for channel, passages in ranked.items():
        for rank, passage in enumerate(passages, start=1):
            chunk_id, share = passage.chunk_id, weights[channel] / (spec.rrf_k + rank)
            scores[chunk_id] = scores.get(chunk_id, 0.0) + share
            best[chunk_id] = min(best.get(chunk_id, rank), rank)
            places.setdefault(chunk_id, []).append((channel, rank, passage.score, share))
    order = sorted(scores, key=lambda chunk_id: (-scores[chunk_id], best[chunk_id], chunk_id))
    return [
        Fused(chunk_id, scores[chunk_id], tuple(Part(*place) for place in places[chunk_id]))
        for chunk_id in order[:most]
    ]


@dataclass(frozen=True)
class Hit:
    """One passage of an answer.

    Attributes:
        rank: The place, from 1.
        chunk_id: Which passage.
        document_id: SHA-256 of the file.
        document: The name it was received under; a stranger wrote it.
        page: Numbered from 1.
        start_char: Where the passage begins in the page's text.
        end_char: Where it ends.
        kind: How the page's text was got.
        language: Three letters.
        snippet: A few lines of it.
        highlight: Where it is on the page.
        score: After fusion; only its order within one answer means anything.
        parts: What the score is the sum of.
    """

    rank: int
    chunk_id: str
    document_id: str
    document: str
    page: int
    start_char: int
    end_char: int
    kind: str
    language: str
    snippet: Snippet
    highlight: Highlight
    score: float
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Channel:
    """What one channel did for an answer.

    Attributes:
        name: Which one.
        method: ``exact``, ``hnsw`` or ``full text``; empty where it did not run.
        found: Passages that it ranked.
        loss: Why it did not run, or what it did not look at; empty where nothing is lost.
        cut_short: Whether it ended before it had looked at everything.
    """

    name: ChannelName
    method: str = ""
    found: int = 0
    loss: str = ""
    cut_short: bool = False

    @property
    def ran(self) -> bool:
        """Whether it contributed at all."""
        return bool(self.method)


@dataclass(frozen=True)
class Coverage:
    """How much of what a query may look at is there to be found.

    Attributes:
        documents: Documents that the filter names or leaves.
        documents_failed: Those of them that could not be opened.
        pages: Their pages, within the range of pages asked for.
        pages_read: Pages of which the text is known, blank ones included.
        pages_failed: Pages that could not be read; the others are waiting.
        passages: Passages of those pages.
        passages_embedded: Those that the encoder in use has a vector of.
        pages_undivided: Pages that were read, and have no passages in the set that is searched.
    """

    documents: int = 0
    documents_failed: int = 0
    pages: int = 0
    pages_read: int = 0
    pages_failed: int = 0
    passages: int = 0
    passages_embedded: int = 0
    pages_undivided: int = 0

    def losses(self, *, dense: bool) -> tuple[str, ...]:
        """What cannot be found, one sentence each; ``dense``: whether vectors were searched."""
        waiting = self.pages - self.pages_read - self.pages_failed
        missing = self.passages - self.passages_embedded
        told = (
            (self.documents_failed, f"{_count(self.documents_failed, 'document')} could not be "
                                    "opened, and nothing of what they say can be found"),
            (self.pages_failed, f"{_count(self.pages_failed, 'page')} could not be read"),
            (waiting, f"{_count(waiting, 'page')} not read yet"),
            (self.pages_undivided, f"{_count(self.pages_undivided, 'page')} not divided into "
                                   "passages for this encoder yet: nothing of them can be found"),
            (missing if dense else 0, f"{_count(missing, 'passage')} not embedded yet: found by "
                                      "their words alone"),
        )  # fmt: skip
        return tuple(sentence for number, sentence in told if number > 0)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Answer:
    """What a query found, and everything that a reader has to know about how.

    Attributes:
        query: What was asked.
        hits: The best first: exactly ``query.top_k``, or fewer and a ``reason``.
        reason: Why there are fewer; empty where there are as many as were asked for.
        channels: Both of them, whether they ran or not.
        degraded: What was not looked at, one sentence each; empty for a whole answer.
        index_version: Changes whenever anything that can be found does.
        seconds: What it took.
        cached: Whether it was answered before and nothing has changed since.
    """

    query: Query
    hits: tuple[Hit, ...]
    reason: str
    channels: tuple[Channel, ...]
    degraded: tuple[str, ...]
    index_version: str
    seconds: float = 0.0
    cached: bool = False

    def again(self, seconds: float) -> "Answer":
        """The same answer, given once more."""
        return replace(self, seconds=seconds, cached=True)


@dataclass(frozen=True)
class Scope:
    """What is known of the passages that a query might have found.

    Attributes:
        matching: Passages that the filter leaves.
        stored: Whether any passage is stored at all.
        unknown: Names of documents in the filter, where no document has any of them.
        cut_short: Whether a channel ended before it had looked at everything.
    """

    matching: int
    stored: bool
    unknown: tuple[str, ...] = ()
    cut_short: bool = False


def reason_for_fewer(query: Query, found: int, scope: Scope, dense_ran: bool) -> str:
    """Why an answer has fewer hits than were asked for; empty where it has not."""
    if found >= query.top_k:
        return ""
    if scope.unknown:
        names = ", ".join(repr(inert(name)) for name in scope.unknown[:3])
        return f"no document is called {names}"
    if not scope.stored:
        return "nothing has been read yet: there is no passage to find"
    if scope.cut_short:
        return f"only {_count(found, 'passage')} came of the time that a search may take"
    if found < scope.matching:
        have = "has" if found == 1 else "have"
        only = f"only {_count(found, 'passage')} {have} these words" if found else (
            "no passage has these words"
        )  # fmt: skip
        if dense_ran:
            return f"{only} or a vector to be compared with"
        return f"{only}, and meaning was not searched"
    match = "matches" if scope.matching == 1 else "match"
    if query.filters == NO_FILTERS:
        are = "is" if scope.matching == 1 else "are"
        return f"only {_count(scope.matching, 'passage')} {are} stored"
    if scope.matching == 0:
        return "no passage matches the filter"
    return f"only {_count(scope.matching, 'passage')} {match} the filter"
