"""Which spec each asset is to have, under the settings in force."""

from assets.candidate_pairs import candidates_spec
from assets.chunks import chunks_spec
from assets.documents import SPEC as DOCUMENTS
from assets.duplicate_reports import reports_spec
from assets.search_index import SPEC as SEARCH_INDEX
from assets.text_channel import chunk_embeddings_spec, text_encoders_at_hand
from core.encoders import EncoderError
from core.text import visible
from core.text_encoders import NotConvertedError as TextNotConvertedError
from resources.encoder import Encoder, NotConvertedError
from resources.settings import CopySearch, Reading
from resources.text_encoder_resource import TextEncoderResource
from store.database import Db


def specs_in_force(db: Db, copy_search: CopySearch, encoder: Encoder) -> dict[str, str]:
    """Spec id by asset, for the assets whose absence or age a schedule mends."""
    spec = copy_search.spec
    try:
        candidates = candidates_spec(db, copy_search, encoder)
    except NotConvertedError:
        candidates = ""  # so nothing can have been made with it
    return {
        "documents": DOCUMENTS,
        "pages": spec.pages_id,
        "panels": spec.panels_id,
        "panel_features": spec.features_id,
        "candidate_pairs": candidates,
        "verified_pairs": spec.verification_id,
        "duplicate_reports": reports_spec(candidates, copy_search),
    }


def text_specs_in_force(
    db: Db, reading: Reading, text_encoder: TextEncoderResource
) -> dict[str, str]:
    """The same for the assets that make documents searchable.

    What takes an encoder that is not to be had is left out: no run can make it, and
    ``text_encoder_troubles`` says why. Where that is the second of two, vectors stand for the
    passages that they are of: passages made for both are no reason to make them for one.

    Raises:
        ValueError: A setting of reading is out of range.
    """
    specs = {"ocr_pages": reading.spec.reading_id}
    try:
        at_hand = text_encoders_at_hand(db, text_encoder)
    except TextNotConvertedError:  # the run does it, so nothing can have been made with it
        return specs | {"chunks": "", "chunk_embeddings": "", "search_index": SEARCH_INDEX}
    except EncoderError:
        return specs
    specs["chunk_embeddings"] = chunk_embeddings_spec(at_hand.encoders[0].describe())
    specs["search_index"] = SEARCH_INDEX
    if not at_hand.left_out:
        specs["chunks"] = chunks_spec(at_hand.encoders)
    return specs


def text_encoder_troubles(db: Db, text_encoder: TextEncoderResource) -> list[str]:
    """Why what is configured cannot be used to make documents searchable, encoder by encoder."""
    try:
        left_out = text_encoders_at_hand(db, text_encoder).left_out
    except TextNotConvertedError:
        return []
    except EncoderError as error:
        return [f"nothing is searched by meaning with {text_encoder.spec}: {visible(str(error))}"]
    return [left_out] if left_out else []
