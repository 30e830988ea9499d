"""Presets: the numbers of copy search as a whole, from one word.

Every asset of the pipeline takes its numbers from the same `CopySearchSpec`, so that what one
stores is what the next looks for. The ids chain: a step's id names the steps it builds on.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

from core.features import FeatureSpec
from core.judgement import JudgementSpec, fitted_tables
from core.local_search import LocalSearchSpec
from core.modality import ModalitySpec
from core.panels import PanelSpec
from core.tiles import FAST_TILES, THOROUGH_TILES, TileSpec
from core.work import spec_id

Preset = Literal["fast", "balanced", "thorough"]
TileFirst = Literal["auto", "on", "off"]
PRESETS: tuple[Preset, ...] = get_args(Preset)


@dataclass(frozen=True)
class PageSpec:
    """What is kept of a page besides its panels."""

    thumbnail_dpi: float = 36.0
    """A letter page is 306 x 396 px and 15 kB as JPEG: enough to see where on a page a panel is."""
    version: int = 1


@dataclass(frozen=True)
class CopySearchSpec:
    """Everything that decides what copy search finds.

    Attributes:
        preset: The word that the numbers came from.
        tile_first: Whether the encoder channel runs: ``auto`` where an encoder is configured,
            ``on`` to require one, ``off`` to leave it out.
    """

    preset: Preset = "balanced"
    tile_first: TileFirst = "auto"
    pages: PageSpec = field(default_factory=PageSpec)
    panels: PanelSpec = field(default_factory=PanelSpec)
    modality: ModalitySpec = field(default_factory=ModalitySpec)
    features: FeatureSpec = field(default_factory=FeatureSpec)
    local_search: LocalSearchSpec = field(default_factory=LocalSearchSpec)
    tiles: TileSpec = field(default_factory=TileSpec)
    judgement: JudgementSpec = field(default_factory=JudgementSpec)

    @cached_property
    def pages_id(self) -> str:
        """Spec id of ``pages``."""
        return spec_id("pages", 1, self.pages)

    @cached_property
    def panels_id(self) -> str:
        """Spec id of ``panels``."""
        return spec_id("panels", 1, self.pages_id, self.panels, self.modality)

    @cached_property
    def features_id(self) -> str:
        """Spec id of ``panel_features``; the panel's own id names what it was cut from."""
        return spec_id("features", self.features.version, self.features)

    @cached_property
    def tiles_id(self) -> str:
        """Spec id of ``tiles``."""
        return spec_id("tiles", self.tiles.version, self.tiles)

    def candidates_id(self, encoder_channel: str | None) -> str:
        """Spec id of ``candidate_pairs``: the local channel, and what the encoder's runs with."""
        return spec_id("candidates", 1, self.features_id, self.local_search, encoder_channel)

    @cached_property
    def verification_id(self) -> str:
        """Spec id of ``verified_pairs``; a pair is verified once, whichever channel proposed it."""
        return spec_id("verified", 1, self.features_id, self.judgement, fitted_tables())


def copy_search_spec(
    preset: Preset = "balanced",
    *,
    dpi: float = 0.0,
    tile_px: int = 0,
    tile_stride: float = 0.0,
    tile_first: TileFirst = "auto",
) -> CopySearchSpec:
    """The numbers behind a preset, with what a user sets by hand put in their place.

    ``fast`` looks at coarser pages and fewer features, for a first pass over thousands of papers;
    ``balanced`` is what the benchmarks and the calibration are measured with; ``thorough`` looks
    closer at small panels, at about twice the cost.

    Args:
        preset: One of `PRESETS`.
        dpi: Resolution at which pages are rendered and panels kept, 72 to 300; 0 leaves the
            preset's.
        tile_px: A fixed side of the tiles in pixels; 0 leaves them relative to the panel.
        tile_stride: Step between tiles as a share of their side, 0 to 1; 0 leaves the preset's.
        tile_first: See `CopySearchSpec`.

    Raises:
        ValueError: A value is out of range or the preset unknown, with what is allowed.
    """
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}; choose one of {', '.join(PRESETS)}")
    if tile_first not in get_args(TileFirst):
        raise ValueError(f"tile-first is auto, on or off, not {tile_first!r}")
    if dpi and not 72 <= dpi <= 300:
        raise ValueError(f"dpi is 72 to 300, not {dpi:g}")
    spec = CopySearchSpec(preset=preset, tile_first=tile_first)
    if preset == "fast":
        spec = replace(
            spec,
            panels=replace(spec.panels, dpi=120.0),
            features=replace(spec.features, max_features=600, index_features=200),
            local_search=replace(spec.local_search, index_features=200),
            tiles=FAST_TILES,
        )
    elif preset == "thorough":
        spec = replace(
            spec,
            panels=replace(spec.panels, dpi=200.0),
            features=replace(spec.features, max_features=2000, index_features=500),
            local_search=replace(spec.local_search, index_features=500),
            tiles=THOROUGH_TILES,
        )
    if dpi:
        spec = replace(spec, panels=replace(spec.panels, dpi=dpi))
    if tile_px:
        spec = replace(spec, tiles=replace(spec.tiles, side_px=tile_px))
    if tile_stride:
        spec = replace(spec, tiles=replace(spec.tiles, stride=tile_stride))
    return spec
