"""Which spec each asset is to have, under the settings in force."""

from assets.candidate_pairs import candidates_spec
from assets.chunks import chunks_spec
from assets.documents import SPEC as DOCUMENTS
from assets.duplicate_reports import reports_spec
from assets.search_index import SPEC as SEARCH_INDEX
from assets.text_channel import chunk_embeddings_spec, serving_text_encoder
from core.encoders import EncoderError
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

    Raises:
        ValueError: A setting of reading is out of range.
    """
    try:
        passages = chunks_spec(text_encoder)
        embeddings = chunk_embeddings_spec(serving_text_encoder(db, text_encoder).describe())
    except EncoderError:
        passages = embeddings = ""  # one is to be converted, or not to be had: the run says so
    return {
        "ocr_pages": reading.spec.reading_id,
        "chunks": passages,
        "chunk_embeddings": embeddings,
        "search_index": SEARCH_INDEX,
    }
