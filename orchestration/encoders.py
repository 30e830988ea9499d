"""Changing the image encoder: prepare the next one beside the one that serves, compare, switch."""

from dataclasses import replace
from hashlib import sha256

import dagster as dg
import numpy as np
from rich.console import Console
from rich.table import Table

import store.encoders
import store.tile_embeddings
from assets.candidate_pairs import PANELS_PER_BLOCK
from assets.encoder_channel import embeddings_spec, encoder_in_force, waiting_encoder
from core.embedding_search import TileVectors
from core.encoders import EncoderSpec
from core.shadow import ShadowRecall, nearest_panels, shadow_recall
from orchestration.definitions import defs, resources_of
from orchestration.settings import Settings
from orchestration.side_by_side import (
    Both,
    Words,
    embed_everything,
    require_everything,
    require_vectors,
    show_states,
)
from orchestration.terminal import say
from resources.encoder import Encoder, NotConvertedError
from resources.postgres import Postgres
from resources.settings import CopySearch
from store.database import Db

NEAREST = 10
"""Panels that count as found, as in the candidate recall at 10 of copy-detection benchmarks."""

SAMPLED_PANELS = 200
"""Panels whose neighbours are compared."""

MOST_CONFIRMED = 500
"""Confirmed pairs that are asked for, the likeliest first."""

AT_A_TIME = 64
"""Panels asked for in one pass over everything stored."""

CONFIRMED_TIERS = ("A",)
"""Pairs that count as known copies."""

WORDS = Words("image encoder", "QUIRE_IMAGE_ENCODER", "panels")


def job() -> dg.JobDefinition:
    """The job that prepares the next encoder, as a process of its own rebuilds it."""
    return defs().resolve_job_def("prepare_encoder")


def show(settings: Settings, out: Console) -> None:
    """Print every encoder that is stored or configured, and what it is to copy search."""
    postgres, copy_search, encoder = _resources(settings)
    states: dict[str, str] = {}
    with postgres.connect() as db:
        tables = store.encoders.tables(db)
        counts = {name: store.encoders.vectors(db, table) for name, table in tables.items()}
        states |= dict.fromkeys(counts, "kept, not configured")
        try:
            serving = encoder_in_force(db, copy_search, encoder)
            if serving is not None:
                states[serving.encoder_id] = "serves"
            if serving is not None and waiting_encoder(db, copy_search, encoder) is not None:
                both = _both(db, copy_search, encoder)
                states[both.waiting.encoder_id] = WORDS.waits(both.missing)
        except NotConvertedError as error:
            say(out, str(error))
    show_states(WORDS, states, counts, out)


def prepare_next(settings: Settings, out: Console, err: Console) -> int:
    """Embed everything stored with the encoder that waits; what serves goes on serving.

    Returns:
        The exit code: 3 where panels could not be embedded, 1 where the run failed.
    """
    settings = replace(settings, beside="nothing")
    postgres, copy_search, encoder = _resources(settings)
    with postgres.connect() as db:
        if waiting_encoder(db, copy_search, encoder) is None:
            raise WORDS.no_second()

    def both(db: Db) -> Both[EncoderSpec]:
        return _both(db, copy_search, encoder)

    return embed_everything(WORDS, settings, job, both, out, err)


def compare(settings: Settings, out: Console) -> None:
    """Print the shadow recall: what the waiting encoder would find, beside the one that serves.

    Raises:
        InputError: No second encoder is configured, or it has embedded nothing yet.
    """
    postgres, copy_search, encoder = _resources(settings)
    with postgres.connect() as db:
        both = _both(db, copy_search, encoder)
        recall = _shadow(db, both)
    if both.missing:
        say(out, f"{both.missing} panels, which one of the two has not seen yet, are left out")
    table = Table(show_edge=False)
    for name in ("", both.serving.encoder_id, both.waiting.encoder_id):
        table.add_column(name)
    table.add_row(
        f"known copies among the {recall.count} nearest panels, of {recall.confirmed}",
        str(recall.serving_found),
        str(recall.next_found),
    )
    out.print(table)
    say(
        out,
        f"{recall.agreement:.1%} of the {recall.count} panels nearest to each of {recall.panels} "
        "are the same for both",
    )


def switch(settings: Settings, out: Console, *, force: bool) -> None:
    """Let the encoder that waits serve, and the one that served wait.

    Raises:
        InputError: It has not embedded everything, and ``force`` is not given.
    """
    postgres, copy_search, encoder = _resources(settings)
    with postgres.connect() as db:
        both = _both(db, copy_search, encoder)
        if not force:
            require_everything(WORDS, both)
        store.tile_embeddings.table_of(db, both.waiting.encoder_id, both.waiting.dim)
        store.encoders.switch_to(
            db, both.waiting.encoder_id, embeddings_spec(copy_search, both.waiting)
        )
    say(out, f"{both.waiting.encoder_id} serves; {both.serving.encoder_id} waits")
    say(
        out,
        "What was searched is to be searched with it: quire run PATH, a backfill or the nightly "
        "schedule does it, and reports say so until then. quire encoders switch goes back.",
    )


def _resources(settings: Settings) -> tuple[Postgres, CopySearch, Encoder]:
    made = resources_of(settings)
    postgres, copy_search, encoder = made["postgres"], made["copy_search"], made["encoder"]
    assert isinstance(postgres, Postgres)
    assert isinstance(copy_search, CopySearch)
    assert isinstance(encoder, Encoder)
    return postgres, copy_search, encoder


def _both(db: Db, copy_search: CopySearch, encoder: Encoder) -> Both[EncoderSpec]:
    """The encoder that serves and the one that waits.

    Raises:
        InputError: Only one is configured.
    """
    serving = encoder_in_force(db, copy_search, encoder)
    waiting = waiting_encoder(db, copy_search, encoder)
    if serving is None or waiting is None:
        raise WORDS.no_second()
    described = waiting.describe()
    missing = store.tile_embeddings.missing(
        db, "next_tile_embeddings", embeddings_spec(copy_search, described)
    )
    return Both(serving, described, missing)


def _shadow(db: Db, both: Both[EncoderSpec]) -> ShadowRecall:
    """Ask both for the nearest panels of known copies and of a sample, over what both have seen."""
    tables = store.encoders.tables(db)
    ids = [spec.encoder_id for spec in (both.serving, both.waiting)]
    panels = {
        name: set(store.encoders.embedded_panels(db, tables[name]))
        for name in ids
        if name in tables
    }
    require_vectors(both, panels)
    seen = set.intersection(*panels.values())
    confirmed = [
        pair
        for pair in store.encoders.confirmed_pairs(db, CONFIRMED_TIERS, MOST_CONFIRMED)
        if seen.issuperset(pair)
    ]
    sample = sorted(seen, key=lambda panel: sha256(panel.encode()).digest())[:SAMPLED_PANELS]
    asked = sorted({*sample, *(panel for pair in confirmed for panel in pair)})
    found = [_nearest(db, name, tables[name], asked, seen) for name in ids]
    return shadow_recall(found[0], found[1], confirmed, NEAREST)


def _nearest(
    db: Db, encoder_id: str, table: str, asked: list[str], seen: set[str]
) -> dict[str, list[str]]:
    """The nearest panels of each panel asked for, some panels and some blocks at a time."""

    def of(rows: store.tile_embeddings.Rows) -> TileVectors:
        kept = np.isin(rows.panel_ids, list(seen))
        return TileVectors(
            encoder_id, rows.panel_ids[kept], rows.ordinals[kept], rows.vectors[kept]
        )

    found: dict[str, list[str]] = {}
    for start in range(0, len(asked), AT_A_TIME):
        part = asked[start : start + AT_A_TIME]
        own = of(store.tile_embeddings.of_panels(db, table, part))
        blocks = store.tile_embeddings.stored_blocks(db, table, PANELS_PER_BLOCK)
        found |= nearest_panels(own, (of(rows) for rows in blocks), NEAREST)
    return found
