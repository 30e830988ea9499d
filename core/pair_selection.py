"""One finding per real pair.

A figure that can be cut in two ways gives panels that overlap, so one reuse can be found several
times: between the parts, between the wholes, and inside the whole as copy-move. A reader should see
it once, at its best. And two readings of the same spot are not a pair at all.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from core.geometry import Box, iou, share_inside


@dataclass(frozen=True)
class Finding:
    """A verified pair as far as choosing among overlapping ones needs to know it.

    Attributes:
        key: Names the pair.
        probability: That it is real, 0 to 1.
        document_a: Document of side A.
        page_a: Its page.
        box_a: The common region on that page, in points.
        panel_a: The panel it lies in, in points.
        document_b: Likewise for side B.
        page_b: Likewise.
        box_b: Likewise.
        panel_b: Likewise.
        alternatives: How many of its sides (0 to 2) are second readings of a doubtful cut.
    """

    key: str
    probability: float
    document_a: str
    page_a: int
    box_a: Box
    panel_a: Box
    document_b: str
    page_b: int
    box_b: Box
    panel_b: Box
    alternatives: int = 0


@dataclass(frozen=True)
class SelectionSpec:
    """When two findings are one.

    Attributes:
        version: Part of the key of stored reports.
        same_iou: Regions on one page that overlap at least so much are one place, 0.5.
        inside: So is a region of which this share lies in the other, 0.75.
        own_place: A pair whose two regions overlap this much on the page is one spot compared with
            itself, 0.3.
        alternative_cost: Probability that a second reading must gain over the first to be shown in
            its place, 0.05.
    """

    version: int = 1
    same_iou: float = 0.5
    inside: float = 0.75
    own_place: float = 0.3
    alternative_cost: float = 0.05


def select(findings: Iterable[Finding], spec: SelectionSpec | None = None) -> list[Finding]:
    """The findings to show, likeliest first, each real pair once.

    Args:
        findings: All of them, in any order; the result does not depend on it.
        spec: When two are one.

    Returns:
        A subset. Of several findings of one pair the likeliest is kept, second readings of a cut
        only where they are clearly likelier.
    """
    spec = spec or SelectionSpec()
    ranked = sorted(
        findings, key=lambda f: (-(f.probability - spec.alternative_cost * f.alternatives), f.key)
    )
    kept: list[Finding] = []
    for finding in ranked:
        if not _one_place(finding, spec) and not any(_same(finding, k, spec) for k in kept):
            kept.append(finding)
    return sorted(kept, key=lambda f: (-f.probability, f.key))


def _one_place(finding: Finding, spec: SelectionSpec) -> bool:
    """Whether both sides of a pair are one spot of one page."""
    if (finding.document_a, finding.page_a) != (finding.document_b, finding.page_b):
        return False
    return iou(finding.box_a, finding.box_b) > spec.own_place


def _same(finding: Finding, other: Finding, spec: SelectionSpec) -> bool:
    """Whether two findings are of one pair, in either order."""
    a, b = _sides(finding)
    c, d = _sides(other)
    return (_meets(a, c, spec) and _meets(b, d, spec)) or (
        _meets(a, d, spec) and _meets(b, c, spec)
    )


Side = tuple[str, int, Box, Box]


def _sides(finding: Finding) -> tuple[Side, Side]:
    return (
        (finding.document_a, finding.page_a, finding.box_a, finding.panel_a),
        (finding.document_b, finding.page_b, finding.box_b, finding.panel_b),
    )


def _meets(one: Side, other: Side, spec: SelectionSpec) -> bool:
    """Whether two sides are one place: same panel and touching regions, or much the same region."""
    if one[:2] != other[:2]:
        return False
    common = max(share_inside(one[2], other[2]), share_inside(other[2], one[2]))
    if iou(one[3], other[3]) > 0.9:
        return common > 0.3
    return iou(one[2], other[2]) >= spec.same_iou or common >= spec.inside
