"""Changing the text encoder: prepare the next one beside the one that serves, compare, switch."""

from collections.abc import Sequence
from dataclasses import replace

import dagster as dg
import numpy as np
from rich.console import Console

import store.chunk_embeddings
import store.chunks
import store.search
from assets.text_channel import chunk_embeddings_spec, serving_text_encoder, waiting_text_encoder
from core.encoders import EncoderError, Vectors
from core.errors import InputError
from core.search import NO_FILTERS
from core.shadow import shared_neighbours
from core.text_encoders import TextEncoderSpec
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
from resources.postgres import Postgres
from resources.text_encoder_resource import TextEncoderResource
from store.chunk_embeddings import SeenByTwo
from store.database import Db

NEAREST = 10
"""Pages whose order is compared: as many hits as a search shows unless told otherwise."""

SAMPLED_PASSAGES = 200
"""Passages whose neighbours are compared."""

LOOKED_AT = 100
"""Passages among which the nearest pages are sought: a page has some five, and those of the page
that is asked for are the nearest of all."""

WORDS = Words("text encoder", "QUIRE_TEXT_ENCODER", "pages", " --text")


def job() -> dg.JobDefinition:
    """The job that prepares the next encoder, as a process of its own rebuilds it."""
    return defs().resolve_job_def("prepare_text_encoder")


def show(settings: Settings, out: Console) -> None:
    """Print every text encoder that is stored or configured, and what it is to searches."""
    postgres, text_encoder = _resources(settings)
    with postgres.connect() as db:
        tables = store.chunk_embeddings.tables(db)
        counts = {name: store.chunk_embeddings.vectors(db, table) for name, table in tables.items()}
        states = dict.fromkeys(counts, "kept, not configured")
        serving = serving_text_encoder(db, text_encoder)
        for one in text_encoder.each():
            serves = one.spec == serving.spec
            try:
                name = one.describe().encoder_id
            except EncoderError as error:
                say(out, str(error))
                states[one.spec] = f"{'serves' if serves else 'waits'}, not to be had"
            else:
                left = 0 if serves else store.chunk_embeddings.missing(db, name)
                states[name] = "serves" if serves else WORDS.waits(left)
    show_states(WORDS, states, counts, out)


def prepare_next(settings: Settings, out: Console, err: Console) -> int:
    """Divide and embed everything read for the encoder that waits; what serves goes on serving.

    Returns:
        The exit code: 3 where pages could not be embedded, 1 where the run failed.
    """
    settings = replace(settings, beside="nothing")
    postgres, text_encoder = _resources(settings)
    with postgres.connect() as db:
        if waiting_text_encoder(db, text_encoder) is None:
            raise WORDS.no_second()

    def both(db: Db) -> Both[TextEncoderSpec]:
        return _both(db, text_encoder)

    return embed_everything(WORDS, settings, job, both, out, err)


def compare(settings: Settings, out: Console) -> None:
    """Print how many of the nearest pages the two name in common, asked by stored passages.

    By page, since the two may divide pages otherwise. Everything is compared, whatever index
    there is, and nothing is encoded.

    Raises:
        InputError: No second encoder is configured, or it has embedded nothing yet.
    """
    postgres, text_encoder = _resources(settings)
    with postgres.connect() as db:
        both = _both(db, text_encoder)
        tables = store.chunk_embeddings.tables(db)
        counts = {name: store.chunk_embeddings.vectors(db, table) for name, table in tables.items()}
        require_vectors(both, counts)
        first, second = (tables[spec.encoder_id] for spec in (both.serving, both.waiting))
        asked = store.chunk_embeddings.seen_by_two(db, first, second, SAMPLED_PASSAGES)
        if len({passage.unit for passage in asked}) < 2:
            raise InputError("both have embedded less than two pages in common: nothing to compare")
        serving = {
            passage.chunk_id: _nearest(db, first, both.serving, passage, passage.first)
            for passage in asked
        }
        waiting = {
            passage.chunk_id: _nearest(db, second, both.waiting, passage, passage.second)
            for passage in asked
        }
    shares = shared_neighbours(serving, waiting, NEAREST)
    if both.missing:
        say(
            out,
            f"{both.missing} pages, which {both.waiting.encoder_id} has not embedded, count "
            "against it",
        )
    say(
        out,
        f"{np.mean(shares):.1%} of the {NEAREST} pages nearest to each of {len(shares)} passages "
        f"are the same for {both.serving.encoder_id}, which serves, and {both.waiting.encoder_id}",
    )


def switch(settings: Settings, out: Console, *, force: bool) -> None:
    """Let the encoder that waits serve, and the one that served wait.

    Raises:
        InputError: It has not embedded everything, and ``force`` is not given.
    """
    postgres, text_encoder = _resources(settings)
    with postgres.connect() as db:
        both = _both(db, text_encoder)
        if not force:
            require_everything(WORDS, both)
        waiting = both.waiting
        store.chunk_embeddings.table_of(db, waiting.encoder_id, waiting.dim, waiting.chunk_set)
        store.chunk_embeddings.switch_to(db, waiting.encoder_id, chunk_embeddings_spec(waiting))
    say(out, f"{waiting.encoder_id} serves; {both.serving.encoder_id} waits")
    say(out, f"The next search uses it, quire serve included. {WORDS.command('switch')} goes back.")


def _resources(settings: Settings) -> tuple[Postgres, TextEncoderResource]:
    made = resources_of(settings)
    postgres, text_encoder = made["postgres"], made["text_encoder"]
    assert isinstance(postgres, Postgres)
    assert isinstance(text_encoder, TextEncoderResource)
    return postgres, text_encoder


def _both(db: Db, text_encoder: TextEncoderResource) -> Both[TextEncoderSpec]:
    """The encoder that serves and the one that waits.

    Raises:
        InputError: Only one is configured.
    """
    waiting = waiting_text_encoder(db, text_encoder)
    if waiting is None:
        raise WORDS.no_second()
    serving, described = serving_text_encoder(db, text_encoder).describe(), waiting.describe()
    return Both(serving, described, store.chunk_embeddings.missing(db, described.encoder_id))


def _nearest(
    db: Db, table: str, spec: TextEncoderSpec, asked: SeenByTwo, vector: Vectors
) -> Sequence[str]:
    """The pages nearest to a passage by the closest of their passages, its own page apart."""
    found = store.search.nearest_exact(db, table, spec.chunk_set, vector, NO_FILTERS, LOOKED_AT)
    units = store.chunks.units(db, [passage.chunk_id for passage in found])
    pages = dict.fromkeys(units[each.chunk_id] for each in found if each.chunk_id in units)
    return [page for page in pages if page != asked.unit][:NEAREST]
