"""Templates as identification takes them: pixels in the image store, read when they are needed."""

from collections.abc import Callable

from core.geometry import Image
from core.identification import Template
from resources.image_files import ImageFiles
from store.gallery_templates import StoredTemplate


def as_template(images: ImageFiles, stored: StoredTemplate) -> Template:
    """A stored template whose pixels are read when they are needed."""
    return Template(
        item_id=stored.item_id,
        template_id=stored.template_id,
        load=_reader(images, stored.image_key),
        set_code=stored.set_code,
        number=stored.number,
        language=stored.language,
        name=stored.name,
    )


def _reader(images: ImageFiles, key: str) -> Callable[[], Image]:
    return lambda: images.read_image(key)
