import os
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from upath import UPath

import store.documents
import store.page_batches
from core.errors import InputError
from orchestration.ingest import find_files, receive, register_partitions
from resources.images import ImageStore
from resources.pdf import PdfLimits
from tests.hostile import small_paper


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
