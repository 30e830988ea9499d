"""Which text encoder serves, and which one waits to take its place."""

import store.chunk_embeddings
from core.text_encoders import TextEncoderSpec
from core.work import spec_id
from resources.text_encoder_resource import TextEncoderResource
from store.database import Db


def serving_text_encoder(db: Db, text_encoder: TextEncoderResource) -> TextEncoderResource:
    """Of two that are configured the one that was last switched to, or else the first.

    Raises:
        EncoderError: It is not to be had, or more than two are configured.
    """
    configured = text_encoder.each()
    if len(configured) == 1:
        return text_encoder
    return text_encoder.serving(store.chunk_embeddings.switched_to(db) or "")


def waiting_text_encoder(db: Db, text_encoder: TextEncoderResource) -> TextEncoderResource | None:
    """The other one of two configured encoders: it is prepared, or was in force before.

    Raises:
        EncoderError: As for the serving one.
    """
    configured = text_encoder.each()
    if len(configured) < 2:
        return None
    serving = serving_text_encoder(db, text_encoder)
    return configured[1] if serving.spec == configured[0].spec else configured[0]


def chunk_embeddings_spec(described: TextEncoderSpec) -> str:
    """Spec id of the chunk embeddings made by an encoder; it ends with the set of their chunks."""
    return f"{spec_id('chunk_embeddings', 1, described.encoder_id)}-{described.chunk_set}"
