"""Candidate pairs: which panels are worth a closer look."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import dagster as dg

import store.candidate_pairs
import store.encoders
import store.panel_features
import store.panels
import store.tile_embeddings
from assets.encoder_channel import embeddings_spec, serving_encoder
from assets.panel_features import panel_features
from assets.partitions import page_batches, per_batches
from assets.tile_embeddings import tile_embeddings
from assets.work import Recompute, Refused, complete_check, work_through
from core.embedding_search import (
    Background,
    BackgroundSpec,
    EmbeddingSearchSpec,
    TileVectors,
    fit_background,
)
from core.embedding_search import search as search_embeddings
from core.encoders import EncoderSpec
from core.features import LocalFeatures
from core.geometry import share_inside
from core.local_search import search_local
from core.work import Job, Outcome, Status
from resources.encoder import Encoder
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from resources.settings import CopySearch
from store.candidate_pairs import Candidate
from store.database import Db
from store.panels import Panel

PANELS_PER_BLOCK = 96
"""Stored panels in memory at a time. Compared, each takes 0.25 MB: 300 index features with their
descriptors in single precision, and what matches them. With 256 the search takes a third less time
and 40 MB more."""

PANELS_AT_A_TIME = 64
"""New panels that one pass over everything stored serves: more passes cost reading, more panels
cost memory."""


SEARCH_MB = 10.0
NEW_PANEL_MB = 0.18
STORED_PANEL_MB = 0.25
"""What the search takes: once, per new panel and per stored panel of a block, measured."""

ENCODER_MB = 45.0
"""What the encoder's channel adds: the product, twice, and a block of vectors."""

ONE_SPOT = 0.5
"""Two panels of a page of which one lies in the other by this share show one spot twice."""

CAPPED = "a panel resembles so many others that only the closest were kept as candidates"


@dataclass
class Found:
    """What the channels propose for one panel."""

    candidates: list[Candidate] = field(default_factory=list)
    capped: list[str] = field(default_factory=list)


def candidates_spec(db: Db, copy_search: CopySearch, encoder: Encoder) -> str:
    """Spec id of candidate pairs under the settings in force.

    It names the encoder's background: pairs that were sought before there were panels enough to
    fit one are sought again when there is.
    """
    serving = serving_encoder(db, copy_search, encoder)
    if serving is None:
        return copy_search.spec.candidates_id(None)
    described = serving.describe()
    background = serving.background() or _fitted(db, described)
    named = background.background_id if background else "none"
    search = EmbeddingSearchSpec(described.encoder_id)
    return copy_search.spec.candidates_id(f"{copy_search.spec.tiles_id} {search} {named}")


@dg.asset(
    partitions_def=page_batches,
    deps=[panel_features, tile_embeddings],
    group_name="copy_search",
    kinds={"postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=300),
    backfill_policy=per_batches,
    check_specs=[complete_check("candidate_pairs")],
)
def candidate_pairs(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    memory: MemoryContract,
    copy_search: CopySearch,
    encoder: Encoder,
) -> dg.MaterializeResult:
    """Pairs of panels that a recall channel brings close; nothing is claimed yet.

    Each new panel is searched against everything stored, its own batch included: if an older panel
    was searched before this one was there, this one finds it now, so every pair is found once. The
    stored side streams through memory in bounded blocks. Every panel is also paired with itself,
    for copy-move.
    """
    with postgres.connect() as db:
        serving = serving_encoder(db, copy_search, encoder)
        described = None if serving is None else serving.describe()
        background = None if serving is None else _background(db, serving)
        candidate_spec = candidates_spec(db, copy_search, encoder)
        stored = store.panel_features.count(db, copy_search.spec.features_id, PANELS_PER_BLOCK)
    encoder_specs = None
    if described is not None:
        encoder_specs = (copy_search.spec.tiles_id, embeddings_spec(copy_search, described))

    def search(panels: Sequence[Panel]) -> list[Found | Refused]:
        found = {panel.panel_id: Found() for panel in panels}
        for panel in panels:
            own = Candidate(panel.panel_id, panel.panel_id, "copy_move", 0.0, 0)
            found[panel.panel_id].candidates.append(own)
        with postgres.connect() as db:
            _search_local(db, copy_search, found)
            if described is not None:
                _search_encoder(db, described, background, found)
            _drop_second_readings(db, found)
        return [found[panel.panel_id] for panel in panels]

    def keep(db: Db, job: Job, panel: Panel, result: Found) -> Outcome:
        store.candidate_pairs.add(db, job.spec, panel.batch_key, result.candidates)
        reason = "; ".join(result.capped)
        status = Status.DEGRADED if reason else Status.OK
        return Outcome(panel.unit, panel.batch_key, status, len(result.candidates), reason)

    def closing(db: Db, job: Job) -> None:
        store.candidate_pairs.forget_other_specs(db, job.spec, job.batch_keys)

    return work_through(
        context,
        postgres,
        memory,
        spec=candidate_spec,
        recompute=config.recompute,
        pending=lambda db, job, limit: store.panels.pending_search(
            db, job, copy_search.spec.features_id, encoder_specs, limit
        ),
        compute=search,
        keep=keep,
        item_mb=lambda panel: NEW_PANEL_MB,
        most=PANELS_AT_A_TIME,
        parallel=PANELS_AT_A_TIME,
        fixed_mb=SEARCH_MB + STORED_PANEL_MB * stored + (ENCODER_MB if described else 0.0),
        closing=closing,
    )


def _drop_second_readings(db: Db, found: dict[str, Found]) -> None:
    """Leave out two readings of one spot of a page: they are alike because they are one."""
    places = store.panels.on_pages_of(db, list(found))

    def one_spot(candidate: Candidate) -> bool:
        a, b = places.get(candidate.panel_a), places.get(candidate.panel_b)
        if a is None or b is None or a is b or (a.document_id, a.page) != (b.document_id, b.page):
            return False
        return max(share_inside(a.box, b.box), share_inside(b.box, a.box)) > ONE_SPOT

    for proposal in found.values():
        proposal.candidates = [c for c in proposal.candidates if not one_spot(c)]


def _search_local(db: Db, copy_search: CopySearch, found: dict[str, Found]) -> None:
    spec = copy_search.spec
    new = _unpacked(store.panel_features.index(db, spec.features_id, list(found)).items())
    stored = store.panel_features.stored_blocks(db, spec.features_id, PANELS_PER_BLOCK)
    blocks = map(_unpacked, stored)  # unlike a loop it does not hold the rows meanwhile
    result = search_local(new, blocks, spec.local_search)
    for pair in result.candidates:
        owner = pair.a if pair.a in found else pair.b
        votes = round(pair.score)
        found[owner].candidates.append(Candidate(pair.a, pair.b, "local", pair.score, votes))
    for panel_id in result.capped:
        found[panel_id].capped.append(CAPPED)


def _unpacked(packed: Iterable[tuple[str, bytes]]) -> dict[str, LocalFeatures]:
    return {panel_id: LocalFeatures.from_bytes(data) for panel_id, data in packed}


def _search_encoder(
    db: Db, described: EncoderSpec, background: Background | None, found: dict[str, Found]
) -> None:
    table = store.tile_embeddings.table_of(db, described.encoder_id, described.dim)
    new = _vectors(described, store.tile_embeddings.of_panels(db, table, list(found)))
    blocks = (
        _vectors(described, rows)
        for rows in store.tile_embeddings.stored_blocks(db, table, PANELS_PER_BLOCK)
    )
    result = search_embeddings(new, blocks, EmbeddingSearchSpec(described.encoder_id), background)
    channel = f"encoder:{described.encoder_id}"
    for pair in result.pairs:
        owner = pair.panel_a if pair.panel_a in found else pair.panel_b
        found[owner].candidates.append(
            Candidate(pair.panel_a, pair.panel_b, channel, pair.cosine, pair.tile_matches)
        )
    for panel_id in result.capped:
        found[panel_id].capped.append(CAPPED)


def _background(db: Db, encoder: Encoder) -> Background | None:
    """The encoder's own, or one that is fitted once there are panels enough, and kept."""
    described = encoder.describe()
    if known := encoder.background() or _fitted(db, described):
        return known
    table = store.tile_embeddings.table_of(db, described.encoder_id, described.dim)
    blocks = store.tile_embeddings.stored_blocks(db, table, PANELS_PER_BLOCK)
    fitted = fit_background((_vectors(described, rows) for rows in blocks), BackgroundSpec())
    if fitted is None:
        return None
    packed = store.encoders.set_background(db, described.encoder_id, fitted.to_bytes())
    return Background.from_bytes(packed)


def _fitted(db: Db, described: EncoderSpec) -> Background | None:
    packed = store.encoders.background(db, described.encoder_id)
    return Background.from_bytes(packed) if packed else None


def _vectors(described: EncoderSpec, rows: store.tile_embeddings.Rows) -> TileVectors:
    return TileVectors(described.encoder_id, rows.panel_ids, rows.ordinals, rows.vectors)
