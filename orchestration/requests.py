"""Requests: how a set of page batches becomes runs."""

from collections.abc import Iterable, Sequence

import dagster as dg

BATCHES_PER_RUN = 25
"""As many as one run of a backfill takes; see ``assets.partitions.per_batches``."""

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def range_tags(keys: Sequence[str]) -> dict[str, str]:
    """Tags of a run over consecutive partitions; they travel as the first and the last."""
    return {RANGE_START: keys[0], RANGE_END: keys[-1]}


def chunks(neighbours: Iterable[Sequence[str]], most: int = BATCHES_PER_RUN) -> list[list[str]]:
    """Runs of consecutive partitions, none longer than ``most``."""
    return [
        list(run[start : start + most]) for run in neighbours for start in range(0, len(run), most)
    ]


def requests_for(neighbours: Iterable[Sequence[str]], name: str) -> list[dg.RunRequest]:
    """One request per chunk; the same partitions under the same name are requested once."""
    return [
        dg.RunRequest(run_key=f"{name}-{keys[0]}-{keys[-1]}", tags=range_tags(keys))
        for keys in chunks(neighbours)
    ]
