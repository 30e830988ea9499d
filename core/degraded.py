"""Ways to be degraded: everything that can keep a result from being whole, by name.

A report says of each loss what happened, and programs read its kind. Every message in the code that
tells of a loss belongs to one of the ways listed here, each way has a test that provokes it and
looks for it where users look, and docs/reports.md lists them: three tests in ``tests/degraded``
hold that together, so a new way comes with its test and its line in the docs or not at all.
"""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Way:
    """One way in which a result can be less than whole.

    Attributes:
        name: A stable word; the test that provokes it goes by this name.
        kind: The flag of the report that tells of it; None where the run itself fails.
        says: What every sentence about it contains, wherever it is shown.
        means: What it is and what is missing, for docs/reports.md.
    """

    name: str
    kind: Kind | None
    says: str
    means: str


WAYS: tuple[Way, ...] = (
    # A file that was to be looked at and is not in the store.
    Way("file_irregular", Kind.FILE_REFUSED, "not a regular file", "a pipe, device or socket"),
    Way("file_is_link", Kind.FILE_REFUSED, "a link, which is not followed", "a link in a folder"),
    Way("file_too_large", Kind.FILE_REFUSED, "split it, or raise the limit", "over 1 GiB"),
    Way("file_changing", Kind.FILE_REFUSED, "it changed while it was read", "still being written"),
    Way(
        "folder_unreadable",
        Kind.FILE_REFUSED,
        "a folder that cannot be read",
        "whatever it holds is not looked at",
    ),
    Way("document_unknown", Kind.DOCUMENT_UNKNOWN, "is not stored", "asked for by id, or deleted"),
    # A document of which no page can be looked at.
    Way("encrypted", Kind.DOCUMENT_FAILED, "is encrypted", "needs a password to be read"),
    Way("web_page", Kind.DOCUMENT_FAILED, "is a web page, not a PDF", "often a login page"),
    Way("archive", Kind.DOCUMENT_FAILED, "is a ZIP archive or an office document", "no PDF"),
    Way("no_pdf", Kind.DOCUMENT_FAILED, "not a PDF; export or print it as one", "something else"),
    Way("empty_file", Kind.DOCUMENT_FAILED, "is empty; copy or download it again", "no byte in it"),
    Way("no_pages", Kind.DOCUMENT_FAILED, "no page of it can be read", "damaged beyond repair"),
    Way("unreadable_file", Kind.DOCUMENT_FAILED, "cannot be opened as a PDF", "damaged"),
    Way("beyond_repair", Kind.DOCUMENT_FAILED, "is damaged beyond repair; download", "damaged"),
    Way("too_many_pages", Kind.DOCUMENT_FAILED, "allowed; split it, or raise max_", "over a limit"),
    Way(
        "copy_missing",
        Kind.DOCUMENT_FAILED,
        "is missing; add the file again",
        "the stored copy is gone; no page that is not read yet can be",
    ),
    Way(
        "copy_altered",
        Kind.DOCUMENT_FAILED,
        "has changed since it was received",
        "the stored copy is another file now; nothing is read from it",
    ),
    # A document of which something may be missing.
    Way("repaired", Kind.DOCUMENT_DEGRADED, "was repaired on opening", "pages may be missing"),
    Way(
        "uncounted_pages",
        Kind.DOCUMENT_DEGRADED,
        "the others are not looked at",
        "the file lists more pages than it counts",
    ),
    # A page that is not looked at.
    Way("page_unreadable", Kind.PAGE_FAILED, "cannot be read", "the parser refuses it"),
    Way("page_absent", Kind.PAGE_FAILED, "although the file counts it", "counted, but not there"),
    Way("page_broke_parser", Kind.PAGE_FAILED, "the PDF parser", "it crashed on the page"),
    Way("page_too_slow", Kind.PAGE_FAILED, "took longer than", "parsing or rendering timed out"),
    Way(
        "page_not_tried",
        Kind.PAGE_FAILED,
        "was not tried: other pages",
        "other pages of the file took ten minutes and came to nothing",
    ),
    Way("page_over_budget", Kind.PAGE_FAILED, "that reading a PDF was given", "over the budget"),
    Way(
        "page_asks_too_much",
        Kind.PAGE_FAILED,
        "of memory at once, more than any page may",
        "it states a size that its data cannot have",
    ),
    Way("page_too_large", Kind.PAGE_FAILED, "megapixels that a page may have", "a huge sheet"),
    Way("page_without_area", Kind.PAGE_FAILED, "to render", "no width, height or visible part"),
    # A page that is looked at, but not all of it or not as closely.
    Way("dpi_lowered", Kind.PAGE_DEGRADED, "is so large that it was read at", "a large sheet"),
    Way(
        "not_decoded", Kind.PAGE_DEGRADED, "could not be decoded completely", "a picture or drawing"
    ),
    Way(
        "not_in_file", Kind.PAGE_DEGRADED, "that the page draws is not in the file", "a lost object"
    ),
    Way("font_unreadable", Kind.PAGE_DEGRADED, "a font could not be read", "text may be missing"),
    Way(
        "commands_damaged", Kind.PAGE_DEGRADED, "drawing commands are damaged", "may be incomplete"
    ),
    Way("page_damaged", Kind.PAGE_DEGRADED, "something here is damaged", "anything else"),
    Way(
        "structure_damaged",
        Kind.PAGE_DEGRADED,
        "structure of the file is damaged",
        "may be incomplete",
    ),
    Way(
        "out_of_sight",
        Kind.PAGE_DEGRADED,
        "outside the visible part of the page",
        "pictures that the page draws where nobody sees them",
    ),
    Way("page_crowded", Kind.PAGE_DEGRADED, "than is looked at one by one", "the rest is left out"),
    Way("page_repaired", Kind.PAGE_DEGRADED, "proved to be damaged here", "repaired on the way"),
    Way("pages_waiting", Kind.PAGES_MISSING, "not been looked at yet", "not made, or not finished"),
    # A panel that was found and not compared, or not with everything.
    Way(
        "item_over_budget",
        Kind.PANEL_FAILED,
        "it does not fit the memory budget",
        "one page, panel or pair needs more memory than its op may hold",
    ),
    Way(
        "picture_lost", Kind.PANEL_FAILED, "its stored picture is missing", "deleted from the store"
    ),
    Way("picture_broken", Kind.PANEL_FAILED, "its stored picture is damaged", "in the store"),
    Way(
        "candidates_capped",
        Kind.SEARCH_DEGRADED,
        "only the closest were kept",
        "the panel resembles hundreds of others",
    ),
    Way(
        "panels_waiting", Kind.PANELS_NOT_COMPARED, "not been compared yet", "under these settings"
    ),
    Way(
        "encoder_waiting",
        Kind.PANELS_NOT_COMPARED,
        "not been compared by the image encoder yet",
        "vectors or tiles are missing",
    ),
    Way(
        "pair_not_verified", Kind.PAIR_FAILED, "cannot be compared", "picture or features are gone"
    ),
    Way("features_gone", Kind.PAIR_FAILED, "its features are gone", "deleted from the database"),
    Way(
        "encoder_over_budget",
        Kind.PANEL_FAILED,
        "a single image runs out of memory",
        "the encoder does not fit its op's budget; the local channel has run",
    ),
    # A pair that is not shown as it was found.
    Way(
        "pair_altered",
        Kind.PAIR_ALTERED,
        "was altered",
        "the stored record contradicts itself",
    ),
    Way(
        "picture_not_shown",
        Kind.PICTURE_MISSING,
        "cannot be shown",
        "the pair is listed, with two crossed lines in the place of the picture",
    ),
    Way(
        "no_reason_stored",
        Kind.PANEL_FAILED,
        "and does not say why",
        "the ledger says that something failed, and no more",
    ),
    # What the reader has to know although everything in scope was looked at.
    Way(
        "earlier_apart",
        Kind.EARLIER_NOT_COMPARED,
        "although stored beside them",
        "papers stored earlier, made under other settings or not finished",
    ),
    # The run fails (exit code 1), and what it did not come to is told as above.
    Way(
        "op_stopped", None, "ignores its budget of", "an op held more than it may, and was stopped"
    ),
    Way(
        "budget_hopeless", None, "before its first item", "an op's budget below what it starts with"
    ),
    Way("encoder_missing", None, "weights file", "an encoder that is configured and not to be had"),
    Way(
        "encoder_without_room",
        None,
        "no runtime of encoder",
        "the encoder takes more memory, in every form of it, than the op that embeds may hold",
    ),
    Way(
        "step_failed",
        None,
        "",
        "anything else; the terminal and the log say what, and later steps do not run",
    ),
)
"""Every way, in the order in which a search can come to it."""
