"""Two encoders side by side: one serves, the other is prepared, and they change places."""

import io
import json
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

import store.encoders
from core.encoders import EncoderError
from core.errors import InputError
from orchestration import encoders as commands
from orchestration.settings import Settings
from resources.encoder import Encoder
from tests.assets.conftest import Pipeline, Roomy, metadata
from tests.hostile import small_paper
from tests.resources.tiny_encoders import tiny_encoder

NEXT = ["encoders", "next_tile_embeddings"]


@pytest.fixture
def two(pipeline: Pipeline) -> Pipeline:
    """A paper that was searched with the first of two encoders."""
    folders = [tiny_encoder(pipeline.folder / f"tiny-{seed}", seed) for seed in (1, 2)]
    pipeline.encoder = Encoder(
        spec=" ".join(f"open_clip:{folder}" for folder in folders), store_url=pipeline.images.url
    )
    pipeline.memory = Roomy(room_mb=600)
    small_paper(pipeline.folder / "paper.pdf", seed=33)
    pipeline.receive(pipeline.folder / "paper.pdf")
    (result,) = pipeline.run()
    assert result.success
    return pipeline


def settings_of(pipeline: Pipeline) -> Settings:
    return Settings(
        home=pipeline.folder,
        database_url=pipeline.postgres.url(),
        store_url=pipeline.images.url,
        image_encoder=pipeline.encoder.spec,
    )


def ids(pipeline: Pipeline) -> list[str]:
    return [one.describe().encoder_id for one in pipeline.encoder.each()]


def channels(db: psycopg.Connection) -> set[str]:
    rows = db.execute("SELECT DISTINCT channel FROM candidate_pairs WHERE channel LIKE 'encoder%'")
    return {channel for (channel,) in rows}


def said(pipeline: Pipeline, command: str, **options: bool) -> str:
    out = io.StringIO()
    getattr(commands, command)(settings_of(pipeline), Console(file=out, width=200), **options)
    return out.getvalue()


@pytest.fixture(autouse=True)
def _address(monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline) -> None:
    monkeypatch.setenv("QUIRE_DATABASE_URL", pipeline.postgres.url())


def test_the_next_encoder_is_prepared_while_the_first_serves(
    two: Pipeline, db: psycopg.Connection
) -> None:
    first, second = ids(two)
    assert "serves" in said(two, "show")
    before = db.execute("SELECT * FROM candidate_pairs ORDER BY panel_a, panel_b").fetchall()
    with pytest.raises(InputError, match="quire encoders prepare"):
        said(two, "switch", force=False)
    (prepared,) = two.run(only=NEXT)
    (numbers,) = metadata(prepared, "next_tile_embeddings")
    assert prepared.success
    assert numbers["encoder"] == second
    assert numbers["made"] > 0
    after = db.execute("SELECT * FROM candidate_pairs ORDER BY panel_a, panel_b").fetchall()
    assert before == after
    assert channels(db) == {f"encoder:{first}"}
    assert "waits, complete" in said(two, "show")


def test_they_change_places_at_once_and_back_and_nothing_is_embedded_again(
    two: Pipeline, db: psycopg.Connection
) -> None:
    first, second = ids(two)
    two.run(only=NEXT)
    report = two.folder / "first.tsv"
    (received,) = two.receive(two.folder / "paper.pdf")
    report.write_bytes(two.report(received))
    for expected in (second, first):
        said(two, "switch", force=False)
        assert store.encoders.switched_to(db) == expected
        (again,) = two.run()
        assert again.success
        (numbers,) = metadata(again, "tile_embeddings")
        assert (numbers["encoder"], numbers["items"]) == (expected, 0)
        (other,) = two.run(only=NEXT)
        assert metadata(other, "next_tile_embeddings")[0]["items"] == 0
        channel = json.loads(two.report(received, "pairs.json"))["report"]["channels"]
        assert [one["detail"] for one in channel if one["kind"] == "encoder"] == [expected]
        assert channels(db) == {f"encoder:{expected}"}
    assert two.report(received) == report.read_bytes()


def test_a_report_says_what_has_not_been_searched_after_a_switch(
    two: Pipeline, db: psycopg.Connection, tmp_path: Path
) -> None:
    from assets.duplicate_reports import export
    from resources.settings import CopySearch

    two.run(only=NEXT)
    said(two, "switch", force=False)
    (received,) = two.receive(two.folder / "paper.pdf")
    assert received.document is not None
    exported = export(
        db,
        two.images,
        CopySearch(threads=1),
        two.encoder,
        [received.document.document_id],
        tmp_path / "out",
    )
    assert exported.status != "ok"


def test_the_shadow_recall_is_of_both_over_known_copies(two: Pipeline) -> None:
    with pytest.raises(InputError, match="nothing has been embedded yet"):
        said(two, "compare")
    two.run(only=NEXT)
    words = said(two, "compare")
    assert all(encoder_id in words for encoder_id in ids(two))
    assert "known copies among the 10 nearest panels" in words


def test_one_encoder_has_nothing_to_change_places_with(two: Pipeline) -> None:
    two.encoder = two.encoder.each()[0]
    for command, options in (("compare", {}), ("switch", {"force": True})):
        with pytest.raises(InputError, match="no second image encoder"):
            said(two, command, **options)


def test_three_encoders_are_one_too_many(two: Pipeline, db: psycopg.Connection) -> None:
    third = tiny_encoder(two.folder / "tiny-3", 3)
    two.encoder = Encoder(spec=f"{two.encoder.spec} open_clip:{third}", store_url=two.images.url)
    with pytest.raises(EncoderError, match="3 encoders are configured"):
        said(two, "show")
