"""Scans: how photographs are looked at."""

from dataclasses import dataclass

from core.work import spec_id


@dataclass(frozen=True)
class ScanSpec:
    """How a photograph is stored and cut.

    Attributes:
        most_px: Longest side that is kept: a card of a 3 x 3 page is then 700 px wide, more than
            identification compares.
        least_px: Longest side to which a JPEG is reduced where there is no memory for more: about
            what detection works at; a card of a 3 x 3 page is then 350 px wide.
        most_megapixels: Most that is decoded; phones take up to 50.
        max_file_bytes: Largest file that is taken in.
        jpeg_quality: Of the stored picture and of crops.
        crop_width_px: Width of an item's crop, twice that of a template, so that numbers can be
            read.
        crop_height_px: Its height.
    """

    most_px: int = 3600
    least_px: int = 1800
    most_megapixels: float = 60.0
    max_file_bytes: int = 100 * 2**20
    jpeg_quality: int = 93
    crop_width_px: int = 600
    crop_height_px: int = 840

    @property
    def scans_id(self) -> str:
        """Spec id of upright pictures."""
        return spec_id("scans", 1, self.most_px, self.most_megapixels, self.jpeg_quality)

    def detections_id(self, detector_id: str) -> str:
        """Spec id of what a detector finds."""
        size = (self.crop_width_px, self.crop_height_px)
        return spec_id("detections", 1, self.scans_id, detector_id, size, self.jpeg_quality)


SCANS = ScanSpec()
