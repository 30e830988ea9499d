import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from orchestration.definitions import defs, resources_of
from orchestration.requests import chunks, range_tags, requests_for
from orchestration.settings import from_environment, prepare_dagster_home

ASSETS = {
    "documents",
    "pages",
    "panels",
    "panel_features",
    "tiles",
    "encoders",
    "tile_embeddings",
    "next_tile_embeddings",
    "candidate_pairs",
    "verified_pairs",
    "duplicate_reports",
    "chunk_embeddings",
    "chunks",
    "next_chunk_embeddings",
    "ocr_pages",
    "search_index",
    "searchable_pdfs",
    "text_encoders",
    "gallery_items",
    "learned_templates",
    "gallery_templates",
    "template_embeddings",
    "confusion_pairs",
    "scans",
    "detections",
    "candidates",
    "identifications",
    "gallery_quality",
}

BY_DAY = {"gallery_quality"}
"""What is measured from day to day; everything else is made of batches."""


def test_every_asset_has_a_group_an_owner_a_description_a_budget_and_a_check() -> None:
    graph = defs().resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == ASSETS
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.group_name in {"ingest", "copy_search", "encoders", "text", "gallery"}
        assert node.owners == ["team:quire"]
        assert len(node.description or "") > 80
        assert node.kinds
        by_day = key.to_user_string() in BY_DAY
        kind = dg.DailyPartitionsDefinition if by_day else dg.DynamicPartitionsDefinition
        assert isinstance(node.partitions_def, kind)
        assert node.backfill_policy is not None
        assert "complete" in {check.name for check in graph.get_check_keys_for_assets({key})}


def test_loading_definitions_imports_no_heavy_module_and_needs_no_database(
    tmp_path: Path,
) -> None:
    script = """
import sys
import orchestration.definitions as d
d.defs().resolve_job_def("copy_search")
heavy = {"torch", "open_clip", "pymupdf", "onnxruntime"} & set(sys.modules)
assert not heavy, heavy
"""
    home = tmp_path / "home"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "QUIRE_HOME": str(home)},
        check=True,
    )
    assert not home.exists()


def test_a_password_in_the_database_url_is_in_no_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUIRE_DATABASE_URL", "postgresql://quire:hunter2-planted@db/quire")
    job = defs().resolve_job_def("copy_search")
    assert "hunter2-planted" not in str(job.get_job_snapshot())


def test_the_key_of_a_service_is_in_no_snapshot_and_in_no_representation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUIRE_TEXT_API_KEY", "sk-planted")
    settings = from_environment()
    assert settings.text_api_key == "sk-planted"
    resources = resources_of(settings)
    job = defs().resolve_job_def("read_documents")
    assert "sk-planted" not in f"{job.get_job_snapshot()}{settings}{resources}"


def test_what_arrives_is_searched_and_read_in_one_run_and_by_night_alike() -> None:
    loaded = defs()

    def made_by(job: str) -> set[str]:
        return {node.name for node in loaded.resolve_job_def(job).graph.nodes}

    copies, texts = made_by("copy_search"), made_by("read_documents")
    assert made_by("take_in") == copies | texts
    assert copies & texts == {"documents", "pages"}
    assert {"ocr_pages", "chunks", "chunk_embeddings", "search_index"} <= texts
    assert "searchable_pdfs" not in texts
    launched = {loaded.resolve_sensor_def("inbox").job_name} | {
        loaded.resolve_schedule_def("nightly").job_name
    }
    assert launched == {"take_in"}


def test_the_gallery_is_built_photographs_identified_and_days_measured_by_a_job_each() -> None:
    loaded = defs()

    def made_by(job: str) -> set[str]:
        return {node.name for node in loaded.resolve_job_def(job).graph.nodes}

    jobs = [made_by(job) for job in ("build_gallery", "identify_scans", "measure_gallery")]
    graph = loaded.resolve_asset_graph()
    gallery = {
        key.to_user_string()
        for key in graph.get_all_asset_keys()
        if graph.get(key).group_name == "gallery"
    }
    assert set.union(*jobs) == gallery
    assert sum(map(len, jobs)) == len(gallery)
    assert jobs[2] == BY_DAY
    for name, job in (("photographs", "identify_scans"), ("corrections", "build_gallery")):
        assert loaded.resolve_sensor_def(name).job_name == job
    for name, job in (
        ("gallery_nightly", "build_gallery"),
        ("scans_nightly", "identify_scans"),
        ("gallery_daily", "measure_gallery"),
    ):
        assert loaded.resolve_schedule_def(name).job_name == job


def test_a_run_covers_at_most_so_many_batches_and_only_neighbours() -> None:
    assert chunks([["a", "b", "c"], ["x"]], most=2) == [["a", "b"], ["c"], ["x"]]
    (request,) = requests_for([["a", "b"]], name="nightly")
    assert request.run_key == "nightly-a-b"
    assert range_tags(["a", "b"]).items() <= request.tags.items()


def test_a_setting_that_cannot_be_read_names_its_variable() -> None:
    with pytest.raises(ValueError, match="QUIRE_MEMORY_MB is a whole number, not 'lots'"):
        from_environment({"QUIRE_MEMORY_MB": "lots", "HOME": "/tmp"})


@pytest.mark.parametrize(
    ("name", "three"),
    [
        ("QUIRE_TEXT_ENCODER", "minilm hf:some/model@384 sentence-transformers:/models/e5"),
        ("QUIRE_IMAGE_ENCODER", "quire open_clip:/models/a open_clip:/models/b"),
    ],
)
def test_more_than_two_encoders_are_refused_before_anything_is_done(name: str, three: str) -> None:
    with pytest.raises(ValueError, match=f"{name} names 3 encoders: it takes one, or with a blank"):
        from_environment({name: three, "HOME": "/tmp"})
    first, second, _ = three.split()
    settings = from_environment({name: f"{first} {second} {first}", "HOME": "/tmp"})
    assert f"{first} {second} {first}" in (settings.text_encoder, settings.image_encoder)


def test_what_dagster_is_told_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that start at the same time the second one would read the half."""
    for name in (
        "DAGSTER_HOME",
        "QUIRE_DAGSTER_STORAGE_URL",
        "QUIRE_HOME",
        "QUIRE_MEMORY_MB",
        "QUIRE_BESIDE",
    ):
        monkeypatch.setenv(name, "")
    settings = from_environment({"QUIRE_HOME": str(tmp_path)})
    file = settings.dagster_home / "dagster.yaml"
    with monkeypatch.context() as patched:
        patched.setattr("orchestration.settings._DAGSTER_YAML", "storage: \ud800")
        with pytest.raises(UnicodeEncodeError):
            prepare_dagster_home(settings, "postgresql+psycopg2:///x")
    assert list(settings.dagster_home.iterdir()) == []
    prepare_dagster_home(settings, "postgresql+psycopg2:///x")
    assert file.read_text().endswith("success: -1\n")


def test_the_data_of_a_home_stay_below_it(tmp_path: Path) -> None:
    settings = from_environment({"QUIRE_HOME": str(tmp_path)})
    assert settings.data_dir.is_relative_to(tmp_path)
    assert settings.dagster_home.is_relative_to(tmp_path)
    assert settings.store_url.startswith(tmp_path.as_uri())


def test_an_encoder_comes_along_unless_none_is_wanted() -> None:
    for text, encoder in (
        ("", "quire"),
        ("none", ""),
        ("open_clip:/models/x", "open_clip:/models/x"),
    ):
        known = {"QUIRE_IMAGE_ENCODER": text, "QUIRE_HOME": "/tmp/x"}
        assert from_environment(known).image_encoder == encoder


@pytest.mark.parametrize("url", ["s3://AKIA:s3cret@bucket/x", "az://container/x?sig=s3cret"])
def test_a_store_address_with_a_secret_in_it_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="QUIRE_STORE_URL: leave user and password out") as refusal:
        from_environment({"QUIRE_STORE_URL": url, "QUIRE_HOME": "/tmp/x"})
    assert "s3cret" not in str(refusal.value)
