"""Templates as identification takes them: pixels in the image store, read when they are needed."""

from collections.abc import Sequence
from functools import partial

import store.gallery_templates
from core.identification import Recalled, Template
from core.recall import Hit
from resources.image_files import ImageFiles
from store.database import Db
from store.gallery_templates import StoredTemplate


def as_template(images: ImageFiles, stored: StoredTemplate) -> Template:
    """A stored template whose pixels are read when they are needed."""
    return Template(
        item_id=stored.item_id,
        template_id=stored.template_id,
        load=partial(images.read_image, stored.image_key),
        load_small=partial(images.read_quarter, stored.image_key),
        set_code=stored.set_code,
        number=stored.number,
        language=stored.language,
        name=stored.name,
    )


def as_recalled(images: ImageFiles, db: Db, hits: Sequence[Hit]) -> list[Recalled]:
    """What a search brought as identification takes it; templates that are gone are left out."""
    templates = store.gallery_templates.get(db, [hit.template_id for hit in hits])
    return [
        Recalled(as_template(images, templates[hit.template_id]), hit.similarity, hit.turned)
        for hit in hits
        if hit.template_id in templates
    ]
