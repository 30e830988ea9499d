"""``quire search`` and ``quire serve``: answers on the terminal and over HTTP, without Dagster."""

import json
from collections.abc import Callable
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.search import Answer, Hit, Query, SearchUnavailableError
from core.text import inert
from core.text_encoders import REMOTE_QUERY
from orchestration.settings import Settings, use_few_arenas
from orchestration.terminal import say
from resources.database import Database
from resources.image_files import StoredFiles
from resources.remote_text_encoder import RemoteAccess
from resources.text_search import TextSearch, open_serving

FAILED = 1
INCOMPLETE = 3


def open_search(settings: Settings) -> TextSearch:
    """Search as the settings describe it; nothing is opened yet."""
    encoders = open_serving(
        settings.text_encoder,
        StoredFiles(settings.store_url),
        cores=settings.threads,
        remote=RemoteAccess(settings.remote_hosts, settings.text_api_key, REMOTE_QUERY),
    )
    return TextSearch(_database(settings), encoders)


def _database(settings: Settings) -> Database:
    return Database(database_url=settings.database_url, data_dir=str(settings.data_dir))


def search(
    settings: Settings, query: Query, out: Console, err: Console, *, as_json: bool = False
) -> int:
    """Print the answer to a query; returns the exit code: 3 where not everything was looked at."""
    searching = open_search(settings)
    try:
        answer = searching.search(query)
    except SearchUnavailableError as error:
        say(err, f"quire: {error}")
        return FAILED
    finally:
        searching.close()
    if as_json:
        out.file.write(json.dumps(asdict(answer), default=str, indent=1) + "\n")
    else:
        _show(answer, out)
    for loss in answer.degraded:
        say(err, f"quire: {loss}")
    return INCOMPLETE if answer.degraded else 0


def serve(settings: Settings, host: str, port: int, out: Console, told: Callable[[], None]) -> None:
    """Answer over HTTP until a signal ends it.

    Args:
        settings: The settings.
        host: The address to listen on.
        port: The port; 0: a free one.
        out: Where the address is said.
        told: Called once it is.

    Raises:
        ValueError: The address is open to others and there is no key, or the key is too short.
        OSError: The address cannot be listened on.
    """
    from web.app import create_app
    from web.limits import Access, Places
    from web.serve import listening_on, server_of

    use_few_arenas()
    access = Access(host, settings.serve_api_key)
    places = Places(settings.inbox, settings.store_url)
    app = create_app(open_search(settings), _database(settings), access, places)
    listener = listening_on(host, port)
    with listener:
        address = listener.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        how = "with the key in QUIRE_SERVE_API_KEY" if access.api_key else "from this machine alone"
        say(out, f"Quire answers at http://{shown}:{address[1]}, {how} (Ctrl-C ends it)")
        told()
        server_of(app, host, address[1]).run(sockets=[listener])


def _show(answer: Answer, out: Console) -> None:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("document")
    table.add_column("page", justify="right")
    table.add_column("passage", ratio=1)
    table.add_column("score", no_wrap=True)
    for hit in answer.hits:
        table.add_row(
            str(hit.rank), Text(inert(hit.document)), str(hit.page), _snippet(hit), _score(hit)
        )
    if answer.hits:
        out.print(table)
    if answer.reason:
        say(out, answer.reason)
    ran = [f"{c.name.value} ({c.method}, {c.found} found)" for c in answer.channels if c.ran]
    if ran:
        say(out, f"{' and '.join(ran)}; {answer.seconds * 1000:.0f} ms")


def _snippet(hit: Hit) -> Text:
    text = Text(hit.snippet.text)
    for start, end in hit.snippet.marks:
        text.stylize("bold", start, end)
    before = Text("" if hit.snippet.begins else "… ")
    return before + text + Text("" if hit.snippet.ends else " …")


def _score(hit: Hit) -> Text:
    """The sum, and per channel the place and what it measured there."""
    parts = [f"{part.channel.value} #{part.rank} ({part.score:.2f})" for part in hit.parts]
    return Text("\n".join([f"{hit.score:.4f}", *parts]))
