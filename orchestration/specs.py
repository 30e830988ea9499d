"""Which spec each asset is to have, under the settings in force."""

from assets.candidate_pairs import candidates_spec
from assets.documents import SPEC as DOCUMENTS
from assets.duplicate_reports import reports_spec
from resources.encoder import Encoder, NotConvertedError
from resources.settings import CopySearch
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
