"""The gallery's vocabulary: items, their reference pictures, and how they are batched."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from core.work import spec_id


@dataclass(frozen=True)
class GalleryItem:
    """One known item, as a manifest names it.

    Attributes:
        item_id: The user's own id, at most 200 characters.
        name: For people.
        set_code: The set it belongs to; searches can be limited to sets.
        number: Its number in the set, as printed.
        language: The language it is printed in; searches can be limited to languages.
        source: Manifest and line it came from, for people.
    """

    item_id: str
    name: str = ""
    set_code: str = ""
    number: str = ""
    language: str = ""
    source: str = ""


@dataclass(frozen=True)
class ReceivedImage:
    """A reference picture of an item as it was received, or why it could not be.

    Attributes:
        item_id: Whose picture it is.
        image_sha256: Hash of the file; of its name where it could not be read.
        name: What it was called, for people.
        file_key: Where it is in the image store; empty where it could not be read.
        reason: Why it could not be read; empty otherwise.
        correction_id: The correction that gave it; None for an official one.
    """

    item_id: str
    image_sha256: str
    name: str
    file_key: str
    reason: str = ""
    correction_id: int | None = None

    @property
    def template_id(self) -> str:
        """Id of the template that is made of it, 32 hexadecimal digits."""
        return template_id(self.item_id, self.image_sha256)


@dataclass(frozen=True)
class GallerySpec:
    """Numbers of the gallery that decide what is stored.

    Attributes:
        items_per_batch: Items that share a partition; a step costs about 0.9 s to start, and 500
            items are some seconds of work.
        template_width_px: Width of a template; verification compares at this size.
        template_height_px: Height of a template, in the proportion of a trading card.
        jpeg_quality: Of stored templates; below 90 thin strokes of numbers begin to blur.
        max_file_bytes: Largest reference picture that is taken in.
        max_megapixels: Largest reference picture that is decoded.
    """

    items_per_batch: int = 500
    template_width_px: int = 300
    template_height_px: int = 420
    jpeg_quality: int = 92
    max_file_bytes: int = 50 * 2**20
    max_megapixels: float = 60.0

    @property
    def templates_id(self) -> str:
        """Spec id of templates."""
        size = (self.template_width_px, self.template_height_px)
        return spec_id("gallery_templates", 1, size, self.jpeg_quality)


GALLERY = GallerySpec()


def template_id(item_id: str, image_sha256: str) -> str:
    """Id of an item's template made of one picture, 32 hexadecimal digits."""
    return hashlib.sha256(f"{item_id}\0{image_sha256}".encode()).hexdigest()[:32]


def batch_key(item_ids: Sequence[str]) -> str:
    """Key of the batch that holds exactly these items, such as ``g-0f3a9c21d4e7``."""
    digest = hashlib.sha256("\0".join(item_ids).encode()).hexdigest()
    return f"g-{digest[:12]}"
