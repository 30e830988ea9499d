"""What counts as a card in a photograph: the numbers that decide it, each with its reason."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectionSpec:
    """What detection looks for, and how hard.

    Lengths are in widths of a card unless the name says otherwise, so they hold for any resolution.
    """

    card_aspect: float = 63.0 / 88.0
    """Width over height of a card: 63 x 88 mm, the size of nearly all trading cards."""
    working_px: int = 1700
    """Longer side of the picture that is searched; larger ones are reduced first. A card of a 3 x 3
    page is then about 330 px wide, so that 1 % of its width is a few pixels."""
    coarse_px: int = 850
    """Longer side of the reduced picture in which hypotheses are made."""
    min_picture_px: int = 64
    """A picture with a shorter side than this holds no card that could be told from another."""
    min_width_share: float = 0.06
    """Narrowest card, as a share of the picture's longer side: 100 px of 1700, fewer than which
    do not show what is printed on it; 14 cards side by side."""
    max_width_share: float = 0.95
    """Widest card, likewise."""
    tilt_prior: float = 0.15
    """Standard deviation of the stretch and of the change of scale towards the picture's edge:
    about what a photograph taken by hand at 30 degrees from above shows."""
    size_tolerance: float = 0.015
    """Standard deviation of the sides of cards once perspective is taken out: pages bend. The frame
    printed on a card is 0.06 smaller than the card."""
    max_seeds: int = 16
    """Most quads whose size is tried on all others; those of one size are tried once."""
    edge_level: float = 9.0
    """Change of colour over 2 px, in levels of Lab, that counts as a full edge."""
    steepness_share: float = 0.4
    """Share of how steep an edge is, compared with the steepest of its side, in where it is put."""
    side_reach: float = 0.02
    """How far a side is sought from where a hypothesis puts it: well within the width of a printed
    border, 0.04, so that its inner edge is not taken for the outer one."""
    curve_px: int = 1
    """How far an edge may leave the straight line and still count: pages and cards are bent."""
    min_segment: float = 0.15
    """Shortest piece of a side that a hypothesis is built on."""
    corner_angle_deg: float = 3.0
    """How far a corner may differ from a right angle on the plane of the cards."""
    corner_gap: float = 0.6
    """How far the two pieces may be from the corner they make: a third of a side may be hidden."""
    max_segments: int = 900
    """Most pieces of sides that are combined, longest first; a page of 12 cards has about 500."""
    max_hypotheses: int = 60_000
    """Most corners that are tried as cards: bounds the time at about half a second."""
    max_examined: int = 240
    """Most hypotheses whose sides are measured in full; a pile of 12 cards needs about 100."""
    max_cards: int = 60
    """Most cards of a picture; at the narrowest size no more lie side by side."""
    min_support: float = 0.60
    """Share of the visible outline that must be edge. Outlines through printed pictures reach
    0.4."""
    firm_score: float = 0.8
    """Support from which a card is not given up for what the grid of a page expects."""
    min_visible: float = 0.45
    """Least share of a card that is not under others; under half of it little can be compared."""
    max_overlap: float = 0.40
    """Two cards that share more of their area than this are one seen twice."""
    min_texture: float = 5.0
    """Standard deviation of colour, in levels of Lab, below which the inside is blank: an empty
    pocket, a sheet of paper."""
    cut_out_tolerance: float = 0.03
    """How far a picture that is a card cut out may be from a card's proportions."""
    cut_out_reach: float = 0.15
    """How far inside such a picture its printing may be found, as a share of its shorter side."""
    cut_out_play: float = 0.012
    """By how much its four insets may differ, for it to be printed there and not to lie there; a
    quad that reaches further than this beyond the picture is no card in it."""
    widest_border: float = 0.09
    """Widest border printed around a card, in card widths: 5.5 mm."""
    narrowest_border: float = 0.032
    """Narrowest border printed around a card, likewise: 2 mm. Sleeves stand out by 1.5 mm."""
    border_contrast: float = 8.0
    """Levels of Lab by which a border differs from what lies beyond the card."""
    step_distances: tuple[float, float, float, float, float] = (0.012, 0.018, 0.024, 0.03, 0.036)
    """How far to both sides of an edge colours are compared, the median of which counts: beyond the
    blur of a photograph and the seams of pockets, and not beyond the border."""
    full_contrast: float = 45.0
    """Difference across an edge, in levels of Lab, from which more of it says nothing."""
    contrast_share: float = 0.15
    """Share that this difference has in the support: seams of pockets, pressed into the same
    plastic, differ less from it than print from what it is printed on."""
    frame_votes: float = 0.5
    """Share of the cards that must show a printed frame for it to stand in for hidden edges."""
    frame_worth: float = 0.96
    """Factor on the support of a card that is known by its frame only."""
    torn_worth: float = 0.85
    """The same where some sides show the edge itself and others none: a card moved by a border."""
    frame_reach: float = 0.012
    """How far a frame may be from where the border puts it: art has edges everywhere."""
    frame_share: float = 0.35
    """Share that the frame has in what a card is worth, where most cards have one: the seams of a
    page make outlines of cards, but no frames inside them."""
    border_support: float = 0.75
    """Support of the weakest of four sides from which a border is believed in."""
    side_support: float = 0.85
    """Support of a single side, beyond one that was found, from which it is taken for the edge."""
    border_votes: float = 0.1
    """Share of the cards, and at least one, that must show a border for all to have one: dark ones
    on a dark page show none."""
    frame_handicap: float = 0.12
    """How much more support a frame inside the border needs than the edge of the card."""
    lattice_support: float = 0.33
    """Support that does where the grid of a binder page says that there is a pocket, if what is in
    it is not blank."""


DEFAULT_SPEC = DetectionSpec()
