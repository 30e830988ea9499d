"""The vocabulary of bounded, resumable work: jobs, units, outcomes, plans."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How a unit of work ended; each is an answer, and none reads like another."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """What one op was asked to do.

    Attributes:
        asset: Name of the asset that is made.
        spec: Id of everything that decides the result besides the input (see ``spec_id``).
        batch_keys: The partitions to work through.
        budget_mb: Memory granted to the op's process tree.
        run_id: The run that asks, for provenance.
    """

    asset: str
    spec: str
    batch_keys: tuple[str, ...]
    budget_mb: int
    run_id: str


@dataclass(frozen=True)
class Outcome:
    """How one unit ended.

    Attributes:
        unit: Key of the unit within its asset, such as ``<document>:<page>`` or a panel id.
        batch_key: The partition the unit belongs to.
        status: Ok, degraded (made, but with a stated loss), or failed (nothing made).
        made: How many rows it made.
        reason: One sentence for the user; empty when ok.
        budget_mb: The budget that was too small, where memory was the reason; else None.
    """

    unit: str
    batch_key: str
    status: Status = Status.OK
    made: int = 0
    reason: str = ""
    budget_mb: int | None = None


@dataclass(frozen=True)
class Plan:
    """How many units fit at a time, decided before the work starts."""

    batch: int
    predicted_peak_mb: float


def plan_batch(
    item_mb: Sequence[float], *, budget_mb: float, base_mb: float, most: int, parallel: int = 1
) -> Plan:
    """The largest batch whose predicted peak stays inside the budget; at least one item.

    Args:
        item_mb: Memory that each pending item needs while it is worked on, in order.
        budget_mb: What the op's process tree may hold.
        base_mb: What it holds before the first item.
        most: Upper bound of the batch.
        parallel: Items worked on at the same time; only those hold memory together.

    Returns:
        The plan. Its prediction exceeds the budget only where a single item does.
    """
    held: list[float] = []
    for mb in item_mb[:most]:
        widest = sum(sorted([*held, mb], reverse=True)[:parallel])
        if held and base_mb + widest > budget_mb:
            break
        held.append(mb)
    return Plan(max(1, len(held)), base_mb + sum(sorted(held, reverse=True)[:parallel]))


def spec_id(name: str, version: int, *parts: Any) -> str:
    """Name what decides a result: a readable name, a version of the code, a hash of the numbers.

    Args:
        name: Name of the step, such as ``panels``.
        version: Raised whenever the code changes what the same numbers give.
        *parts: Frozen dataclasses of numbers, and spec ids of what the step builds on.

    Returns:
        For example ``panels-1-0f3a9c21d4``; equal exactly when everything named is equal.
    """
    digest = hashlib.sha256("\x1f".join(repr(part) for part in parts).encode()).hexdigest()
    return f"{name}-{version}-{digest[:10]}"
