import csv
import io
import json
from typing import Any

import psycopg
import pytest

import store.candidate_pairs
import store.page_batches
import store.panel_features
import store.panels
from resources.images import ImageStore
from tests.assets.conftest import ORDER, Pipeline, metadata
from tests.hostile import HOSTILE, small_paper

MAKERS = {name: (maker, expectation) for name, maker, expectation in HOSTILE}


def rows(tsv: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(tsv.decode()), dialect="excel-tab"))


def pairs(tsv: bytes) -> list[dict[str, str]]:
    return [row for row in rows(tsv) if row["Record"] == "pair"]


def test_planted_copies_are_found_and_reported(pipeline: Pipeline) -> None:
    small_paper(pipeline.folder / "paper.pdf", seed=1)
    (received,) = pipeline.receive(pipeline.folder / "paper.pdf")
    (result,) = pipeline.run()
    assert result.success
    table = rows(pipeline.report(received))
    found = [row for row in table if row["Record"] == "pair"]
    assert len(found) == 2
    assert {row["Status"] for row in table} == {"ok"}
    assert all(float(row["Probability"]) > 0.9 for row in found)
    report = json.loads(pipeline.report(received, "pairs.json"))
    assert len(report["pairs"]) == 2
    assert b"report" in pipeline.report(received, "report.html")


def test_a_second_run_computes_nothing_and_says_what_is_there(pipeline: Pipeline) -> None:
    small_paper(pipeline.folder / "paper.pdf", seed=2)
    received = pipeline.receive(pipeline.folder / "paper.pdf")
    (first,) = pipeline.run()
    before = pipeline.report(received[0])
    (again,) = pipeline.run()
    for asset in ("documents", "pages", "panels", "panel_features", "candidate_pairs"):
        (numbers,) = metadata(again, asset)
        assert numbers["items"] == 0
        assert "already there" in numbers["answer"]
        assert first.run_id in numbers["answer"]
    assert pipeline.report(received[0]) == before


def test_recompute_does_it_anew_with_the_same_result(pipeline: Pipeline) -> None:
    small_paper(pipeline.folder / "paper.pdf", seed=2)
    (received,) = pipeline.receive(pipeline.folder / "paper.pdf")
    pipeline.run()
    before = pipeline.report(received, "pairs.json")
    (again,) = pipeline.run(recompute=True)
    assert metadata(again, "panels")[0]["items"] == 2
    assert pipeline.report(received, "pairs.json") == before


def test_the_same_file_under_another_name_is_the_same_document(pipeline: Pipeline) -> None:
    small_paper(pipeline.folder / "paper.pdf", seed=3)
    (pipeline.folder / "copy.pdf").write_bytes((pipeline.folder / "paper.pdf").read_bytes())
    first, second = pipeline.receive(pipeline.folder / "paper.pdf", pipeline.folder / "copy.pdf")
    assert first.new
    assert not second.new
    assert second.document is not None
    assert second.document.name == "paper.pdf"


def test_a_run_that_stopped_half_way_goes_on_to_the_same_bytes(
    pipeline: Pipeline, new_pipeline: Any, embedded_postgres: Any
) -> None:
    small_paper(pipeline.folder / "paper.pdf", seed=4)
    (received,) = pipeline.receive(pipeline.folder / "paper.pdf", pages_per_batch=1)
    for upto in range(1, len(ORDER)):
        pipeline.run(only=ORDER[:upto])
    results = pipeline.run()
    assert all(result.success for result in results)
    stepwise = pipeline.report(received, "pairs.json")
    pipeline.run(recompute=True)
    assert pipeline.report(received, "pairs.json") == stepwise


def test_a_copy_across_documents_is_found_from_the_later_one_and_told_in_both(
    pipeline: Pipeline,
) -> None:
    small_paper(pipeline.folder / "first.pdf", seed=5)
    (first,) = pipeline.receive(pipeline.folder / "first.pdf")
    pipeline.run()
    assert len(pairs(pipeline.report(first))) == 2
    # The same pictures in a file of its own: another document, whose panels are all copies.
    data = (pipeline.folder / "first.pdf").read_bytes()
    (pipeline.folder / "second.pdf").write_bytes(data + b"\n% another file\n")
    (second,) = pipeline.receive(pipeline.folder / "second.pdf")
    pipeline.run([second])
    across = [row for row in pairs(pipeline.report(second)) if "first.pdf" in str(row)]
    assert len(across) >= 4
    assert len(pairs(pipeline.report(first))) > 2


@pytest.mark.parametrize("name", ["encrypted_for_readers", "truncated_early", "html", "zero_bytes"])
def test_a_file_at_fault_ends_in_a_report_that_says_so_and_harms_no_other(
    pipeline: Pipeline, name: str
) -> None:
    maker, expectation = MAKERS[name]
    assert expectation == "failed"
    small_paper(pipeline.folder / "good.pdf", seed=6)
    bad, good = pipeline.receive(maker(pipeline.folder), pipeline.folder / "good.pdf")
    assert bad.reason
    (result,) = pipeline.run()
    assert not result.success  # the blocking check of the reports fails
    table = rows(pipeline.report(bad))
    assert {row["Status"] for row in table} == {"failed"}
    assert any(row["Reasons"] for row in table)
    assert len(pairs(pipeline.report(good))) == 2
    assert {row["Status"] for row in rows(pipeline.report(good))} == {"ok"}


def test_a_damaged_page_is_named_and_the_rest_is_looked_at(
    pipeline: Pipeline, db: psycopg.Connection
) -> None:
    small_paper(pipeline.folder / "paper.pdf", seed=7)
    (received,) = pipeline.receive(pipeline.folder / "paper.pdf")
    assert received.document is not None
    # The file is replaced behind Quire's back by one that ends after the first page.
    pipeline.run(only=["documents", "pages"])
    db.execute(
        """
        UPDATE work SET status = 'failed', reason = 'page 2 cannot be read', made = 0
        WHERE asset = 'pages' AND unit LIKE '%:2'
        """
    )
    db.execute("DELETE FROM pages WHERE page = 2")
    db.execute(
        """
        INSERT INTO work (asset, unit, spec, batch_key, status, reason, made, run_id)
        SELECT 'pages', document_id || ':2', min(p.spec), min(p.batch_key), 'failed',
               'page 2 cannot be read', 0, 'test'
        FROM pages AS p GROUP BY document_id
        """
    )
    pipeline.run(only=ORDER[2:])
    table = rows(pipeline.report(received))
    assert {row["Status"] for row in table} == {"degraded"}
    assert any("page 2 cannot be read" in row["Reasons"] for row in table)


def test_every_materialization_states_its_budget_prediction_and_peak(pipeline: Pipeline) -> None:
    small_paper(pipeline.folder / "paper.pdf", seed=9)
    pipeline.receive(pipeline.folder / "paper.pdf")
    (result,) = pipeline.run()
    for asset in ("documents", "pages", "panels", "panel_features", "verified_pairs"):
        (numbers,) = metadata(result, asset)
        assert 0 < numbers["peak_mb"] <= numbers["budget_mb"]
        assert numbers["predicted_peak_mb"] > 0
        assert numbers["batch"] >= 1


def test_verification_is_planned_with_the_panels_that_its_pairs_are_made_of(
    pipeline: Pipeline,
) -> None:
    small_paper(pipeline.folder / "paper.pdf", seed=12)
    (received,) = pipeline.receive(pipeline.folder / "paper.pdf")
    pipeline.run(only=ORDER[: ORDER.index("verified_pairs")])
    assert received.document is not None
    with pipeline.postgres.connect() as db:
        keys = store.page_batches.keys(db)
        panels = store.panels.of_documents(db, [received.document.document_id])
        described = "SELECT DISTINCT c.spec, f.spec FROM candidate_pairs c, panel_features f"
        ((candidates, features),) = db.execute(described).fetchall()
        packed = store.panel_features.get(db, features, [panel.panel_id for panel in panels])
        planned = store.candidate_pairs.panel_bytes(db, keys, candidates, features)
        nothing = store.candidate_pairs.panel_bytes(db, [], candidates, features)
    pixels = sum(pipeline.images.read_image(panel.image_key).nbytes for panel in panels)
    assert planned == pixels + sum(map(len, packed.values())) > pixels > 0
    assert nothing == 0


def test_the_store_holds_no_key_made_from_a_file_name(pipeline: Pipeline) -> None:
    odd = pipeline.folder / "..=cmd|' name\n.pdf"
    small_paper(odd, seed=10)
    pipeline.receive(odd)
    pipeline.run(only=ORDER[:3])
    assert not any("cmd" in str(path) for path in (pipeline.folder / "store").rglob("*"))
    with pytest.raises(ValueError, match="not a key"):
        ImageStore(url="file:///tmp").read_bytes("../etc/passwd")


def test_an_empty_result_without_verification_is_not_called_ok(pipeline: Pipeline) -> None:
    small_paper(pipeline.folder / "paper.pdf", seed=11)
    (received,) = pipeline.receive(pipeline.folder / "paper.pdf")
    pipeline.run(only=[name for name in ORDER if name != "verified_pairs"])
    table = rows(pipeline.report(received))
    assert {row["Status"] for row in table} == {"degraded"}
    pipeline.run()
    assert {row["Status"] for row in rows(pipeline.report(received))} == {"ok"}


def test_panels_without_features_are_not_called_compared_and_are_searched_once_they_have_them(
    pipeline: Pipeline,
) -> None:
    small_paper(pipeline.folder / "paper.pdf", seed=16)
    (received,) = pipeline.receive(pipeline.folder / "paper.pdf")
    pipeline.run(only=[name for name in ORDER if name != "panel_features"])
    table = rows(pipeline.report(received))
    assert {row["Status"] for row in table} == {"degraded"}
    (result,) = pipeline.run()
    assert result.success
    assert len(pairs(pipeline.report(received))) == 2
