"""``quire gallery``, ``quire identify``, ``quire correct``: the gallery from the command line."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
from rich.console import Console
from rich.table import Table

import store.batches
import store.confusion_pairs
import store.corrections
import store.detections
import store.gallery_items
import store.gallery_quality
import store.gallery_templates
import store.scans
from core.errors import InputError
from core.identification import Decision
from core.learning import may_revoke, person
from core.overlay import Mark, overlay
from core.text import file_name, inert, legible
from orchestration.definitions import defs, resources_of
from orchestration.gallery_intake import (
    Added,
    ReceivedScan,
    add_gallery,
    find_gallery,
    find_scans,
    receive_scan,
    register_gallery_partitions,
)
from orchestration.gallery_specs import gallery_specs
from orchestration.headless import (
    FAILED,
    FAILED_BECAUSE,
    INCOMPLETE,
    MOST_TROUBLES,
    begin,
    prepare,
    run_all,
    run_config,
    said_first,
)
from orchestration.settings import Settings
from orchestration.terminal import say, shown
from resources import scratch
from resources.gallery_tools import GalleryTools
from resources.images import ImageStore
from resources.photographs import jpeg_of
from store.corrections import NewCorrection
from store.database import Db
from store.detections import Found
from store.scans import Scan, ScanTrouble

IDENTIFIED = "identifications.json"
OVERLAY_PX = 1600
OVERLAY_QUALITY = 85

_GALLERY_WORDS = {
    "gallery_templates": "making templates",
    "template_embeddings": "embedding them",
    "confusion_pairs": "finding look-alikes",
}
_SCAN_WORDS = {
    "detections": "finding items",
    "candidates": "searching",
    "identifications": "identifying",
}


def build_gallery_job() -> dg.JobDefinition:
    """The job, as a process of its own rebuilds it."""
    return defs().resolve_job_def("build_gallery")


def identify_scans_job() -> dg.JobDefinition:
    """The job, as a process of its own rebuilds it."""
    return defs().resolve_job_def("identify_scans")


def add(
    settings: Settings,
    path: str,
    pictures: str,
    memory_mb: int,
    out: Console,
    err: Console,
    *,
    recompute: bool = False,
    build: bool = True,
) -> int:
    """Take in a gallery and make it searchable; returns the exit code."""
    source = find_gallery(path, pictures)
    home = begin(settings, memory_mb, err)
    images = ImageStore(url=settings.store_url)
    added, failed = Added(), ""
    with dg.DagsterInstance.get() as instance:
        with home.postgres.connect() as db:
            for added in add_gallery(db, images, source):
                if err.is_terminal:
                    say(err, f"quire: {added.items:,} items taken in")
            register_gallery_partitions(db, instance)
            registered = store.batches.keys(db, "gallery")
        if not added.items and not added.troubles:
            raise InputError(f"{path}: there is no item in it")
        if build:
            config = run_config(build_gallery_job, {}, recompute=recompute)
            failed = run_all(
                home, instance, build_gallery_job, added.batches, registered, config,
                _GALLERY_WORDS, err,
            ).failed  # fmt: skip
    with said_first(failed, err), home.postgres.connect() as db:
        contents = store.gallery_items.contents(db)
        troubles = [*added.troubles, *store.gallery_items.troubles(db, added.batches)]
    say(
        out,
        f"{added.items:,} items, {added.new_items:,} of them new; {added.new_images:,} new "
        "pictures",
    )
    say(out, f"The gallery holds {contents.items:,} items and {contents.templates:,} templates.")
    if not build:
        say(out, "Make them searchable with a backfill of the job build_gallery (quire ui).")
    return _end(failed, list(dict.fromkeys(troubles)), added.more_troubles, err)


def _end(failed: str, troubles: Sequence[str], more: int, err: Console) -> int:
    for trouble in troubles[:MOST_TROUBLES]:
        say(err, f"quire: {trouble}")
    left = len(troubles) - MOST_TROUBLES + more
    if left > 0:
        say(err, f"quire: and {left:,} more")
    if failed:
        say(err, f"quire: {FAILED_BECAUSE} {failed}")
        return FAILED
    if troubles:
        say(err, "quire: finished, but not everything could be looked at")
        return INCOMPLETE
    return 0


@dataclass(frozen=True)
class IdentifyOptions:
    """What the user asked ``quire identify`` for."""

    paths: Sequence[str]
    out: Path
    sets: Sequence[str] = ()
    languages: Sequence[str] = ()
    evaluation: bool = False
    memory_mb: int = 0
    recompute: bool = False
    as_json: bool = False


def identify(settings: Settings, options: IdentifyOptions, out: Console, err: Console) -> int:
    """Take in photographs, identify what is on them, write results; returns the exit code."""
    home = begin(settings, options.memory_mb, err)
    images = ImageStore(url=settings.store_url)
    paths = list(find_scans(options.paths))
    if not paths:
        raise InputError(f"no picture found in {', '.join(options.paths)}")
    received: list[ReceivedScan] = []
    with dg.DagsterInstance.get() as instance:
        with home.postgres.connect() as db:
            for path in paths:
                if isinstance(path, ReceivedScan):
                    received.append(path)
                    continue
                received.append(
                    receive_scan(
                        db, images, path,
                        sets=options.sets,
                        languages=options.languages,
                        evaluation=options.evaluation,
                    )
                )  # fmt: skip
            register_gallery_partitions(db, instance)
            registered = store.batches.keys(db, "scan")
        wanted = [each.scan.batch_key for each in received if each.scan is not None]
        config = run_config(identify_scans_job, {}, recompute=options.recompute)
        failed = run_all(
            home, instance, identify_scans_job, wanted, registered, config, _SCAN_WORDS, err
        ).failed
    refused = [each.reason for each in received if each.scan is None]
    with said_first(failed, err), home.postgres.connect() as db:
        ids = list(dict.fromkeys(each.scan.scan_id for each in received if each.scan is not None))
        results = gathered(db, ids, refused, failed)
        _write_results(db, images, results, options.out)
    if options.as_json:
        out.print_json(json.dumps(results.as_json()))
    else:
        _show(results, options.out, out)
    return _end(failed, results.troubles, 0, err)


@dataclass(frozen=True)
class Results:
    """What was identified on some photographs.

    Attributes:
        scans: The photographs, in order of arrival.
        found: Their detections, by photograph.
        names: Names of the items that are candidates.
        troubles: What did not end well.
        failed: Why the run failed; empty otherwise.
    """

    scans: list[Scan]
    found: dict[str, list[Found]]
    names: dict[str, str]
    troubles: list[str]
    failed: str

    @property
    def status(self) -> str:
        """``ok``, or ``degraded`` where anything was lost."""
        return "degraded" if self.failed or self.troubles else "ok"

    def as_json(self) -> dict[str, Any]:
        """As it is written to a file."""
        return {
            "status": self.status,
            "failed": self.failed,
            "troubles": self.troubles,
            "scans": [
                {
                    "scan": scan.name,
                    "scan_id": scan.scan_id,
                    "sets": list(scan.sets),
                    "languages": list(scan.languages),
                    "reason": scan.reason,
                    "items": [self._item(each) for each in self.found.get(scan.scan_id, [])],
                }
                for scan in self.scans
            ],
        }

    def _item(self, each: Found) -> dict[str, Any]:
        places = [round(value / each.scale, 2) for value in each.quad]
        quad = [places[2 * corner : 2 * corner + 2] for corner in range(4)]
        candidates = [
            {**candidate, "name": self.names.get(candidate["item_id"], "")}
            for candidate in each.candidates
        ]
        return {
            "number": each.ordinal,
            "detection_id": each.detection_id,
            "quad": quad,
            "detection_score": each.score,
            "how": each.how,
            "decision": each.decision or "not identified",
            "item_id": each.item_id,
            "name": self.names.get(each.item_id or "", ""),
            "score": each.probability,
            "turned": each.turned,
            "candidates": candidates,
            "reasons": each.reasons,
            "degraded": each.degraded or "",
        }


def gathered(db: Db, scan_ids: Sequence[str], refused: Sequence[str], failed: str) -> Results:
    """What is known of some photographs."""
    scans = store.scans.get(db, scan_ids)
    found: dict[str, list[Found]] = {}
    for each in store.detections.found(db, scan_ids):
        found.setdefault(each.scan_id, []).append(each)
    ids = {
        candidate["item_id"]
        for some in found.values()
        for one in some
        for candidate in one.candidates
    }
    names = {item.item_id: item.name for item in store.gallery_items.get(db, sorted(ids)).values()}
    troubles = [inert(reason) for reason in refused]
    known = {scan.scan_id: scan.name for scan in scans}
    for trouble in store.scans.troubles(db, scan_ids):
        troubles.append(_worded(known[trouble.scan_id], trouble))
    for scan in scans:
        open_ones = [each for each in found.get(scan.scan_id, []) if each.decision is None]
        if open_ones and not any(trouble.startswith(f"{scan.name}:") for trouble in troubles):
            troubles.append(f"{scan.name}: {len(open_ones)} items were not identified")
    return Results(scans, found, names, list(dict.fromkeys(troubles)), failed)


def _worded(name: str, trouble: ScanTrouble) -> str:
    reason = inert(trouble.reason)
    return reason if reason.startswith(f"{name}:") else f"{name}: {trouble.asset}: {reason}"


def _write_results(db: Db, images: ImageStore, results: Results, folder: Path) -> None:
    text = json.dumps(results.as_json(), indent=1) + "\n"
    with scratch.partial_file(folder, folder / IDENTIFIED) as file:
        file.write(text.encode())
    taken: set[str] = {IDENTIFIED}
    for scan in results.scans:
        pictures = store.scans.pictures(db, [scan.batch_key])
        if not pictures:
            continue
        marks = [
            Mark(
                np.asarray(each.quad, np.float32),
                f"{each.ordinal} {_label(each)}",
                each.decision or "",
            )
            for each in results.found.get(scan.scan_id, [])
        ]
        drawn = overlay(images.read_image(pictures[0].image_key), marks, OVERLAY_PX)
        name = f"{file_name(scan.name.rsplit('.', 1)[0])}.jpg"
        if name.casefold() in taken:
            name = f"{name[:-4]}-{scan.scan_id[:12]}.jpg"
        taken.add(name.casefold())
        with scratch.partial_file(folder, folder / name) as file:
            file.write(jpeg_of(drawn, OVERLAY_QUALITY))


def _label(each: Found) -> str:
    """What stands on an outline: the id, since look-alikes share a name."""
    if each.decision == Decision.UNKNOWN.value:
        return "unknown"
    if each.item_id is None:
        return "?"
    return f"{each.item_id}?" if each.decision == Decision.REVIEW.value else each.item_id


def why_nothing(results: Results, scan: Scan) -> str:
    """Why a photograph has no items: "none was found" is said only where it was looked at."""
    for trouble in results.troubles:
        if trouble.startswith(f"{scan.name}:"):
            return trouble
    unknown = "nothing is known of it, since the run failed"
    nothing = unknown if results.failed else "no item was found on it"
    return f"{scan.name}: {scan.reason or nothing}"


def _show(results: Results, folder: Path, out: Console) -> None:
    for scan in results.scans:
        found = results.found.get(scan.scan_id, [])
        if not found:
            say(out, why_nothing(results, scan))
            continue
        table = Table(show_edge=False, title=shown(scan.name), title_justify="left")
        for name in ("no.", "decision", "item", "probability", "id"):
            table.add_column(name, justify="right" if name in ("no.", "probability") else "left")
        for each in found:
            item = f"{each.item_id or ''} {results.names.get(each.item_id or '', '')}".strip()
            table.add_row(
                str(each.ordinal),
                each.decision or "not identified",
                shown(item),
                "" if each.probability is None else f"{each.probability:.2f}",
                each.detection_id[:10],
            )
        out.print(table)
        for each in found:
            reasons = [*each.reasons, each.degraded or ""]
            said = " ".join(dict.fromkeys(reason for reason in reasons if reason))
            if said and each.decision != Decision.ACCEPT.value:
                say(out, f"  {each.ordinal}: {said}")
        say(out, "")
    say(out, f"  {folder / IDENTIFIED}")
    say(out, "Set one right with: quire correct ID --is ITEM --user YOU (or --unknown)")


@dataclass(frozen=True)
class CorrectOptions:
    """What the user asked ``quire correct`` for."""

    detection: str
    item_id: str = ""
    unknown: bool = False
    revoke: int = 0
    user: str = ""
    curator: bool = False
    note: str = ""


def correct(settings: Settings, options: CorrectOptions, out: Console) -> int:
    """Add what somebody says of a detection; returns the exit code."""
    postgres = prepare(settings)
    with postgres.connect() as db:
        number = add_correction(
            db,
            options.detection,
            item_id=options.item_id or None,
            unknown=options.unknown,
            revokes=options.revoke or None,
            user=options.user,
            curator=options.curator,
            note=options.note,
        )
    say(out, f"correction {number} is kept")
    say(out, "The gallery learns from it with the next run: quire gallery learn")
    return 0


def add_correction(
    db: Db,
    detection_id: str = "",
    *,
    item_id: str | None = None,
    unknown: bool = False,
    revokes: int | None = None,
    user: str,
    curator: bool = False,
    note: str = "",
) -> int:
    """Add an event: what somebody says a detection is, or that an earlier word does not count.

    Args:
        db: A connection.
        detection_id: Which detection; its first digits are enough where they tell it.
        item_id: What it is.
        unknown: It is no item of the gallery.
        revokes: The event that is taken back, instead of the three above.
        user: Who says so.
        curator: Whether that person's word is enough.
        note: Anything to keep beside it.

    Returns:
        The event's number.

    Raises:
        InputError: No such detection, item or event; or not exactly one thing is said.
    """
    user, note, detection_id = legible(user).strip(), legible(note), legible(detection_id)
    if not person(user):
        raise InputError("say who corrects: --user NAME")
    if sum((item_id is not None, unknown, revokes is not None)) != 1:
        raise InputError("say one thing: --is ITEM, --unknown, or --revoke NUMBER")
    with db.transaction():
        if revokes is not None:
            earlier = store.corrections.get(db, revokes)
            if earlier is None or earlier.verdict == "revoke":
                raise InputError(f"there is no correction {revokes} that could be taken back")
            if not may_revoke(user, curator, earlier.user_name):
                raise InputError(
                    f"correction {revokes} is {earlier.user_name}'s, who can take it back; so can "
                    "a curator"
                )
            detection_id = earlier.detection_id
        found = store.detections.get(db, detection_id)
        if not found and revokes is not None:
            return _add_revoke(db, revokes, user, curator, note)
        if len(found) != 1 or not detection_id:
            many = "more than one begins so" if found else "there is none"
            raise InputError(f"no single detection is called {detection_id!r}: {many}")
        item_id = None if item_id is None else legible(item_id)
        if item_id is not None and item_id not in store.gallery_items.get(db, [item_id]):
            raise InputError(f"there is no item {item_id!r} in the gallery")
        if revokes is not None:
            return _add_revoke(db, revokes, user, curator, note)
        (detection,) = found
        return store.corrections.add(
            db,
            NewCorrection(
                verdict="is" if item_id is not None else "unknown",
                detection_id=detection.detection_id,
                scan_id=detection.scan_id,
                item_id=item_id,
                revokes=None,
                user_name=user,
                curator=curator,
                note=note,
                predicted_item=_first(detection),
                predicted_decision=detection.decision,
                predicted_score=detection.probability,
                crop_key=detection.crop_key,
                crop_sha256=detection.crop_sha256,
            ),
        )


def _first(detection: Found) -> str | None:
    """What the detection was taken for, or would have been."""
    return detection.candidates[0]["item_id"] if detection.candidates else None


def _add_revoke(db: Db, revokes: int, user: str, curator: bool, note: str) -> int:
    return store.corrections.revoke(db, revokes, user, curator, note)


def learn(settings: Settings, memory_mb: int, out: Console, err: Console) -> int:
    """Judge what people corrected and make templates of it; returns the exit code."""
    home = begin(settings, memory_mb, err)
    with dg.DagsterInstance.get() as instance:
        with home.postgres.connect() as db:
            register_gallery_partitions(db, instance)
            items = store.corrections.items(db)
            wanted = sorted(set(store.gallery_items.batches_of(db, items).values()))
            registered = store.batches.keys(db, "gallery")
        config = run_config(build_gallery_job, {})
        failed = run_all(
            home, instance, build_gallery_job, wanted, registered, config, _GALLERY_WORDS, err
        ).failed
    with said_first(failed, err), home.postgres.connect() as db:
        learned = store.corrections.learned(db)
    table = Table(show_edge=False)
    for name in ("correction", "item", "state", "why"):
        table.add_column(name)
    for each in learned:
        table.add_row(str(each.correction_id), shown(each.item_id), each.state, shown(each.reason))
    out.print(table)
    return _end(failed, [], 0, err)


def stats(settings: Settings, out: Console, *, as_json: bool) -> int:
    """What the gallery holds and how well it did; returns the exit code."""
    postgres = prepare(settings)
    with postgres.connect() as db:
        contents = store.gallery_items.contents(db)
        worst = store.confusion_pairs.worst(db, None, limit=10)
        days = store.gallery_quality.latest(db, 7)
        learned = store.corrections.learned(db)
        registered = store.batches.keys(db, "gallery")
        gallery = resources_of(settings)["gallery"]
        assert isinstance(gallery, GalleryTools)
        unfinished = store.batches.unfinished(db, "gallery", gallery_specs(gallery))
    states = {each.state: 0 for each in learned}
    for each in learned:
        states[each.state] += 1
    told = {
        "items": contents.items,
        "items_without_template": contents.without,
        "templates": contents.templates,
        "learned_templates": contents.learned,
        "pictures_unread": contents.unread,
        "sets": contents.sets,
        "languages": contents.languages,
        "oldest_template_days": round(contents.oldest_days, 2),
        "batches": len(registered),
        "batches_unfinished": len(unfinished),
        "corrections": states,
        "confusions": [vars(pair) for pair in worst],
        "days": [{"day": day, **measures} for day, measures in days],
    }
    if as_json:
        out.print_json(json.dumps(told))
        return 0
    table = Table(show_edge=False, show_header=False)
    for name, value in told.items():
        if not isinstance(value, list | dict):
            table.add_row(name.replace("_", " "), f"{value:,}")
    out.print(table)
    for pair in worst:
        say(
            out,
            f"{pair.item_a} and {pair.item_b}: similarity {pair.similarity:.2f}, corrected "
            f"{pair.corrections} times",
        )
    return 0
