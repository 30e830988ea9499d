"""Which text encoder serves, which one waits to take its place, and which of them are at hand."""

from dataclasses import dataclass

import store.chunk_embeddings
import store.work
from core.encoders import EncoderError
from core.text import visible
from core.text_encoders import NotConvertedError, TextEncoderSpec
from core.text_runtimes import text_checkpoint_sha256
from core.work import spec_id
from resources.text_checkpoints import find_text_checkpoint
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


@dataclass(frozen=True)
class AtHand:
    """The configured text encoders that can be worked with.

    Attributes:
        encoders: The one that serves, and the one that waits if there is one and it is to be had.
        left_out: Why the one that waits is not among them; empty where it is, or there is none.
    """

    encoders: tuple[TextEncoderResource, ...]
    left_out: str = ""


def text_encoders_at_hand(db: Db, text_encoder: TextEncoderResource) -> AtHand:
    """What passages and vectors can be made for: the one that waits keeps nobody from searching.

    Raises:
        NotConvertedError: The one that serves is still to be converted.
        EncoderError: It is not to be had, or more than two are configured.
    """
    serving = serving_text_encoder(db, text_encoder)
    described_text_encoder(db, serving)
    waiting = waiting_text_encoder(db, text_encoder)
    if waiting is None:
        return AtHand((serving,))
    try:
        described_text_encoder(db, waiting)
    except EncoderError as error:
        why = f"the text encoder {waiting.spec}, which is to serve next, is left out: {error}"
        return AtHand((serving,), visible(why))
    return AtHand((serving, waiting))


def described_text_encoder(db: Db, text_encoder: TextEncoderResource) -> TextEncoderSpec:
    """What one encoder is; where making it was given up, why.

    Raises:
        NotConvertedError: It is still to be converted.
        EncoderError: It is not to be had.
    """
    try:
        return text_encoder.describe()
    except NotConvertedError:
        choice = text_encoder.choice()
        unit = text_checkpoint_sha256(find_text_checkpoint(choice).spec)
        reason = store.work.reason_of_failure(db, "text_encoders", unit)
        if not reason:
            raise
        raise EncoderError(
            f"text_encoders did not convert {choice}: {reason}. Where there is room, python -m "
            "resources.text_conversion does it, and the folder that it writes is named instead"
        ) from None


def chunk_embeddings_spec(described: TextEncoderSpec) -> str:
    """Spec id of the chunk embeddings made by an encoder; it ends with the set of their chunks."""
    return f"{spec_id('chunk_embeddings', 1, described.encoder_id)}-{described.chunk_set}"
