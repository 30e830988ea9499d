import json

import psycopg

from resources.encoder import Encoder
from tests.assets.conftest import Pipeline, Roomy, metadata
from tests.hostile import small_paper
from tests.resources.tiny_encoders import DIM, tiny_encoder

ROOM_MB = 1000
"""What ``tile_embeddings`` plans for a model, on top of what is in this process."""


def test_both_channels_run_and_the_report_says_with_which_encoder(
    pipeline: Pipeline, db: psycopg.Connection
) -> None:
    folder = tiny_encoder(pipeline.folder / "tiny")
    pipeline.encoder = Encoder(spec=f"open_clip:{folder}", cores=1)
    pipeline.memory = Roomy(room_mb=ROOM_MB)
    small_paper(pipeline.folder / "paper.pdf", seed=12)
    (received,) = pipeline.receive(pipeline.folder / "paper.pdf")
    (result,) = pipeline.run()
    assert result.success
    encoder_id = pipeline.encoder.describe().encoder_id
    (numbers,) = metadata(result, "tile_embeddings")
    assert numbers["encoder"] == encoder_id
    assert numbers["made"] > 0
    dims = db.execute("SELECT encoder_id, dim FROM encoders").fetchall()
    assert dims == [(encoder_id, DIM)]
    channels = {
        channel for (channel,) in db.execute("SELECT DISTINCT channel FROM candidate_pairs")
    }
    assert f"encoder:{encoder_id}" in channels
    report = json.loads(pipeline.report(received, "pairs.json"))["report"]
    ran = {channel["kind"]: channel for channel in report["channels"]}
    assert ran["encoder"]["ran"]
    assert ran["encoder"]["detail"] == encoder_id
    assert ran["local"]["ran"]
    assert report["coverage"]["tiles"] > 0


def test_two_encoders_are_stored_side_by_side_and_never_in_one_table(
    pipeline: Pipeline, db: psycopg.Connection
) -> None:
    pipeline.memory = Roomy(room_mb=ROOM_MB)
    small_paper(pipeline.folder / "paper.pdf", seed=13)
    pipeline.receive(pipeline.folder / "paper.pdf")
    for seed in (1, 2):
        folder = tiny_encoder(pipeline.folder / f"tiny-{seed}", seed)
        pipeline.encoder = Encoder(spec=f"open_clip:{folder}", cores=1)
        pipeline.run()
    tables = db.execute("SELECT table_name FROM encoders ORDER BY encoder_id").fetchall()
    assert len(tables) == 2
    assert len(set(tables)) == 2


def test_without_an_encoder_the_channel_is_left_out_and_said_to_be(pipeline: Pipeline) -> None:
    small_paper(pipeline.folder / "paper.pdf", seed=14)
    (received,) = pipeline.receive(pipeline.folder / "paper.pdf")
    (result,) = pipeline.run()
    (numbers,) = metadata(result, "tile_embeddings")
    assert "no image encoder is configured" in numbers["answer"]
    report = json.loads(pipeline.report(received, "pairs.json"))["report"]
    assert {channel["kind"]: channel["ran"] for channel in report["channels"]}["encoder"] is False


def test_an_encoder_that_is_not_there_fails_the_run_instead_of_being_replaced(
    pipeline: Pipeline,
) -> None:
    pipeline.encoder = Encoder(spec="open_clip:/nowhere/at-all", cores=1)
    small_paper(pipeline.folder / "paper.pdf", seed=15)
    pipeline.receive(pipeline.folder / "paper.pdf")
    (result,) = pipeline.run()
    assert not result.success
    assert metadata(result, "candidate_pairs") == []
