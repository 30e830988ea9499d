"""Ways to be degraded: everything that can keep a result from being whole, by name.

A report says of each loss what happened, and programs read its kind. Every message in the code that
tells of a loss belongs to one of the ways listed here, each way has a test that provokes it and
looks for it where users look, and docs/reports.md lists them: three tests in ``tests/degraded``
hold that together, so a new way comes with its test and its line in the docs or not at all.
"""

from enum import StrEnum


class Kind(StrEnum):
    """What a flag of a report is about, for programs; ``flags[].kind`` in ``pairs.json``."""

    FILE_REFUSED = "file_refused"
    DOCUMENT_UNKNOWN = "document_unknown"
    DOCUMENT_FAILED = "document_failed"
    DOCUMENT_DEGRADED = "document_degraded"
    PAGE_FAILED = "page_failed"
    PAGE_DEGRADED = "page_degraded"
    PAGES_MISSING = "pages_missing"
    PANEL_FAILED = "panel_failed"
    PANELS_NOT_COMPARED = "panels_not_compared"
    SEARCH_DEGRADED = "search_degraded"
    PAIR_FAILED = "pair_failed"
    PAIR_ALTERED = "pair_altered"
    PICTURE_MISSING = "picture_missing"
    EARLIER_NOT_COMPARED = "earlier_not_compared"


NOTES = frozenset({Kind.EARLIER_NOT_COMPARED})
"""Kinds that a reader has to know of, although everything in the report's scope was looked at."""


_KINDS = {
    ("documents", "failed"): Kind.DOCUMENT_FAILED,
    ("documents", "degraded"): Kind.DOCUMENT_DEGRADED,
    ("pages", "failed"): Kind.PAGE_FAILED,
    ("pages", "degraded"): Kind.PAGE_DEGRADED,
    ("panels", "failed"): Kind.PAGE_FAILED,
    ("panels", "degraded"): Kind.PAGE_DEGRADED,
    ("panel_features", "failed"): Kind.PANEL_FAILED,
    ("tiles", "failed"): Kind.PANEL_FAILED,
    ("tile_embeddings", "failed"): Kind.PANEL_FAILED,
    ("candidate_pairs", "failed"): Kind.PANEL_FAILED,
    ("verified_pairs", "failed"): Kind.PAIR_FAILED,
}


def kind_of(asset: str, status: str) -> Kind:
    """The kind of what went wrong with a unit of an asset."""
    return _KINDS.get((asset, status), Kind.SEARCH_DEGRADED)
