"""Judgement: what a candidate pair comes to, from alignment to relation, probability and tier."""

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files

from core.copy_move import CopyMoveSpec, find_copy_moves
from core.relations import Relation, RelationSpec, relation_of
from core.scoring import Tier, TierSpec, probability_of, tier_of
from core.verification import Match, PanelView, VerificationSpec, verify_pair


@dataclass(frozen=True)
class JudgementSpec:
    """Everything that decides what a candidate pair comes to."""

    verification: VerificationSpec = field(default_factory=VerificationSpec)
    copy_move: CopyMoveSpec = field(default_factory=CopyMoveSpec)
    relations: RelationSpec = field(default_factory=RelationSpec)
    tiers: TierSpec = field(default_factory=TierSpec)


@dataclass(frozen=True)
class Finding:
    """A confirmed pair of regions.

    Attributes:
        match: Their alignment and what was measured on it.
        relation: What kind of pair it is.
        probability: Calibrated, 0 to 1.
        tier: A, B, or C (kept for calibration, not shown).
        brightness: Mean of B less mean of A over the common region, in grey levels.
        contrast: Spread of B over spread of A there; negative where inverted.
    """

    match: Match
    relation: Relation
    probability: float
    tier: Tier
    brightness: float
    contrast: float


def judge_pair(a: PanelView, b: PanelView | None, spec: JudgementSpec) -> list[Finding]:
    """What two panels, or one with itself, come to.

    Args:
        a: A panel.
        b: Another, or None to search ``a`` for regions copied within it.
        spec: How to judge.

    Returns:
        Findings worth keeping, the most probable first; mostly none.
    """
    if b is None:
        matches = [(match, Relation.COPY_MOVE) for match in find_copy_moves(a, spec.copy_move)]
    else:
        match = verify_pair(a, b, spec.verification)
        matches = [] if match is None else [(match, relation_of(match, a, b, spec.relations))]
    findings = [_finding(match, relation, spec.tiers) for match, relation in matches]
    kept = [finding for finding in findings if finding.probability >= spec.tiers.keep]
    return sorted(kept, key=lambda finding: -finding.probability)


def fitted_tables() -> str:
    """SHA-256 of the fitted numbers that probabilities come from; part of the spec id."""
    return hashlib.sha256((files("core") / "data" / "scoring.json").read_bytes()).hexdigest()


def _finding(match: Match, relation: Relation, tiers: TierSpec) -> Finding:
    probability = probability_of(match, relation)
    slope = match.evidence["contrast"]
    return Finding(
        match=match,
        relation=relation,
        probability=probability,
        tier=tier_of(probability, relation, tiers),
        brightness=match.evidence["brightness"],
        # The slope of B on A is the ratio of spreads times the correlation.
        contrast=slope / match.ncc if abs(match.ncc) > 0.1 else slope,
    )
