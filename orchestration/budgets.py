"""Budgets: the memory of every op and of every process beside them, as one table.

Limits of containers and pods, the figures of the docs and what a run grants its ops come from here.
"""

from dataclasses import dataclass

import dagster as dg

import assets


@dataclass(frozen=True)
class SetAside:
    """What the processes that are not ops hold, in MB, each as the most that was measured.

    ``benchmarks/containers.py`` prints them.
    """

    postgres: int = 110
    """Shared buffers of 64 MB in full, and ten connections."""

    run: int = 110
    """The process that executes a run and starts its ops."""

    webserver: int = 160
    daemon: int = 135
    code_server: int = 130


SET_ASIDE = SetAside()


def budgets() -> dict[str, int]:
    """What each asset's op declares, in MB, by name of the asset."""
    loaded = dg.load_assets_from_package_module(assets)
    declared = {
        key.to_user_string(): int(asset.op.tags["quire/memory_mb"])
        for asset in loaded
        if isinstance(asset, dg.AssetsDefinition) and asset.is_executable
        for key in asset.keys
    }
    return dict(sorted(declared.items()))
