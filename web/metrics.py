"""Metrics in Prometheus's text format; names of documents and words of queries are in none."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from core.search import Answer, Coverage

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "quire_http_requests", "Requests.", ["method", "route", "status"], registry=registry
        )
        self._search = Histogram(
            "quire_search_seconds", "Searches.", buckets=SECONDS, registry=registry
        )
        self._answers = Counter(
            "quire_search_answers", "Answers.", ["cached", "degraded", "short"], registry=registry
        )
        self._uploads = Counter("quire_uploads", "Uploads.", ["outcome"], registry=registry)
        self._upload_bytes = Counter("quire_upload_bytes", "Bytes taken.", registry=registry)
        self._pictures = Counter("quire_pictures", "Page images.", ["cached"], registry=registry)
        self._stored = Gauge("quire_stored", "What is stored.", ["what"], registry=registry)

    def answered_request(self, method: str, route: str, status: int) -> None:
        """An answer went out."""
        known = method if method in ("GET", "HEAD", "OPTIONS", "POST") else "other"
        self._requests.labels(known, route, str(status)).inc()

    def answered(self, answer: Answer) -> None:
        """A query was answered."""
        self._search.observe(answer.seconds)
        facts = (answer.cached, bool(answer.degraded), bool(answer.reason))
        self._answers.labels(*(str(fact).lower() for fact in facts)).inc()

    def uploaded(self, outcome: str, size_bytes: int = 0) -> None:
        """An upload ended."""
        self._uploads.labels(outcome).inc()
        self._upload_bytes.inc(size_bytes)

    def pictured(self, *, cached: bool) -> None:
        """A picture of a page went out."""
        self._pictures.labels(str(cached).lower()).inc()

    def text(self, coverage: Coverage | None) -> bytes:
        """Everything, with what is stored where the database told it."""
        if coverage is not None:
            for what, number in vars(coverage).items():
                self._stored.labels(what).set(number)
        return generate_latest(self._registry)
