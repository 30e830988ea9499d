"""How copy search is set: one preset and what is changed by hand, for every op alike."""

from functools import cached_property

import dagster as dg
from pydantic import Field

from core.presets import CopySearchSpec, Preset, TileFirst, copy_search_spec


class CopySearch(dg.ConfigurableResource):
    """The settings of copy search; a run may override them, and stored rows name what they used."""

    preset: str = Field(default="balanced", description="fast, balanced or thorough")
    dpi: float = Field(
        default=0.0, description="Resolution of pages, 72 to 300; 0 takes the preset's."
    )
    tile_px: int = Field(
        default=0, description="Fixed side of tiles in pixels; 0: relative to the panel."
    )
    tile_stride: float = Field(
        default=0.0, description="Step of tiles as a share; 0: the preset's."
    )
    tile_first: str = Field(default="auto", description="Encoder channel: auto, on or off.")
    threads: int = Field(default=2, description="Items that an op works on at the same time.")

    @cached_property
    def spec(self) -> CopySearchSpec:
        """The numbers; ValueError where a setting is out of range."""
        preset: Preset = self.preset  # pyright: ignore[reportAssignmentType] - checked below
        tile_first: TileFirst = self.tile_first  # pyright: ignore[reportAssignmentType]
        return copy_search_spec(
            preset,
            dpi=self.dpi,
            tile_px=self.tile_px,
            tile_stride=self.tile_stride,
            tile_first=tile_first,
        )
