"""Encoders within the pipeline: conversion once, on stored panels, and import without torch."""

import json
import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest

import assets.encoders
from core.runtimes import MANIFEST
from resources.encoder import Encoder
from tests.assets.conftest import Pipeline, Roomy, metadata
from tests.hostile import small_paper
from tests.resources.tiny_encoders import tiny_encoder

UP_TO_ENCODERS = ["documents", "pages", "panels", "encoders"]


def with_paper(pipeline: Pipeline, spec: str) -> None:
    pipeline.memory = Roomy(room_mb=1500)
    pipeline.encoder = Encoder(spec=spec, store_url=pipeline.images.url)
    small_paper(pipeline.folder / "paper.pdf", seed=12)
    pipeline.receive(pipeline.folder / "paper.pdf")


def stored(pipeline: Pipeline) -> dict[Path, bytes]:
    root = pipeline.folder / "store" / "encoders"
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.*")}


def rows(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    return [record.data for record in numbers["runtimes"].records]


def test_a_folder_that_runs_is_taken_over_once_and_checked(pipeline: Pipeline) -> None:
    folder = tiny_encoder(pipeline.folder / "tiny")
    with_paper(pipeline, f"open_clip:{folder}")
    (first,) = pipeline.run(only=UP_TO_ENCODERS)
    (second,) = pipeline.run(only=UP_TO_ENCODERS)
    assert first.success
    (made,), (again,) = metadata(first, "encoders"), metadata(second, "encoders")
    assert (made["items"], again["items"]) == (1, 0)
    (row,) = rows(again)
    assert row["used"]
    assert row["passed"]
    names = {path.name for path in stored(pipeline)}
    assert names == {MANIFEST, "visual.onnx-f32.onnx"}

    shutil.rmtree(pipeline.folder / "store" / "encoders")
    (third,) = pipeline.run(only=UP_TO_ENCODERS)
    assert metadata(third, "encoders")[0]["items"] == 1
    assert {path.name for path in stored(pipeline)} == names


def test_a_folder_whose_files_are_not_what_was_measured_fails_the_run(pipeline: Pipeline) -> None:
    folder = tiny_encoder(pipeline.folder / "tiny")
    (folder / "visual.onnx-f32.onnx").write_bytes(b"another graph")
    with_paper(pipeline, f"open_clip:{folder}")
    (result,) = pipeline.run(only=UP_TO_ENCODERS)
    assert not result.success
    assert metadata(result, "encoders") == []
    assert stored(pipeline) == {}


def test_a_budget_that_no_runtime_fits_is_told_where_it_is_embedded(pipeline: Pipeline) -> None:
    with_paper(pipeline, f"open_clip:{tiny_encoder(pipeline.folder / 'tiny')}")
    pipeline.encoder = Encoder(
        spec=pipeline.encoder.spec, store_url=pipeline.images.url, budget_mb=100
    )
    (result,) = pipeline.run(only=[*UP_TO_ENCODERS, "tiles", "tile_embeddings"])
    assert not result.success
    assert metadata(result, "tile_embeddings") == []
    (row,) = rows(metadata(result, "encoders")[0])
    assert not row["used"]


def test_a_checkpoint_is_converted_once_and_found_by_every_op(
    pipeline: Pipeline, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from tests.resources.test_visual_tower import VIT, write_model

    folder = write_model(pipeline.folder / "tiny", VIT)
    with_paper(pipeline, f"open_clip:{folder}")
    (result,) = pipeline.run()
    assert result.success
    described = pipeline.encoder.describe()
    assert described.runtime == "onnx-f32"
    (embedded,) = metadata(result, "tile_embeddings")
    assert embedded["encoder"] == described.encoder_id
    table = rows(metadata(result, "encoders")[0])
    assert [row["passed"] for row in table] == [True, False, False]
    assert "needs 200 real images, had" in table[1]["why not"]

    before = stored(pipeline)
    db.execute("DELETE FROM work WHERE asset = 'encoders'")
    (again,) = pipeline.run()
    assert stored(pipeline) == before
    assert metadata(again, "encoders")[0]["items"] == 1
    (manifest,) = [json.loads(data) for path, data in before.items() if path.name == MANIFEST]
    assert manifest["images"] > 0


def test_without_torch_a_checkpoint_is_an_error_with_what_to_install(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from tests.resources.test_visual_tower import VIT, write_model

    shadow = pipeline.folder / "without"
    (shadow / "torch").mkdir(parents=True)
    (shadow / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(shadow))
    with_paper(pipeline, f"open_clip:{write_model(pipeline.folder / 'tiny', VIT)}")
    (result,) = pipeline.run(only=UP_TO_ENCODERS)
    assert not result.success
    failures = [e.step_failure_data.error for e in result.all_events if e.is_step_failure]
    assert "quire[conversion]" in str(failures)


def test_a_checkpoint_that_does_not_fit_is_tried_once_and_again_with_more(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from tests.resources.test_visual_tower import VIT, write_model

    tried: list[str] = []

    def without_room(*args: Any, **options: Any) -> None:
        tried.append("")
        if len(tried) > 10:
            raise RuntimeError("it is tried again and again")
        raise MemoryError("the process that converts was ended from outside")

    monkeypatch.setattr(assets.encoders, "convert_in_child", without_room)
    folder = write_model(pipeline.folder / "checkpoint", VIT)
    with_paper(pipeline, f"open_clip:{folder}")
    (result,) = pipeline.run(only=UP_TO_ENCODERS)
    (numbers,) = metadata(result, "encoders")
    assert (numbers["failed"], len(tried)) == (1, 1)
    assert "would do" in str(numbers["reasons"])
    pipeline.memory = Roomy(room_mb=3000)
    pipeline.run(only=UP_TO_ENCODERS)
    assert len(tried) == 2
