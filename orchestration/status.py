"""Status: what ``quire status`` prints."""

from dataclasses import replace

from rich.console import Console
from rich.table import Table

import store.batches
import store.documents
import store.overview
from orchestration.budgets import share_of
from orchestration.definitions import resources_of
from orchestration.settings import Beside, Settings
from orchestration.specs import specs_in_force, text_encoder_troubles, text_specs_in_force
from orchestration.terminal import say
from resources.encoder import Encoder
from resources.postgres import Postgres
from resources.settings import CopySearch, Reading
from resources.text_encoder_resource import TextEncoderResource

MOST_TROUBLED = 20
"""Documents that are named, the latest first; the rest are counted."""


def show(settings: Settings, out: Console) -> None:
    """Print what is stored, what is missing, and what did not end well."""
    resources = resources_of(settings)
    postgres, copy_search = resources["postgres"], resources["copy_search"]
    encoder = resources["encoder"]
    assert isinstance(postgres, Postgres)
    assert isinstance(copy_search, CopySearch)
    reading, text_encoder = resources["reading"], resources["text_encoder"]
    assert isinstance(encoder, Encoder)
    assert isinstance(reading, Reading)
    assert isinstance(text_encoder, TextEncoderResource)
    with postgres.connect() as db:
        overview = store.overview.get(db)
        specs = specs_in_force(db, copy_search, encoder)
        of_text = text_specs_in_force(db, reading, text_encoder)
        unread = store.batches.unfinished(db, "page", of_text)
        without = text_encoder_troubles(db, text_encoder)
        unfinished = store.batches.unfinished(db, "page", specs)
        troubled = store.overview.troubled_documents(db, limit=MOST_TROUBLED)
    say(out, f"database  {postgres.described()}")
    say(out, f"store     {settings.store_url}")
    for line in _memory(settings):
        say(out, line)
    table = Table(show_edge=False, show_header=False)
    for name, value in vars(overview).items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    table.add_row("page batches missing or stale", f"{len(unfinished):,}")
    table.add_row("page batches not read", f"{len(unread):,}")
    out.print(table)
    if unfinished:
        say(
            out,
            "Make what is missing: quire run PATH again, or a backfill in the UI "
            "(the nightly schedule does it, too).",
        )
    if unread:
        say(out, "Read what is not read: quire read PATH, or the nightly schedule.")
    for trouble in without:
        say(out, trouble)
    for trouble in troubled:
        further = f" (and {trouble.reasons - 1} more)" if trouble.reasons > 1 else ""
        say(out, f"{trouble.name}: {trouble.reason}{further}")
    if troubled and troubled[0].documents > len(troubled):
        more = troubled[0].documents - len(troubled)
        say(out, f"and {more:,} more documents with something that did not end well")


def _memory(settings: Settings) -> list[str]:
    """How memory is shared out, for a run by itself and for one in the UI, which takes a part."""
    ways: tuple[tuple[str, Beside], ...] = (("quire run", "nothing"), ("quire ui", "ui"))
    said: dict[str, str] = {}
    for way, beside in ways:
        try:
            said[way] = str(share_of(replace(settings, beside=beside)))
        except ValueError as error:
            said[way] = str(error)
    if len(set(said.values())) == 1:
        return [f"memory    {next(iter(said.values()))}"]
    return [f"memory    {way}: {words}" for way, words in said.items()]
