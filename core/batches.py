"""Page batches: how the pages of documents are divided into partitions."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class PageRange:
    """Consecutive pages of one document; ``last_page`` 0 for a document without readable pages."""

    document_id: str
    first_page: int
    last_page: int

    @property
    def pages(self) -> int:
        """How many pages the range holds."""
        return max(0, self.last_page - self.first_page + 1)


@dataclass(frozen=True)
class BatchSpec:
    """How many pages share a partition."""

    pages_per_batch: int = 8
    """A paper is one or two partitions; a step costs about 0.9 s to start whatever it holds, and 8
    pages are a few seconds of work. Memory does not depend on it: pages are read one at a time."""


def divide(document_id: str, page_count: int, spec: BatchSpec) -> list[tuple[str, list[PageRange]]]:
    """Divide one document into batches.

    Args:
        document_id: SHA-256 of the file, hexadecimal.
        page_count: Number of pages; 0 for a document that cannot be read.
        spec: Batch size.

    Returns:
        Partition key and page ranges of each batch, at least one. Keys are made of ``[a-z0-9-]``
        and sort in page order, for example ``3f9a1c2e4b5d-p00001``.
    """
    starts: Iterable[int] = range(1, max(page_count, 1) + 1, spec.pages_per_batch)
    return [
        (
            f"{document_id[:12]}-p{first:05d}",
            [PageRange(document_id, first, min(first + spec.pages_per_batch - 1, page_count))],
        )
        for first in starts
    ]


def runs_of_neighbours(wanted: Iterable[str], registered: Iterable[str]) -> list[list[str]]:
    """Split a set of partitions into runs that are contiguous in order of registration.

    A run over several partitions travels as its first and last key, so every key between the two
    must be wanted.
    """
    chosen = set(wanted)
    runs: list[list[str]] = []
    open_run = False
    for key in registered:
        if key in chosen:
            if open_run:
                runs[-1].append(key)
            else:
                runs.append([key])
        open_run = key in chosen
    return runs
