import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from upath import UPath

import store.batches
import store.documents
import store.page_batches
import store.pages
import store.work
from core.errors import InputError
from core.work import Job, Outcome, Status
from orchestration.files import read_blocks
from orchestration.ingest import Received, find_files, receive, register_partitions
from resources.images import ImageStore
from resources.pdf import PdfLimits
from tests.hostile import endless_title, small_paper


@pytest.fixture
def images(tmp_path: Path) -> ImageStore:
    return ImageStore(url=(tmp_path / "store").as_uri())


def test_a_file_becomes_a_document_with_batches_that_dagster_learns_of(
    db: psycopg.Connection, images: ImageStore, tmp_path: Path
) -> None:
    small_paper(tmp_path / "paper.pdf", seed=1)
    received = receive(db, images, UPath(tmp_path / "paper.pdf"))
    assert received.new
    assert received.document is not None
    assert received.document.page_count == 2
    with dg.DagsterInstance.ephemeral() as instance:
        assert register_partitions(db, instance) == 1
        assert register_partitions(db, instance) == 0
        assert instance.get_dynamic_partitions("page_batches") == store.page_batches.keys(db)


def test_a_pipe_named_pdf_is_refused_at_once(
    db: psycopg.Connection, images: ImageStore, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.pdf")
    received = receive(db, images, UPath(tmp_path / "pipe.pdf"))
    assert received.document is None
    assert "not a regular file" in received.reason
    assert store.documents.everything(db) == []


def test_a_file_beyond_the_limit_is_refused_with_the_limit(
    db: psycopg.Connection, images: ImageStore, tmp_path: Path
) -> None:
    (tmp_path / "big.pdf").write_bytes(b"%PDF-1.7" + bytes(3 << 20))
    limits = PdfLimits(max_file_bytes=2 << 20)
    received = receive(db, images, UPath(tmp_path / "big.pdf"), limits)
    assert received.reason == "big.pdf: larger than 2 MB; split it, or raise the limit"


def test_a_stored_copy_that_was_lost_is_taken_in_again(
    db: psycopg.Connection, images: ImageStore, tmp_path: Path
) -> None:
    small_paper(tmp_path / "paper.pdf", seed=2)
    first = receive(db, images, UPath(tmp_path / "paper.pdf"))
    assert first.document is not None
    Path(UPath(images.url).path, first.document.file_key).unlink()
    again = receive(db, images, UPath(tmp_path / "paper.pdf"))
    assert not again.new
    assert images.exists(first.document.file_key)


def test_folders_are_searched_and_a_missing_path_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    small_paper(tmp_path / "sub" / "B.PDF", seed=1)
    small_paper(tmp_path / "a.pdf", seed=1)
    (tmp_path / "notes.txt").write_text("no")
    found = [path.name for path in find_files([str(tmp_path)])]
    assert found == ["a.pdf", "B.PDF"]
    with pytest.raises(InputError, match=r"nowhere\.pdf: there is no such file"):
        list(find_files([str(tmp_path / "nowhere.pdf")]))


def test_an_address_with_credentials_is_refused_without_repeating_them() -> None:
    with pytest.raises(InputError, match="AWS_SECRET_ACCESS_KEY") as refusal:
        list(find_files(["s3://AKIAPLANTED:s3cret@bucket/papers"]))
    assert "PLANTED" not in str(refusal.value)
    assert "s3cret" not in str(refusal.value)


def test_a_signed_address_leaves_its_signature_out_of_the_name(
    db: psycopg.Connection, images: ImageStore, tmp_path: Path
) -> None:
    small_paper(tmp_path / "paper.pdf", seed=5)
    memory = UPath("memory://bucket/paper.pdf?X-Amz-Signature=s3cret")
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_bytes((tmp_path / "paper.pdf").read_bytes())
    received = receive(db, images, memory)
    assert received.document is not None
    assert received.document.name == received.name == "paper.pdf"


def test_a_store_below_a_folder_with_a_space_lies_there(tmp_path: Path) -> None:
    home = tmp_path / "my home? 100%41#x"
    images = ImageStore(url=(home / "store").as_uri())
    images.write_bytes("a/b", b"there")
    assert (home / "store" / "a" / "b").read_bytes() == b"there"
    assert images.read_bytes("a/b") == b"there"


@pytest.mark.parametrize(
    "name",
    [
        "../../../escaped.pdf",
        "nul\x00inside.pdf",
        "n" * 300 + ".pdf",
        "turned\u202efdp.pdf",
        "a\nb.pdf",
    ],
)
def test_names_that_no_disk_allows_come_from_object_stores_and_lead_nowhere(
    db: psycopg.Connection, images: ImageStore, tmp_path: Path, name: str
) -> None:
    small_paper(tmp_path / "paper.pdf", seed=6, panels=2, planted=0)
    memory = UPath(f"memory://bucket/{name}")
    memory.fs.pipe(memory.path, (tmp_path / "paper.pdf").read_bytes())
    received = receive(db, images, memory)
    assert received.document is not None
    assert received.document.status == "ok"
    assert received.document.name == name.rsplit("/", 1)[-1].replace("\x00", "\ufffd")
    stored = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert [path.name for path in stored] == [f"{received.document.document_id}.pdf"]


def test_a_path_that_no_disk_allows_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="file name too long"):
        list(find_files([str(tmp_path / ("n" * 300 + ".pdf"))]))


def test_a_folder_says_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    small_paper(tmp_path / "inbox" / "real.pdf", seed=1, panels=2, planted=0)
    (tmp_path / "inbox" / "link.pdf").symlink_to(tmp_path / "inbox" / "real.pdf")
    link, real = find_files([str(tmp_path / "inbox")])
    assert isinstance(link, Received)
    assert link.document is None
    assert link.reason == "inbox/link.pdf: a link, which is not followed; add what it leads to"
    assert isinstance(real, UPath)
    # A link that is named by hand is followed: whoever names it means what it leads to.
    (named,) = find_files([str(tmp_path / "inbox" / "link.pdf")])
    assert isinstance(named, UPath)


def test_a_file_that_changes_while_it_is_read_is_not_taken_in(
    db: psycopg.Connection, images: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "paper.pdf"
    small_paper(path, seed=1, panels=2, planted=0)
    whole = path.read_bytes()

    def writing(*arguments: Any) -> Iterator[bytes]:
        for block in read_blocks(*arguments):
            with path.open("ab") as file:  # somebody is still at it
                file.write(b"% more\n")
            yield block

    with monkeypatch.context() as patched:
        patched.setattr("orchestration.files.read_blocks", writing)
        received = receive(db, images, UPath(path))
    assert received.document is None
    assert received.again
    assert received.reason == (
        "paper.pdf: it changed while it was read; add it again once it is complete"
    )
    assert store.documents.everything(db) == []
    path.write_bytes(whole)
    assert receive(db, images, UPath(path)).document is not None


def test_a_full_disk_is_not_blamed_on_the_file(
    db: psycopg.Connection, images: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_paper(tmp_path / "paper.pdf", seed=1, panels=2, planted=0)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("orchestration.ingest.copy_of", full)
    with pytest.raises(OSError, match="No space left"):
        receive(db, images, UPath(tmp_path / "paper.pdf"))
    assert store.documents.everything(db) == []


def test_an_endless_title_is_cut_and_can_be_stored(
    db: psycopg.Connection, images: ImageStore, tmp_path: Path
) -> None:
    received = receive(db, images, UPath(endless_title(tmp_path)))
    assert received.document is not None
    (stored,) = store.documents.everything(db)
    assert len(stored.title) == 300
    assert "\x00" not in stored.title


def test_a_file_that_could_not_be_opened_is_tried_again_when_it_is_added_again(
    db: psycopg.Connection, images: ImageStore, tmp_path: Path
) -> None:
    path = UPath(tmp_path / "paper.pdf")
    small_paper(tmp_path / "paper.pdf", seed=1, panels=2, planted=0)
    strict = PdfLimits(max_pages=1)
    first = receive(db, images, path, strict)
    assert "has 2 pages, more than the 1 allowed" in first.reason
    assert first.document is not None
    (key,) = store.page_batches.keys(db)
    job = Job("documents", "spec", (key,), 999, "run")
    failed = Outcome(first.document.document_id, key, Status.FAILED, reason=first.reason)
    store.work.record(db, job, [failed])
    store.batches.finish(db, job)
    assert receive(db, images, path, strict).reason == first.reason

    again = receive(db, images, path)
    assert again.document is not None
    assert (again.document.status, again.reason) == ("ok", "")
    assert store.documents.everything(db) == [again.document]
    assert store.page_batches.keys(db) == [key]
    assert [page.page for page in store.pages.pending(db, replace(job, asset="pages"), 9)] == [1, 2]
    assert len(store.documents.pending(db, job, 9)) == 1
    assert store.batches.unfinished(db, "page", {"documents": "spec"}) == [key]
