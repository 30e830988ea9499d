from dataclasses import replace
from typing import Any

import dagster as dg
import psycopg
import pytest

import assets.search_index
import store.search
from assets.search_index import INDEX, search_index
from orchestration.ingest import register_partitions
from resources.postgres import Postgres
from tests.assets.conftest import Roomy, metadata
from tests.passages import Said, WordEncoder, keep


def test_the_index_comes_with_many_passages_is_measured_and_goes_with_few(
    db: psycopg.Connection, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets.search_index, "INDEX", replace(INDEX, index_rows=100, drop_rows=60))
    encoder = WordEncoder()

    def pages(first: int, last: int) -> list[Said]:
        words = ["cat", "dog", "river", "stone", "paper", "glass", "metal"]
        return [
            Said("a.pdf", n, f"{words[n % 7]} {words[n // 7 % 7]} and {n * 7919}")
            for n in range(first, last)
        ]

    keep(db, pages(1, 80), encoder)
    with dg.DagsterInstance.ephemeral() as instance:
        register_partitions(db, instance)

        def run() -> tuple[dict[str, Any], bool, bool]:
            result = dg.materialize(
                [search_index],
                instance=instance,
                partition_key="batch-1",
                resources={"postgres": postgres, "memory": Roomy()},
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
            (made,) = metadata(result, "search_index")
            checks = {e.check_name: e for e in result.get_asset_check_evaluations()}
            recall = checks["index_recall"]
            indexed = store.search.state(db, encoder.spec.encoder_id).indexed
            return made | {"recall": recall.metadata["recall"].value}, recall.passed, indexed

        few, passed, indexed = run()
        assert (few["items"], few["recall"], passed, indexed) == (0, 1.0, True, False)
        keep(db, pages(80, 130), encoder)
        many, passed, indexed = run()
        assert (many["items"], many["vectors"], many["indexes"]) == (1, 129, 1)
        assert float(str(many["recall"])) >= 0.95
        assert (passed, indexed) == (True, True)
        again, *_ = run()
        assert again["items"] == 0
        db.execute("UPDATE search_indexes SET recall = 0.5")
        assert run()[1] is False  # the check fails, and the run goes on
        db.execute("DELETE FROM chunks WHERE page > 30")
        gone, passed, indexed = run()
        assert (gone["items"], passed, indexed) == (1, True, False)
