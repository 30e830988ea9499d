"""Verified pairs: candidates that geometry confirmed."""

import hashlib
from collections.abc import Mapping, Sequence

import dagster as dg

import store.candidate_pairs
import store.panel_features
import store.panels
import store.verified_pairs
from assets.candidate_pairs import candidate_pairs, candidates_spec
from assets.partitions import page_batches, per_batches
from assets.work import Recompute, Refused, complete_check, each, work_through
from core.errors import InputError
from core.features import LocalFeatures
from core.judgement import Finding, judge_pair
from core.verification import PanelView
from core.work import Job, Outcome
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from resources.settings import CopySearch
from store.candidate_pairs import PendingPair
from store.database import Db
from store.panels import Panel
from store.verified_pairs import VerifiedPair

HELD_SHARE = 1 / 6
"""Share of the budget for panels that are kept in memory with their features, some hundred: the
pairs come ordered by their first panel, and the panels of one paper meet each other again and
again."""

LEFT_BEHIND = 1.4
"""Panels of different sizes come and go: so many times what they take is held for them."""

CODE_MB = 12.0
"""What verifying the first pair takes once: OpenCV's code, half of it shared."""

PAIR_MB = 12.0
"""What comparing one pair takes at its widest: all descriptors by all, and the aligned overlap."""


@dg.asset(
    partitions_def=page_batches,
    deps=[candidate_pairs],
    group_name="copy_search",
    kinds={"opencv", "postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=300),
    backfill_policy=per_batches,
    check_specs=[complete_check("verified_pairs")],
)
def verified_pairs(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    copy_search: CopySearch,
    encoder: Encoder,
) -> dg.MaterializeResult:
    """Pairs whose regions lie on each other, with the transform, the evidence and a probability.

    Says what kind of pair it is: the same image, another channel of one field, overlapping fields,
    copy-move within a panel, the same blot. A few panels are in memory at a time.
    """
    spec = copy_search.spec

    views: dict[str, PanelView] = {}
    faults: dict[str, InputError] = {}

    def load(items: Sequence[PendingPair]) -> None:
        """Have the panels of a batch in memory, and as many of the ones before as there is room."""
        wanted = list(dict.fromkeys(s for item in items for s in (item.panel_a, item.panel_b)))
        missing = [panel_id for panel_id in wanted if panel_id not in views]
        with postgres.connect() as db:
            panels = store.panels.get(db, missing)
            packed = store.panel_features.get(db, spec.features_id, missing)
        room_mb = most_mb - sum(_pixels_mb(panel) for panel in panels.values())
        for panel_id in [panel_id for panel_id in views if panel_id not in wanted]:
            if sum(_held_mb(view) for view in views.values()) < room_mb:
                break
            del views[panel_id]
        for panel_id in wanted:
            known = views.pop(panel_id, None)  # what is used last stays longest
            try:
                views[panel_id] = known or _view(panel_id, panels, packed, images)
            except InputError as fault:
                faults[panel_id] = fault

    def verify(items: Sequence[PendingPair]) -> list[list[VerifiedPair] | Refused]:
        load(items)

        def one(item: PendingPair) -> list[VerifiedPair]:
            for panel_id in (item.panel_a, item.panel_b):
                if panel_id in faults:
                    raise InputError(f"panel {panel_id} cannot be compared: {faults[panel_id]}")
            found = judge_pair(
                views[item.panel_a],
                None if item.panel_a == item.panel_b else views[item.panel_b],
                spec.judgement,
            )
            return [_pair(item, spec.verification_id, place, f) for place, f in enumerate(found)]

        return each(one, threads=copy_search.threads)(items)

    def keep(db: Db, job: Job, item: PendingPair, result: list[VerifiedPair]) -> Outcome:
        store.verified_pairs.replace(db, job.spec, item.panel_a, item.panel_b, result)
        return Outcome(item.unit, item.batch_key, made=len(result))

    def closing(db: Db, job: Job) -> None:
        store.verified_pairs.forget_other_specs(db, job.batch_keys, job.spec)

    most_mb = HELD_SHARE * memory.granted_mb(context)
    with postgres.connect() as db:
        candidate_spec = candidates_spec(db, copy_search, encoder)
        held_bytes = store.candidate_pairs.panel_bytes(
            db, context.partition_keys, candidate_spec, spec.features_id
        )
    return work_through(
        context,
        postgres,
        memory,
        spec=spec.verification_id,
        recompute=config.recompute,
        pending=lambda db, job, limit: store.candidate_pairs.pending(
            db, job, candidate_spec, limit
        ),
        compute=verify,
        keep=keep,
        item_mb=lambda item: PAIR_MB,
        most=32,
        parallel=copy_search.threads,
        fixed_mb=CODE_MB + LEFT_BEHIND * min(most_mb, held_bytes / 2**20),
        closing=closing,
    )


def _view(
    panel_id: str, panels: Mapping[str, Panel], packed: Mapping[str, bytes], images: ImageStore
) -> PanelView:
    panel = panels[panel_id]
    if panel_id not in packed:
        raise InputError("its features are gone; make them anew with --recompute")
    return PanelView(
        image=images.read_image(panel.image_key),
        features=LocalFeatures.from_bytes(packed[panel_id]),
        ignore_boxes=panel.ignore_boxes,
        modality=panel.modality,
    )


def _pixels_mb(panel: Panel) -> float:
    return 3 * panel.width_px * panel.height_px / 2**20


def _held_mb(view: PanelView) -> float:
    return (view.image.nbytes + 120 * len(view.features)) / 2**20


def _pair(item: PendingPair, spec: str, place: int, finding: Finding) -> VerifiedPair:
    match = finding.match
    named = f"{item.unit}/{spec}/{place}"
    return VerifiedPair(
        pair_id=hashlib.sha256(named.encode()).hexdigest()[:20],
        panel_a=item.panel_a,
        panel_b=item.panel_b,
        spec=spec,
        batch_key=item.batch_key,
        relation=finding.relation,
        probability=finding.probability,
        tier=finding.tier,
        match={
            "transform": [[float(v) for v in row] for row in match.transform],
            "region_a": [[float(x), float(y)] for x, y in match.region_a],
            "region_b": [[float(x), float(y)] for x, y in match.region_b],
            "overlap": float(match.overlap),
            "brightness": float(finding.brightness),
            "contrast": float(finding.contrast),
            "inliers": int(match.inliers),
            "ncc": float(match.ncc),
            "ssim": float(match.ssim),
            "hamming": int(match.hamming),
            "evidence": {name: float(value) for name, value in match.evidence.items()},
        },
    )
