"""How two pictures that agree are related: what a reviewer asks before calling a reuse wrong."""

from dataclasses import dataclass
from enum import StrEnum

from core.verification import Match, PanelView


class Relation(StrEnum):
    """Kinds of verified pair."""

    SAME_IMAGE = "same_image"
    OTHER_CHANNEL = "other_channel"
    OVERLAPPING_FIELDS = "overlapping_fields"
    COPY_MOVE = "copy_move"
    SAME_BLOT = "same_blot"


@dataclass(frozen=True)
class RelationSpec:
    """Where one kind of pair ends and the next begins.

    Attributes:
        whole_share: A panel lies wholly in the other when this share of it does, 0.85: what a
            refined transform leaves at the edges. Two panels of which neither does overlap.
        channel_gain: One colour channel agrees better than the luminances do by this much, 0.04:
            one of the two shows something else besides.
        unexplained: Share of the colour variance of one panel that no mixture of the other's
            channels explains, 0.25: another stain is in the picture. Grey copies of stained tissue
            stay below 0.15.
        dark_level: Median grey level below which a picture is taken for fluorescence, 90. Only
            there are channels shown apart.
        other_shape_turn_deg: Channels of one field are shown unturned; more than 3 degrees is not
            a figure's way of showing them.
    """

    whole_share: float = 0.85
    channel_gain: float = 0.04
    unexplained: float = 0.25
    dark_level: float = 90.0
    other_shape_turn_deg: float = 3.0


def relation_of(
    match: Match, a: PanelView, b: PanelView, spec: RelationSpec | None = None
) -> Relation:
    """The relation of two different panels whose regions agree.

    Args:
        match: Their alignment, from ``core.verification``.
        a: One panel.
        b: The other.
        spec: Where the kinds end.

    Returns:
        The first that applies of: same blot, other channel, overlapping fields, same image.
    """
    spec = spec or RelationSpec()
    if "blot" in (a.modality, b.modality):
        return Relation.SAME_BLOT
    if _other_channel(match, spec):
        return Relation.OTHER_CHANNEL
    if max(match.evidence["share_a"], match.evidence["share_b"]) < spec.whole_share:
        return Relation.OVERLAPPING_FIELDS
    return Relation.SAME_IMAGE


def _other_channel(match: Match, spec: RelationSpec) -> bool:
    """Whether a figure shows one field twice in different colours: a channel, or the merge."""
    evidence = match.evidence
    dark = max(evidence["level_a"], evidence["level_b"]) < spec.dark_level
    upright = not match.mirrored and abs(match.rotation_deg) < spec.other_shape_turn_deg
    differs = (
        evidence["channel_gain"] > spec.channel_gain or evidence["unexplained"] > spec.unexplained
    )
    return dark and upright and differs
