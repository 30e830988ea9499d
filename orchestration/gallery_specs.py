"""Which spec each asset of the gallery is to have, under the settings in force."""

from assets.candidates import candidates_spec
from assets.confusion_pairs import confusion_spec
from assets.detections import detections_spec
from assets.gallery_items import SPEC as GALLERY_ITEMS
from assets.identifications import identifications_spec
from assets.learned_templates import learning_spec
from assets.template_embeddings import template_embeddings_spec
from core.gallery import GALLERY
from core.scans import SCANS
from resources.gallery_tools import GalleryTools
from store.database import Db


def gallery_specs(gallery: GalleryTools) -> dict[str, str]:
    """Spec id by asset, for those that are made of batches of items.

    Raises:
        EncoderError: The encoder is not to be had.
    """
    return {
        "gallery_items": GALLERY_ITEMS,
        "learned_templates": learning_spec(gallery),
        "gallery_templates": GALLERY.templates_id,
        "template_embeddings": template_embeddings_spec(gallery.encoder_id),
        "confusion_pairs": confusion_spec(gallery.encoder_id),
    }


def scan_specs(db: Db, gallery: GalleryTools) -> dict[str, str]:
    """The same for those that are made of photographs; they change with the gallery."""
    sought = candidates_spec(db, gallery)
    return {
        "scans": SCANS.scans_id,
        "detections": detections_spec(gallery),
        "candidates": sought,
        "identifications": identifications_spec(sought),
    }
