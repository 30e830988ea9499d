from typing import Any

import dagster as dg
import psycopg
import pytest

import store.corrections
import store.detections
import store.gallery_items
import store.gallery_quality
import store.scans
from assets.gallery_quality import PRECISION, gallery_quality
from core.gallery import GalleryItem
from resources.postgres import Postgres
from store.corrections import NewCorrection
from store.detections import StoredDetection, StoredIdentification
from store.scans import Scan
from tests.assets.conftest import Roomy, metadata

SCAN = Scan("ab" * 32, "shot.jpg", 10, "scans/ab/shot.jpg")
QUAD = [0.0, 0.0, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0]


def measured(postgres: Postgres, day: str) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [gallery_quality],
        partition_key=day,
        resources={"postgres": postgres, "memory": Roomy()},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def named(db: psycopg.Connection, right: int, wrong: int) -> None:
    """So many cards that were accepted, and that a person says are right or wrong."""
    store.gallery_items.add(db, "g-1", [GalleryItem("lotus"), GalleryItem("island")], [])
    store.scans.add(db, SCAN)
    store.scans.keep_picture(db, SCAN.scan_id, "s", "key", (90, 60), 1.0)
    found = [
        StoredDetection(f"{n:032x}", n, QUAD, 0.9, "seen", "crops/d.jpg", f"{n:064x}")
        for n in range(right + wrong)
    ]
    store.detections.replace(db, SCAN.scan_id, "s", found)
    for number, each in enumerate(found):
        candidates = [{"item_id": "lotus"}]
        identified = StoredIdentification("accept", 0.95, "lotus", False, candidates, [], {})
        store.detections.keep_identification(db, each.detection_id, "s", identified)
        store.corrections.add(
            db,
            NewCorrection(
                "is", each.detection_id, SCAN.scan_id, "lotus" if number < right else "island",
                None, "ann", False, "", "lotus", "accept", 0.95, each.crop_key, each.crop_sha256,
            ),
        )  # fmt: skip


def as_of(db: psycopg.Connection, day: str) -> None:
    """Have everything happen on a day that is over; as the owner of the tables."""
    db.execute("ALTER TABLE corrections DISABLE TRIGGER USER")
    db.execute("UPDATE corrections SET made_at = %(day)s::date + interval '9 h'", {"day": day})
    db.execute("ALTER TABLE corrections ENABLE TRIGGER USER")
    db.execute("UPDATE identifications SET made_at = %(day)s::date + interval '8 h'", {"day": day})


def precision(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (check,) = [
        each for each in result.get_asset_check_evaluations() if each.check_name == PRECISION
    ]
    return check


def test_a_day_on_which_nothing_happened_has_counts_and_no_shares(
    postgres: Postgres, db: psycopg.Connection
) -> None:
    result = measured(postgres, "2026-01-01")
    (told,) = metadata(result, "gallery_quality")
    assert (told["identified"], told["items"]) == (0, 0)
    assert not {"coverage", "calibration_error", "correction_rate"} & told.keys()
    assert precision(result).passed
    assert [day for day, _ in store.gallery_quality.latest(db, 9)] == ["2026-01-01"]


@pytest.mark.parametrize(
    ("right", "wrong", "passed"), [(20, 0, True), (19, 1, False), (18, 1, True), (99, 1, True)]
)
def test_the_check_fails_where_enough_people_say_that_accepted_cards_are_wrong(
    postgres: Postgres, db: psycopg.Connection, right: int, wrong: int, passed: bool
) -> None:
    named(db, right, wrong)
    as_of(db, "2026-01-02")
    result = measured(postgres, "2026-01-02")
    check = precision(result)
    assert check.passed == passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    (told,) = metadata(result, "gallery_quality")
    told_of: dict[str, Any] = told
    assert told_of["coverage"] == 1
    assert told_of["correction_rate"] == pytest.approx(wrong / (right + wrong))
    assert told_of["calibration_error"] == pytest.approx(abs(0.95 - right / (right + wrong)))
    assert told_of["items_without_template"] == 2
