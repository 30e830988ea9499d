"""The encoder channel: whether it runs, with what, and what is to take its place."""

import dagster as dg

import store.encoders
from core.encoders import EncoderError, EncoderSpec
from core.work import spec_id
from resources.encoder import Encoder
from resources.settings import CopySearch
from store.database import Db


def serving_encoder(db: Db, copy_search: CopySearch, encoder: Encoder) -> Encoder | None:
    """The encoder whose channel runs, or None where none is configured or it is switched off.

    Of two that are configured it is the one that was last switched to, or else the first.

    Raises:
        EncoderError: One is configured or required, but is not to be had, or more than two are;
            the run fails, and no other model takes its place.
    """
    choice = copy_search.spec.tile_first
    if choice == "off" or (choice == "auto" and not encoder.configured):
        return None
    configured = encoder.each()
    if len(configured) < 2:
        return encoder
    if len(configured) > 2:
        raise EncoderError(
            f"{len(configured)} encoders are configured: name the one that serves and the one that "
            "is to take its place"
        )
    switched = store.encoders.switched_to(db)
    named = (one for one in configured if one.describe().encoder_id == switched)
    return configured[0] if switched is None else next(named, configured[0])


def encoder_in_force(db: Db, copy_search: CopySearch, encoder: Encoder) -> EncoderSpec | None:
    """What the serving encoder is; see `serving_encoder`."""
    serving = serving_encoder(db, copy_search, encoder)
    return None if serving is None else serving.describe()


def waiting_encoder(db: Db, copy_search: CopySearch, encoder: Encoder) -> Encoder | None:
    """The other one of two configured encoders: it is prepared, or was in force before.

    Raises:
        EncoderError: As for the serving one.
    """
    serving = serving_encoder(db, copy_search, encoder)
    configured = encoder.each()
    if serving is None or len(configured) < 2:
        return None
    return configured[1] if serving.spec == configured[0].spec else configured[0]


def embeddings_spec(copy_search: CopySearch, described: EncoderSpec) -> str:
    """Spec id of the tile embeddings made by an encoder."""
    return spec_id("embeddings", 1, copy_search.spec.tiles_id, described.encoder_id)


def not_configured(
    budget_mb: int, answer: str = "no image encoder is configured; the local channel runs alone"
) -> dg.MaterializeResult:
    """The answer of an asset that only the encoder channel needs."""
    return dg.MaterializeResult(
        metadata={"answer": answer, "items": 0, "budget_mb": budget_mb},
        check_results=[
            dg.AssetCheckResult(
                passed=True,
                check_name="complete",
                description="No image encoder is configured, so there is nothing to embed.",
            )
        ],
    )
