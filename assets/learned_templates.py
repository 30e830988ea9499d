"""Learned templates: crops that people named, once enough agree and nothing gets worse."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
import numpy as np
from numpy.typing import NDArray

import store.corrections
import store.detections
import store.gallery_items
import store.gallery_templates
import store.template_embeddings
import store.work
from assets.gallery_items import gallery_items
from assets.partitions import gallery_batches, per_batches
from assets.work import Recompute, complete_check, each, work_through
from core.errors import InputError
from core.gallery import ReceivedImage, template_id
from core.geometry import Image
from core.identification import IdentificationSpec, Recalled, Template, identify
from core.learning import LEARNING, Proposal, State, capped, proposals
from core.text import visible
from core.work import Job, Outcome, spec_id
from resources.gallery_tools import GalleryTools
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from resources.recall import View, nearest_items
from resources.templates import as_recalled, as_template
from store.corrections import LearnedTemplate
from store.database import Db
from store.gallery_templates import StoredTemplate

IDENTIFICATION = IdentificationSpec()
ITEM_MB = 120.0

COLUMNS = [
    dg.TableColumn("correction", "int"),
    dg.TableColumn("item", "string"),
    dg.TableColumn("state", "string"),
    dg.TableColumn("reason", "string"),
]


@dataclass(frozen=True)
class PendingLearning:
    """An item for which corrections propose crops, and what they propose.

    Attributes:
        unit: The item and a hash of the proposals and of its official templates: others are another
            unit.
        official: Templates that a crop is compared with.
    """

    unit: str
    batch_key: str
    item_id: str
    proposed: tuple[Proposal, ...]
    crop_keys: dict[int, str]
    official: tuple[StoredTemplate, ...]


@dataclass(frozen=True)
class _Aside:
    """A card that was kept aside to measure with.

    Attributes:
        crop_key: The card.
        item_id: What people say it is.
        views: Its vectors, and whether it was turned for each.
        recalled: What a search brings for it.
        is_right: Whether it is identified as what it is.
    """

    crop_key: str
    item_id: str
    views: Sequence[View]
    recalled: list[Recalled]
    is_right: bool


def learning_spec(gallery: GalleryTools) -> str:
    """Spec id of what is learned under the settings in force."""
    return spec_id("learned_templates", 3, LEARNING, IDENTIFICATION, gallery.encoder_id)


@dg.asset(
    partitions_def=gallery_batches,
    deps=[gallery_items],
    group_name="gallery",
    kinds={"postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=500),
    backfill_policy=per_batches,
    check_specs=[complete_check("learned_templates")],
)
def learned_templates(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    gallery: GalleryTools,
) -> dg.MaterializeResult:
    """What became of every crop that corrections name: quarantined, active, refused or revoked.

    A crop waits until two people agree or a curator says so. Then its features must match an
    official template of the item, and what is kept aside to measure with must be identified no
    worse than without it. Taking a correction back takes its template out again.
    """
    known: list[list[_Aside]] = []

    def aside(db: Db) -> list[_Aside]:
        """Looked at once, and only where there is something to judge by it."""
        if not known:
            known.append(_kept_aside(db, images, gallery))
        return known[0]

    def judge(item: PendingLearning) -> list[LearnedTemplate]:
        judged: list[Proposal] = []
        with postgres.connect() as db:
            for proposal in item.proposed:
                refusal = ""
                if proposal.state is State.ACTIVE:  # people's word first, then geometry and replay
                    refusal = _harm(db, images, gallery, aside, item, proposal)
                refused = replace(proposal, state=State.REFUSED, reason=refusal)
                judged.append(refused if refusal else proposal)
        return [_as_learned(each) for each in capped(judged, LEARNING)]

    def keep(db: Db, job: Job, item: PendingLearning, result: list[LearnedTemplate]) -> Outcome:
        store.corrections.keep_learned(db, result)
        crops = {each.correction_id: each.crop_sha256 for each in item.proposed}
        for learned in result:
            if learned.state == State.ACTIVE:
                number = learned.correction_id
                image = ReceivedImage(
                    item_id=learned.item_id,
                    image_sha256=crops[number],
                    name=f"correction {number}",
                    file_key=item.crop_keys[number],
                    correction_id=number,
                )
                store.gallery_items.add_images(db, [image])
            else:
                store.gallery_items.forget_learned(db, learned.template_id)
        active = sum(learned.state == State.ACTIVE for learned in result)
        return Outcome(item.unit, item.batch_key, made=active)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        known = store.corrections.learned(db)
        records = [
            dg.TableRecord(
                {
                    "correction": each.correction_id,
                    "item": visible(each.item_id),
                    "state": each.state,
                    "reason": visible(each.reason),
                }
            )
            for each in known[-50:]
        ]
        states = {state.value: sum(each.state == state for each in known) for state in State}
        return {**states, "latest": dg.MetadataValue.table(records, dg.TableSchema(COLUMNS))}

    return work_through(
        context,
        postgres,
        memory,
        spec=learning_spec(gallery),
        recompute=config.recompute,
        pending=_pending,
        compute=each(judge),
        keep=keep,
        item_mb=lambda item: ITEM_MB,
        most=8,
        fixed_mb=gallery.encoder_mb,
        describe=describe,
    )


def _pending(db: Db, job: Job, limit: int) -> list[PendingLearning]:
    """Items of the job's batches whose proposals have not been judged as they are now."""
    events = store.corrections.everything(db)
    proposed = proposals([event.event for event in events], LEARNING)
    keys = {event.correction_id: event.crop_key for event in events}
    batches = store.gallery_items.batches_of(db, {proposal.item_id for proposal in proposed})
    of_item: dict[str, list[Proposal]] = {}
    for proposal in proposed:
        if batches.get(proposal.item_id) in job.batch_keys:
            of_item.setdefault(proposal.item_id, []).append(proposal)
    official: dict[str, list[StoredTemplate]] = {}
    for template in store.gallery_templates.of_items(db, sorted(of_item), official=True):
        official.setdefault(template.item_id, []).append(template)
    found: list[PendingLearning] = []
    for item_id, some in sorted(of_item.items()):
        own = tuple(official.get(item_id, ()))
        seen = (some, [template.template_id for template in own])
        digest = hashlib.sha256(repr(seen).encode()).hexdigest()[:16]
        crop_keys = {each.correction_id: keys[each.correction_id] for each in some}
        unit = f"{item_id}@{digest}"
        found.append(PendingLearning(unit, batches[item_id], item_id, tuple(some), crop_keys, own))
    todo = set(store.work.not_done(db, job, [item.unit for item in found]))
    return [item for item in found if item.unit in todo][:limit]


def _as_learned(proposal: Proposal) -> LearnedTemplate:
    return LearnedTemplate(
        correction_id=proposal.correction_id,
        item_id=proposal.item_id,
        template_id=template_id(proposal.item_id, proposal.crop_sha256),
        state=proposal.state.value,
        reason=proposal.reason,
    )


def _harm(
    db: Db,
    images: ImageStore,
    gallery: GalleryTools,
    aside: Callable[[Db], list[_Aside]],
    item: PendingLearning,
    proposal: Proposal,
) -> str:
    """Why a crop that people agree on must not become a template; empty where it may."""
    if store.detections.is_kept_aside(db, proposal.crop_sha256):
        return "the same picture is kept aside to measure with"
    if not item.official:
        raise InputError(
            f"the item {item.item_id} has no template yet that a crop could be compared with"
        )
    crop = images.read_image(item.crop_keys[proposal.correction_id])
    seen = [Recalled(as_template(images, each), 1.0) for each in item.official]
    inliers = identify(crop, seen, IDENTIFICATION).measures.get("inliers", 0.0)
    if inliers < LEARNING.least_inliers:
        return (
            f"its features do not match the item's template ({inliers:.0f} of at least "
            f"{LEARNING.least_inliers})"
        )
    cards = aside(db)
    if not cards:
        return ""
    (vector,) = gallery.embed([crop])
    before = sum(card.is_right for card in cards)
    after = sum(_is_right_with(images, card, item.item_id, crop, vector) for card in cards)
    if after < before:
        return f"with it {after} instead of {before} of {len(cards)} cards kept aside are right"
    return ""


def _kept_aside(db: Db, images: ImageStore, gallery: GalleryTools) -> list[_Aside]:
    """The cards that were kept aside and named, and how they are identified now."""
    table = store.template_embeddings.known_table(db, gallery.encoder_id)
    labels = store.corrections.labels(db)
    if table is None:
        return []
    rows = store.template_embeddings.count(db, table)
    cards: list[_Aside] = []
    for label in labels:
        card = images.read_image(label.crop_key)
        (views,) = gallery.views_of([card])
        recalled = as_recalled(images, db, nearest_items(db, table, rows, views).hits)
        is_right = _is_right(card, recalled, label.item_id)
        cards.append(_Aside(label.crop_key, label.item_id, views, recalled, is_right))
    return cards


def _is_right_with(
    images: ImageStore,
    card: _Aside,
    item_id: str,
    crop: Image,
    vector: NDArray[np.float32],
) -> bool:
    """Whether a card is right with a new template: one that stays away from it changes nothing."""
    near = _with_new(card.recalled, item_id, crop, card.views, vector)
    if near is None:
        return card.is_right
    return _is_right(images.read_image(card.crop_key), near, card.item_id)


def _is_right(card: Image, recalled: Sequence[Recalled], item_id: str) -> bool:
    found = identify(card, recalled, IDENTIFICATION)
    return bool(found.candidates) and found.candidates[0].item_id == item_id


def _with_new(
    recalled: Sequence[Recalled],
    item_id: str,
    crop: Image,
    views: Sequence[View],
    vector: NDArray[np.float32],
) -> list[Recalled] | None:
    """The candidates of a card with the new template among them; None where it stays away."""
    similarity, turned = max((float(view @ vector), turned) for view, turned in views)
    own = [each.similarity for each in recalled if each.template.item_id == item_id]
    least = own[0] if own else (recalled[-1].similarity if recalled else -1.0)
    if similarity <= least:
        return None
    new = Recalled(Template(item_id, "new", lambda: crop), similarity, turned)
    rest = [each for each in recalled if each.template.item_id != item_id]
    return sorted([new, *rest], key=lambda each: -each.similarity)
