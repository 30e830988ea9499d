"""How copy search and reading are set, for every op alike."""

from functools import cached_property

import dagster as dg
from pydantic import Field

from core.presets import CopySearchSpec, Preset, TileFirst, copy_search_spec
from core.reading import ReadingSpec, Rotate


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


class Reading(dg.ConfigurableResource):
    """How pages are read; a run may override it, and stored rows name what they used."""

    languages: str = Field(
        default="eng", description="As tesseract has them, joined by +, the most likely first."
    )
    dpi: float = Field(default=150.0, description="Resolution of a page at first, 72 to 300.")
    rotate: str = Field(
        default="auto", description="Turn pages that lie on their side: auto or off."
    )
    timeout_s: float = Field(default=120.0, description="For one call of tesseract.")
    workers: int = Field(default=2, description="Pages that are recognized at the same time.")

    @cached_property
    def spec(self) -> ReadingSpec:
        """The numbers; ValueError where a setting is out of range."""
        rotate: Rotate = self.rotate  # pyright: ignore[reportAssignmentType] - checked below
        languages = (language.strip() for language in self.languages.split("+"))
        return ReadingSpec(
            languages=tuple(dict.fromkeys(language for language in languages if language)),
            dpi=self.dpi,
            rotate=rotate,
            timeout_s=self.timeout_s,
        )
