"""What a search takes, beside plain numpy over all vectors in memory.

    python -m benchmarks.search [--passages 1000 100000] [--queries 100] [--home FOLDER]

Passages of made-up words, as frequent as those of a language, lie in an embedded Postgres of its
own. Their vectors lie between those of real sentences by Quire's own encoder: so queries by that
encoder lie among them as they do among real passages. For each number of passages it prints:

- how long a query takes at the median and at the 95th percentile: plain numpy (one matrix product
  and the 200 best, vectors in memory as 32-bit floats), the vector channel by exact scan and by
  index, a whole search in this process and one over HTTP, without and with filters, none of them
  answered from the cache; what that is as a ratio of numpy's median in the same run; and the
  processor time of everything that took part, which other work on the machine changes less;
- how long building the index took, and which share of the exact nearest 50 it finds;
- of the service: processor time from its start to the first healthy answer, wall time of the same,
  and the memory that it holds then and after all queries.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

import store.batches
import store.chunk_embeddings
import store.search
import store.search_index
from assets.search_index import INDEX, measured_recall
from core.search import NO_FILTERS, Filters, Query, SearchSpec
from core.text_encoders import TextEncoder
from resources.database import Database
from resources.embedded_postgres import EmbeddedPostgres
from resources.text_encoder import open_text_encoder
from resources.text_search import TextSearch
from store.database import Db
from store.search_index import IndexBuild

SPEC = SearchSpec()
WORDS_PER_PASSAGE = 120
PASSAGES_PER_PAGE = 4
PAGES_PER_DOCUMENT = 20
VOCABULARY = 20_000
STOP_WORDS = 100
"""The most frequent words of a language, which full text search leaves out, are left out here."""

MIXED = 3
"""Sentences that a passage is about: its vector lies between theirs, at random, as real ones do."""

NOISE = 0.2
"""What is its own beside that, in all directions alike."""

BLOCK = 2_000


class Words:
    """Made-up words, each as frequent as its rank in a language has it."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        letters = np.asarray(list("etaoinshrdlucmwfgypbvk"))
        self.words = [
            "".join(rng.choice(letters[: 12 + n % 10], size=3 + n % 8)) for n in range(VOCABULARY)
        ]
        share = 1 / np.arange(STOP_WORDS, VOCABULARY + STOP_WORDS)
        self.share = share / share.sum()

    def text(self, rng: np.random.Generator, count: int) -> str:
        """So many of them."""
        return " ".join(self.words[n] for n in rng.choice(VOCABULARY, size=count, p=self.share))


class Library:
    """Passages in the database and their vectors in memory."""

    def __init__(self, db: Db, encoder: TextEncoder) -> None:
        self.db, self.words = db, Words()
        spec = encoder.spec
        self.chunk_set = spec.chunk_set
        self.table = store.chunk_embeddings.table_of(db, spec.encoder_id, spec.dim, spec.chunk_set)
        db.execute("TRUNCATE documents, batches CASCADE")
        store.search_index.drop_index(db, self.table)
        sentences = (Path(__file__).parents[1] / "core/data/text_samples.txt").read_text()
        self.seeds = encoder.encode(sentences.splitlines()[:200], "passage").vectors
        self.vectors = np.empty((0, spec.dim), np.float32)

    def grow(self, count: int) -> None:
        """Add passages until there are so many."""
        store.batches.add(self.db, "page", ["b"])
        parts = [self.vectors]
        for first in range(len(self.vectors), count, BLOCK):
            parts.append(self._add(first, min(BLOCK, count - first)))
        self.vectors = np.concatenate(parts)
        self.db.execute("VACUUM (ANALYZE) chunks")
        self.db.execute(SQL("VACUUM (ANALYZE) {t}").format(t=Identifier(self.table)))

    def _add(self, first: int, count: int) -> NDArray[np.float32]:
        rng = np.random.default_rng([2, first])
        noise = rng.normal(size=(count, self.seeds.shape[1])).astype(np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        shares = rng.dirichlet(np.ones(MIXED), size=count).astype(np.float32)
        about = self.seeds[rng.integers(0, len(self.seeds), (count, MIXED))]
        vectors = np.einsum("nm,nmd->nd", shares, about) + NOISE * noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        texts = [self.words.text(rng, WORDS_PER_PASSAGE) for _ in range(count)]
        numbers = range(first, first + count)
        places = sorted({self._place(number) for number in numbers})
        with self.db.transaction(), self.db.cursor() as cursor:
            cursor.executemany(
                """
                INSERT INTO documents (document_id, name, size_bytes, page_count, status, file_key)
                VALUES (%(id)s, %(name)s, 1, %(pages)s, 'ok', 'documents/x')
                ON CONFLICT DO NOTHING
                """,
                [
                    {"id": document, "name": f"{document[:8]}.pdf", "pages": PAGES_PER_DOCUMENT}
                    for document in sorted({document for document, _ in places})
                ],
            )
            cursor.executemany(
                """
                INSERT INTO pages VALUES (%(id)s, %(page)s, 'b', 's', 612, 792, '{}', '')
                ON CONFLICT DO NOTHING
                """,
                [{"id": document, "page": page} for document, page in places],
            )
            by_page: dict[tuple[str, int], list[str]] = {place: [] for place in places}
            spans: list[tuple[int, int]] = []
            for number, text in zip(numbers, texts, strict=True):
                start = sum(len(one) + 1 for one in by_page[self._place(number)])
                by_page[self._place(number)].append(text)
                spans.append((start, start + len(text)))
            cursor.executemany(
                """
                INSERT INTO ocr_pages
                VALUES (%(id)s, %(page)s, 'b', 's', 'ocr', %(language)s, 150, 90, %(text)s,
                        %(words)s, '[]')
                """,
                [
                    {
                        "id": document,
                        "page": page,
                        "language": _language(document),
                        "text": (text := "\n".join(said)),
                        "words": Jsonb(_boxes(text)),
                    }
                    for (document, page), said in by_page.items()
                ],
            )
            owners = [self._place(number) for number in numbers]
            cursor.execute(
                """
                INSERT INTO chunks
                SELECT chunk, document, page, 'b', %(set)s, 's', ordinal, first, last, said, 200,
                       language, 'ocr', to_tsvector('english', said)
                FROM unnest(%(chunks)s::text[], %(documents)s::text[], %(pages)s::int[],
                            %(ordinals)s::int[], %(firsts)s::int[], %(lasts)s::int[],
                            %(texts)s::text[], %(languages)s::text[])
                     AS t (chunk, document, page, ordinal, first, last, said, language)
                """,
                {
                    "set": self.chunk_set,
                    "chunks": [_chunk(number) for number in numbers],
                    "documents": [document for document, _ in owners],
                    "pages": [page for _, page in owners],
                    "ordinals": [number % PASSAGES_PER_PAGE for number in numbers],
                    "firsts": [start for start, _ in spans],
                    "lasts": [end for _, end in spans],
                    "texts": texts,
                    "languages": [_language(document) for document, _ in owners],
                },
            )
        statement = SQL("COPY {t} (chunk_id, embedding) FROM STDIN (FORMAT BINARY)")
        with (
            self.db.cursor() as cursor,
            cursor.copy(statement.format(t=Identifier(self.table))) as copy,
        ):
            copy.set_types(["text", "halfvec"])
            for number, vector in zip(numbers, vectors, strict=True):
                copy.write_row((_chunk(number), HalfVector(vector)))
        return vectors

    @staticmethod
    def _place(number: int) -> tuple[str, int]:
        page = number // PASSAGES_PER_PAGE
        return f"{page // PAGES_PER_DOCUMENT:064x}", page % PAGES_PER_DOCUMENT + 1


def _chunk(number: int) -> str:
    """A hash, as real ids are: what lies together on the disk has ids that lie far apart."""
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


def _language(document: str) -> str:
    """Every tenth document is in another language."""
    return "deu" if int(document, 16) % 10 == 0 else "eng"


def _boxes(text: str) -> list[list[float]]:
    return [
        [m.start(), m.end(), 50.0 * (n % 10), 14.0 * (n // 10), 50.0 * (n % 10) + 40,
         14.0 * (n // 10) + 10, 90.0]
        for n, m in enumerate(re.finditer(r"\S+", text))
    ]  # fmt: skip


class Clock:
    """Time that calls take, on the wall and of the processor.

    Args:
        processes: Beside this one, those that answer, with all that they start.
    """

    def __init__(self, *processes: int) -> None:
        self._processes = [psutil.Process(pid) for pid in processes]

    def timed(self, work: Callable[[int], object], count: int) -> tuple[NDArray[np.float64], float]:
        """Time of so many calls, after two that are not counted.

        Returns:
            Milliseconds of each on the wall, and of the processor on the average, all processes
            together.
        """
        for number in (-1, -2):
            work(number)
        times: list[float] = []
        used = self._used_s()
        for number in range(count):
            start = time.perf_counter()
            work(number)
            times.append(1000 * (time.perf_counter() - start))
        return np.asarray(times), 1000 * (self._used_s() - used) / count

    def _used_s(self) -> float:
        used = time.process_time()
        for process in self._processes:
            for one in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = one.cpu_times()
                    used += times.user + times.system
        return used


class Table:
    """Lines of one number of passages; the first is what the others are compared with."""

    def __init__(self, passages: int) -> None:
        self.passages, self.plain = passages, 0.0

    def add(self, what: str, taken: tuple[NDArray[np.float64], float]) -> None:
        """Print a line."""
        times, cpu = taken
        median, late = np.percentile(times, [50, 95])
        self.plain = self.plain or median
        print(
            f"{self.passages:>9,}  {what:<44} {median:>8.1f} {late:>8.1f} "
            f"{median / self.plain:>8.2f} {cpu:>8.1f}",
            flush=True,
        )


class Service:
    """``quire serve``, in a process of its own."""

    def __init__(self, home: Path, encoder: str) -> None:
        environment = {
            **os.environ, "QUIRE_HOME": str(home), "QUIRE_TEXT_ENCODER": encoder,
            "QUIRE_SERVE_API_KEY": "", "QUIRE_DATABASE_URL": "",
        }  # fmt: skip
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "orchestration.cli", "serve", "--port", "0"],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        found = re.search(r"http://[\d.]+:\d+", self._process.stdout.readline())
        assert found is not None, "the service did not start"
        self.url = found[0]
        with urllib.request.urlopen(f"{self.url}/health", timeout=60) as reply:
            assert json.load(reply)["status"] == "ok"
        self.wall_s, self.pid = time.perf_counter() - start, self._process.pid
        used = psutil.Process(self.pid).cpu_times()
        self.cpu_s = used.user + used.system

    def ask(self, query: Query) -> int:
        """How many hits a query has."""
        body = {"query": query.text, "filters": {"languages": list(query.filters.languages)}}
        request = urllib.request.Request(
            f"{self.url}/search",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return len(json.load(reply)["hits"])

    @property
    def rss_mb(self) -> float:
        """Memory that it holds."""
        return psutil.Process(self.pid).memory_info().rss / 1e6

    def end(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(30)


def measure(
    library: Library,
    search: TextSearch,
    encoder: TextEncoder,
    service: Service,
    clock: Clock,
    queries: int,
) -> None:
    """Print the lines of one number of passages."""
    table, vectors = Table(len(library.vectors)), library.vectors
    rng = np.random.default_rng(3)
    run = f"{len(vectors):x}"
    texts = [library.words.text(rng, 4) + f" {run}" for _ in range(queries + 2)]
    encoded = encoder.encode(texts, "query").vectors
    db, name, chunk_set = library.db, library.table, library.chunk_set

    def plain(number: int) -> object:
        scores = vectors @ encoded[number]
        best = np.argpartition(-scores, SPEC.depth)[: SPEC.depth]
        return best[np.argsort(-scores[best])]

    def exact(number: int) -> object:
        return store.search.nearest_exact(
            db, name, chunk_set, encoded[number], NO_FILTERS, SPEC.depth
        )

    def indexed(number: int) -> object:
        return store.search.nearest_indexed(
            db, name, chunk_set, encoded[number], NO_FILTERS, SPEC.depth, SPEC.hnsw_ef_search
        )

    def whole(filters: Filters, mark: str) -> Callable[[int], object]:
        def ask(number: int) -> object:
            answer = search.search(Query(f"{texts[number]} {mark}", 10, filters))
            assert len(answer.hits) == 10, answer.reason
            assert not answer.cached
            return answer

        return ask

    def over_http(number: int) -> object:
        found = service.ask(Query(f"{texts[number]} h", 10))
        assert found == 10
        return found

    table.add("numpy, all vectors in memory", clock.timed(plain, queries))
    table.add("vectors, exact scan", clock.timed(exact, queries))
    if store.search.state(db, encoder.spec.encoder_id).indexed:
        table.add("vectors, HNSW index", clock.timed(indexed, queries))
    table.add(
        "whole search, encoder and words included", clock.timed(whole(NO_FILTERS, "a"), queries)
    )
    wide, narrow = Filters(languages=("eng",)), Filters(first_page=3, last_page=4)
    table.add("  filter that leaves nine tenths", clock.timed(whole(wide, "b"), queries))
    table.add("  filter that leaves a tenth", clock.timed(whole(narrow, "c"), queries))
    table.add("whole search over HTTP", clock.timed(over_http, queries))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--passages", nargs="+", type=int, default=[1_000, 100_000])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--home", type=Path, help="folder to work in; by default a temporary one")
    arguments = parser.parse_args()
    home = arguments.home or Path(tempfile.mkdtemp(prefix="quire-search-"))
    home.mkdir(parents=True, exist_ok=True)
    folder = home / "encoder"
    if not folder.exists():
        conversion = [sys.executable, "-W", "ignore", "-m", "resources.text_conversion", "minilm"]
        subprocess.run([*conversion, "--out", str(folder)], check=True, stdout=subprocess.DEVNULL)
    choice = f"sentence-transformers:{folder}"
    encoder = open_text_encoder(choice, None)
    database = Database(data_dir=str(home / "postgres"))
    try:
        with database.connect() as db:
            library = Library(db, encoder)
            _measure_all(home, choice, database, library, encoder, arguments)
    finally:
        EmbeddedPostgres(home / "postgres").stop()
        if arguments.home is None:
            shutil.rmtree(home, ignore_errors=True)


def _measure_all(
    home: Path,
    choice: str,
    database: Database,
    library: Library,
    encoder: TextEncoder,
    arguments: argparse.Namespace,
) -> None:
    notes: list[str] = []
    heads = ("passages", "what", "p50 ms", "p95 ms", "ratio", "CPU ms")
    print("{:>9}  {:<44} {:>8} {:>8} {:>8} {:>8}".format(*heads))
    for count in _sizes(arguments.passages):
        library.grow(count)
        if count >= INDEX.index_rows:
            start = time.perf_counter()
            with database.connect() as own:
                build = IndexBuild(
                    INDEX.hnsw_m, INDEX.hnsw_ef_construction, INDEX.memory_mb, INDEX.timeout_s
                )
                store.search_index.build_index(own, library.table, build)
            seconds = time.perf_counter() - start
            recall = measured_recall(library.db, library.table)
            notes.append(
                f"{count:,} passages: index built in {seconds:.0f} s, recall {recall:.3f} of the "
                f"exact nearest {INDEX.recall_depth}"
            )
        search = TextSearch(replace(database), lambda _: encoder)
        service = Service(home, choice)
        first_mb = service.rss_mb
        server = EmbeddedPostgres(home / "postgres").status().pid
        assert server is not None
        clock = Clock(server, service.pid)
        measure(library, search, encoder, service, clock, arguments.queries)
        notes.append(
            f"{count:,} passages: service healthy after {service.wall_s:.1f} s "
            f"({service.cpu_s:.1f} s of processor time), {first_mb:.0f} MB then, "
            f"{service.rss_mb:.0f} MB after all queries"
        )
        service.end()
        search.close()
    print(*notes, f"load of the machine {os.getloadavg()[0]:.1f}", sep="\n")


def _sizes(given: Sequence[int]) -> list[int]:
    return sorted(set(given))


if __name__ == "__main__":
    main()
