"""Budgets: the memory of every op and of every process beside them, as one table.

Limits of containers and pods, the figures of the docs and what a run grants its ops come from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

import assets
from orchestration.settings import Beside, Settings
from resources.container_limit import container_limit_mb


@dataclass(frozen=True)
class SetAside:
    """What the processes that are not ops hold, in MB, each as the most that was measured.

    ``benchmarks/containers.py`` prints them.
    """

    postgres: int = 60
    """The embedded server: 32 MB of shared buffers, and a dozen connections."""

    run: int = 135
    """The process that executes a run and starts its ops, and what captures their logs."""

    fork_server: int = 80
    """What ops are forked from: its own part of the pages that it shares with them."""

    webserver: int = 135
    daemon: int = 110
    code_server: int = 125

    intake: int = 60
    """The PDF parser that the inbox has the code server start, while a run is at work."""

    ui: int = 10
    """What keeps the three of them running."""

    system: int = 30
    """The kernel's tables for all of them, and the libraries that are read again and again."""


@dataclass(frozen=True)
class Sharing:
    """How what is left is divided among ops."""

    ops_at_a_time: int = 2
    """More would wait for each other: pages, panels and features follow one another in a batch."""

    each_mb: int = 300
    """Two at a time only where both get this, which most declare; else one gets all of it."""

    least_mb: int = 200
    """Below this ordinary pages do not fit: the op's libraries and the PDF parser take 140 MB, and
    with 165 MB some pages and panels of a paper at 150 dpi were left out."""


SET_ASIDE = SetAside()
SHARING = Sharing()

SERVICES: dict[Beside, tuple[str, ...]] = {
    "nothing": (),
    "code_server": ("code_server", "intake"),
    "ui": ("ui", "webserver", "daemon", "code_server", "intake"),
}
"""What runs in the same container besides the run itself, by what the settings say of it."""


@dataclass(frozen=True)
class Share:
    """What ops may hold, so that everything together stays within a limit.

    Attributes:
        limit_mb: For everything together; None where there is none.
        set_aside_mb: For all that is not an op.
        ops_at_a_time: How many ops a run works on at a time.
        op_mb: Upper bound of an op's budget; 0: as declared.
    """

    limit_mb: int | None = None
    set_aside_mb: int = 0
    ops_at_a_time: int = SHARING.ops_at_a_time
    op_mb: int = 0

    def __str__(self) -> str:
        """One line for logs and the terminal."""
        ops = "1 op" if self.ops_at_a_time == 1 else f"{self.ops_at_a_time} ops"
        if self.limit_mb is None:
            return f"no limit for the whole; {ops} at a time, each within what it declares"
        return (
            f"{self.limit_mb} MB for everything, {self.set_aside_mb} of them for processes that "
            f"are no ops; {ops} at a time, each within what it declares and {self.op_mb} MB"
        )


def budgets(partitions: dg.PartitionsDefinition | None = None) -> dict[str, int]:
    """What each asset's op declares, in MB, by name of the asset.

    Args:
        partitions: Only assets that have these; None: all.
    """
    loaded = dg.load_assets_from_package_module(assets)
    declared = {
        key.to_user_string(): int(asset.op.tags["quire/memory_mb"])
        for asset in loaded
        if isinstance(asset, dg.AssetsDefinition)
        and asset.is_executable
        and partitions in (None, asset.partitions_def)
        for key in asset.keys
    }
    return dict(sorted(declared.items()))


def set_aside_mb(beside: Beside, *, embedded_postgres: bool) -> int:
    """What is set aside for all that is not an op, with these services in the same container."""
    names = ["run", "fork_server", "system", *SERVICES[beside]]
    if embedded_postgres:
        names.append("postgres")
    return sum(getattr(SET_ASIDE, name) for name in names)


def enough_mb(beside: Beside, *, embedded_postgres: bool) -> int:
    """The limit at which every op gets what it declares, as many at a time as a run takes."""
    largest = sorted(budgets().values(), reverse=True)[: SHARING.ops_at_a_time]
    return set_aside_mb(beside, embedded_postgres=embedded_postgres) + sum(largest)


def share_out(limit_mb: int | None, aside_mb: int, declared: Sequence[int]) -> Share:
    """Divide a limit: first what is no op, then as many ops at a time as get a fair part.

    Args:
        limit_mb: For everything together; None: no limit.
        aside_mb: For what is no op.
        declared: The budgets that ops declare, in MB.

    Raises:
        ValueError: What is left is too little for a single op, with the limit that would do.
    """
    if limit_mb is None:
        return Share()
    left_mb = limit_mb - aside_mb
    if left_mb < SHARING.least_mb:
        raise ValueError(
            f"{limit_mb} MB of memory are too little: {aside_mb} MB go to the database, the run "
            f"and what else is no op, and an op needs {SHARING.least_mb} MB; grant at least "
            f"{aside_mb + SHARING.least_mb} MB (QUIRE_MEMORY_MB, --memory-mb, or the container's "
            "own limit)"
        )
    together = SHARING.ops_at_a_time
    bound_mb = _bound_mb(left_mb, sorted(declared, reverse=True)[:together])
    if bound_mb < SHARING.each_mb:
        together, bound_mb = 1, left_mb
    return Share(limit_mb, aside_mb, together, bound_mb)


def op_budget_mb(asset: str, settings: Settings) -> int:
    """What the op of one asset may hold under these settings.

    What it declares where the limit is too small for any op, which is told when a run is started.
    """
    declared = budgets()[asset]
    try:
        most = share_of(settings).op_mb
    except ValueError:
        return declared
    return min(declared, most) if most else declared


def _bound_mb(left_mb: int, largest: Sequence[int]) -> int:
    """The bound under which budgets add up to what is left: the smaller ones keep theirs."""
    for number, budget in enumerate(reversed(largest)):
        share_mb = left_mb // (len(largest) - number)
        if budget > share_mb:
            return share_mb
        left_mb -= budget
    return max(largest)


def share_of(settings: Settings) -> Share:
    """What ops may hold under these settings, here.

    The limit is ``QUIRE_MEMORY_MB`` or the container's own, whichever is less. Ops in pods of their
    own have their declared budget as the pod's limit, and nothing beside them.

    Raises:
        ValueError: The limit is too small, with the one that would do.
    """
    if settings.executor == "pods":
        return Share()
    known = [mb for mb in (settings.memory_mb, container_limit_mb()) if mb]
    aside_mb = set_aside_mb(settings.beside, embedded_postgres=not settings.database_url)
    return share_out(min(known, default=None), aside_mb, list(budgets().values()))
