"""The encoder channel: whether it runs, and with what."""

import dagster as dg

from core.encoders import EncoderSpec
from core.work import spec_id
from resources.encoder import Encoder
from resources.settings import CopySearch


def encoder_in_force(copy_search: CopySearch, encoder: Encoder) -> EncoderSpec | None:
    """The encoder whose channel runs, or None where none is configured or it is switched off.

    Raises:
        EncoderError: One is configured or required, but is not to be had; the run fails, and no
            other model takes its place.
    """
    choice = copy_search.spec.tile_first
    if choice == "off" or (choice == "auto" and not encoder.configured):
        return None
    return encoder.describe()


def embeddings_spec(copy_search: CopySearch, described: EncoderSpec) -> str:
    """Spec id of ``tile_embeddings`` made by an encoder."""
    return spec_id("embeddings", 1, copy_search.spec.tiles_id, described.encoder_id)


def not_configured(budget_mb: int) -> dg.MaterializeResult:
    """The answer of an asset that only the encoder channel needs."""
    return dg.MaterializeResult(
        metadata={
            "answer": "no image encoder is configured; the local channel runs alone",
            "items": 0,
            "budget_mb": budget_mb,
        },
        check_results=[
            dg.AssetCheckResult(
                passed=True,
                check_name="complete",
                description="No image encoder is configured, so there is nothing to embed.",
            )
        ],
    )
