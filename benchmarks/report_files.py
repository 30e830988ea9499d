"""What writing the files of a report costs: one pass over its pairs against one pass per file.

    python -m benchmarks.report_files

Takes everything that is stored under the settings in force (``QUIRE_HOME``), writes its report both
ways, compares the bytes and prints the ratio of processor time, best of three.
"""

import io
import time
from collections.abc import Callable

import cv2

import store.documents
from assets.report_contents import Contents, gather, in_force, report_pairs
from core.report_files import FILES, HTML, JSON, TSV, write_files
from core.report_html import write_html
from core.report_json import write_json
from core.report_tsv import write_tsv
from orchestration.definitions import resources_of
from orchestration.settings import from_environment
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.postgres import Postgres
from resources.settings import CopySearch

WRITERS = {TSV: write_tsv, JSON: write_json, HTML: write_html}


def together(contents: Contents, images: ImageStore) -> dict[str, str]:
    texts = {name: io.StringIO() for name in FILES}
    write_files(contents.report, report_pairs(contents, images), texts)
    return {name: text.getvalue() for name, text in texts.items()}


def apart(contents: Contents, images: ImageStore) -> dict[str, str]:
    texts = {name: io.StringIO() for name in FILES}
    for name, text in texts.items():
        WRITERS[name](contents.report, report_pairs(contents, images), text)
    return {name: text.getvalue() for name, text in texts.items()}


def cpu_s(way: Callable[[Contents, ImageStore], object], *arguments: object) -> float:
    started = time.process_time()
    way(*arguments)  # type: ignore[arg-type]
    return time.process_time() - started


def main() -> None:
    cv2.setNumThreads(1)
    resources = resources_of(from_environment())
    postgres, images = resources["postgres"], resources["images"]
    copy_search, encoder = resources["copy_search"], resources["encoder"]
    assert isinstance(postgres, Postgres)
    assert isinstance(images, ImageStore)
    assert isinstance(copy_search, CopySearch)
    assert isinstance(encoder, Encoder)
    with postgres.connect() as db:
        ids = [document.document_id for document in store.documents.everything(db)]
        contents = gather(db, in_force(db, copy_search, encoder), ids, "Everything stored")
    equal = together(contents, images) == apart(contents, images)
    once = min(cpu_s(together, contents, images) for _ in range(3))
    thrice = min(cpu_s(apart, contents, images) for _ in range(3))
    print(f"{contents.report.pairs} pairs, bytes equal: {equal}")
    print(f"one pass {once:.2f} s, one pass per file {thrice:.2f} s: {thrice / once:.2f} times")


if __name__ == "__main__":
    main()
