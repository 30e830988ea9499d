"""Status: what ``quire status`` prints."""

from rich.console import Console
from rich.table import Table

import store.documents
import store.overview
import store.page_batches
from orchestration.definitions import resources_of
from orchestration.settings import Settings
from orchestration.specs import specs_in_force
from orchestration.terminal import say
from resources.encoder import Encoder
from resources.postgres import Postgres
from resources.settings import CopySearch


def show(settings: Settings, out: Console) -> None:
    """Print what is stored, what is missing, and what did not end well."""
    resources = resources_of(settings)
    postgres, copy_search = resources["postgres"], resources["copy_search"]
    encoder = resources["encoder"]
    assert isinstance(postgres, Postgres)
    assert isinstance(copy_search, CopySearch)
    assert isinstance(encoder, Encoder)
    with postgres.connect() as db:
        overview = store.overview.get(db)
        unfinished = store.page_batches.unfinished(db, specs_in_force(db, copy_search, encoder))
        troubled = store.overview.troubled_documents(db, limit=20)
    say(out, f"database  {postgres.described()}")
    say(out, f"store     {settings.store_url}")
    table = Table(show_edge=False, show_header=False)
    for name, value in vars(overview).items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    table.add_row("page batches missing or stale", f"{len(unfinished):,}")
    out.print(table)
    if unfinished:
        say(
            out,
            "Make what is missing: quire run PATH again, or a backfill in the UI "
            "(the nightly schedule does it, too).",
        )
    for trouble in troubled:
        say(out, f"{trouble.name}: {trouble.reason}")
