"""The numbers of cleaning a page; without OpenCV, which describing a reading does not need."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperSpec:
    """When a picture is cleaned before it is read, and how; grey levels of 255.

    The bench has none of this. On its pages with light falling off to a third, tesseract finds
    three fifths of the words as they are and all of them evened; at a contrast of 35 under noise of
    6 it finds no word of some pages as they are, and 96 % of them cleaned.
    """

    uneven: float = 48.0
    """Difference between the lightest and the darkest paper from which the light is evened:
    photographs, the shadow of a spine."""

    faint: float = 64.0
    """How much darker than its paper the darkest ink is, below which its contrast is stretched: a
    quarter of what black on white has. What is darker is read as it is."""

    least_ink: float = 8.0
    """What is closer to its paper is not stretched: nobody can read it, and paper is not ink."""

    blur_in: float = 0.008
    """Before stretching, so that noise does not become ink, in inches: 1.2 pixels at 150 dpi. On
    the faintest synthetic page 13 % of the words are lost then, and half of them at 0.8 pixels."""

    blank_levels: float = 10.0
    """How much darker than its paper ink is at least, noise averaged away."""

    blank_noise: float = 6.0
    """And how many times the noise of the paper."""

    least_skew: float = 1.5
    """Degrees from which a page is straightened. Tesseract follows lines up to about two."""

    most_skew: float = 12.0
    """Beyond this, slanted lines are a drawing's."""
