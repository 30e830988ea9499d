"""The command line: the same jobs as in the Dagster UI, headless."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.errors import InputError
from orchestration.settings import (
    Settings,
    calm_allocator,
    from_environment,
    keep_temporary_files_in,
)
from orchestration.terminal import quiet_tracebacks, say

app = typer.Typer(
    help="Find figure panels that were reused inside and across scientific papers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

FAILED = 1
"""A run failed, or a service that is needed is not there."""


class StopError(Exception):
    """Ends the command with one line and an exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


@app.command()
def run(
    paths: Annotated[list[str], typer.Argument(help="PDF files, folders, or URLs of a store.")],
    out: Annotated[Path, typer.Option(help="Where pairs.tsv, pairs.json, report.html go.")] = Path(
        "out"
    ),
    memory_mb: Annotated[
        int,
        typer.Option(
            help="Memory of everything together, database included, in MB; 0: the container's own "
            "limit, if there is one."
        ),
    ] = 0,
    preset: Annotated[str, typer.Option(help="fast, balanced or thorough.")] = "",
    dpi: Annotated[float, typer.Option(help="Resolution of pages, 72-300; 0: the preset's.")] = 0,
    tile_size: Annotated[
        int, typer.Option(help="Fixed tile side in pixels; 0: relative to the panel.")
    ] = 0,
    tile_stride: Annotated[
        float, typer.Option(help="Step between tiles as a share of their side; 0: the preset's.")
    ] = 0,
    tile_first: Annotated[
        str, typer.Option(help="Encoder channel over tiles: auto, on or off.")
    ] = "auto",
    recompute: Annotated[bool, typer.Option(help="Do everything anew.")] = False,
) -> None:
    """Take in documents, search them for reused panels, and write the reports.

    Exit code 0 with or without pairs, 3 when something could not be looked at (the report says
    what), 1 when the run failed.
    """
    from orchestration.headless import Options, run_paths

    options = Options(
        paths=paths,
        out=out,
        memory_mb=memory_mb,
        preset=preset,
        dpi=dpi,
        tile_px=tile_size,
        tile_stride=tile_stride,
        tile_first=tile_first,
        recompute=recompute,
    )
    raise typer.Exit(run_paths(_settings(), options, Console(), Console(stderr=True)))


@app.command()
def read(
    paths: Annotated[list[str], typer.Argument(help="PDF files, folders, or URLs of a store.")],
    out: Annotated[Path, typer.Option(help="Where the texts and pages.json go.")] = Path("out"),
    languages: Annotated[
        str, typer.Option(help="What pages are written in, like eng+deu; empty: the settings'.")
    ] = "",
    memory_mb: Annotated[
        int,
        typer.Option(
            help="Memory of everything together, database included, in MB; 0: the container's own "
            "limit, if there is one."
        ),
    ] = 0,
    recompute: Annotated[bool, typer.Option(help="Read everything anew.")] = False,
) -> None:
    """Take in documents, read them, and write what they say; then they can be searched.

    Exit code 0 when every page was read, 3 when something could not be (pages.json says what),
    1 when the run failed.
    """
    from orchestration.reading import ReadOptions, read_paths

    options = ReadOptions(paths, out, languages, memory_mb, recompute)
    raise typer.Exit(read_paths(_settings(), options, Console(), Console(stderr=True)))


@app.command()
def search(
    query: Annotated[
        str, typer.Argument(help='Words; "in quotes" for a phrase, -word for without, or.')
    ],
    top_k: Annotated[int, typer.Option(help="How many passages.")] = 10,
    document: Annotated[
        list[str] | None, typer.Option(help="Id or name of a document; may be repeated.")
    ] = None,
    pages: Annotated[str, typer.Option(help="5, 3-7, 3- or -7.")] = "",
    language: Annotated[
        list[str] | None, typer.Option(help="Three letters, like eng; may be repeated.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="text_layer, ocr or hybrid; may be repeated.")
    ] = None,
    since: Annotated[str, typer.Option(help="Received on this day or later: 2026-01-31.")] = "",
    until: Annotated[str, typer.Option(help="Received on this day or earlier.")] = "",
    json: Annotated[bool, typer.Option("--json", help="The whole answer as JSON.")] = False,
) -> None:
    """Find passages by meaning and by words in everything that was read.

    Exit code 0 for a whole answer, 3 when something was not looked at (it says what), 1 when
    nothing could be searched.
    """
    from core.search import parse_query
    from orchestration.search import search as answer

    asked = parse_query(
        query,
        top_k=top_k,
        documents=document or (),
        pages=pages,
        languages=language or (),
        kinds=kind or (),
        since=since,
        until=until,
    )
    code = answer(_settings(), asked, Console(), Console(stderr=True), as_json=json)
    raise typer.Exit(code)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine it takes a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: a free one.")] = 8000,
) -> None:
    """Answer searches over HTTP, take uploads, show pages; the key is QUIRE_SERVE_API_KEY."""
    from orchestration.search import serve as answer

    answer(_settings(), host, port, Console(), sys.stdout.flush)


@app.command()
def identify(
    scans: Annotated[list[str], typer.Argument(help="Photographs, folders, or URLs of a store.")],
    out: Annotated[
        Path, typer.Option(help="Where identifications.json and the overlays go.")
    ] = Path("out"),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Only items of this set; may be repeated.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Only items in this language; may be repeated.")
    ] = None,
    evaluation: Annotated[
        bool, typer.Option(help="Keep the photographs aside to measure with; nothing is learned.")
    ] = False,
    memory_mb: Annotated[
        int,
        typer.Option(
            help="Memory of everything together, database included, in MB; 0: the container's own "
            "limit, if there is one."
        ),
    ] = 0,
    recompute: Annotated[bool, typer.Option(help="Identify everything anew.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The whole result as JSON.")] = False,
) -> None:
    """Tell which known item each card, or whatever the gallery holds, on a photograph is.

    Exit code 0 when everything was identified or found unknown, 3 when something could not be
    looked at (the result says what), 1 when the run failed.
    """
    from orchestration.gallery import IdentifyOptions
    from orchestration.gallery import identify as answer

    options = IdentifyOptions(
        scans, out, set_ or (), language or (), evaluation, memory_mb, recompute, json
    )
    raise typer.Exit(answer(_settings(), options, Console(), Console(stderr=True)))


@app.command()
def correct(
    detection: Annotated[
        str, typer.Argument(help="Id of a detection, as identify shows it; its beginning will do.")
    ] = "",
    is_: Annotated[str, typer.Option("--is", help="Id of the item that it is.")] = "",
    unknown: Annotated[bool, typer.Option(help="It is no item of the gallery.")] = False,
    revoke: Annotated[int, typer.Option(help="Number of a correction to take back.")] = 0,
    user: Annotated[str, typer.Option(help="Who says so.")] = "",
    curator: Annotated[bool, typer.Option(help="This person's word is enough.")] = False,
    note: Annotated[str, typer.Option(help="Anything to keep beside it.")] = "",
) -> None:
    """Say what a detection is; two people who agree, or a curator, teach the gallery."""
    from orchestration.gallery import CorrectOptions
    from orchestration.gallery import correct as answer

    options = CorrectOptions(detection, is_, unknown, revoke, user, curator, note)
    raise typer.Exit(answer(_settings(), options, Console()))


@app.command()
def status() -> None:
    """What is stored, what is missing, and what did not end well."""
    from orchestration.status import show

    show(_settings(), Console())


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 3000,
) -> None:
    """Open the Dagster UI with its daemon: runs, backfills, lineage, sensors and schedules."""
    from orchestration.budgets import share_of
    from orchestration.headless import prepare
    from resources import scratch

    settings = replace(_settings(), beside="ui")
    share = share_of(settings)
    prepare(settings)
    settings.inbox.mkdir(parents=True, exist_ok=True)
    folder, handle = scratch.claimed_folder()
    os.set_inheritable(handle, True)  # the lock on it ends with the UI, not with this program
    keep_temporary_files_in(folder)
    out = Console()
    say(out, f"Dagster UI: http://{host}:{port}  (Ctrl-C ends it)")
    say(out, f"memory: {share}")
    sys.stdout.flush()
    services = [sys.executable, "-m", "orchestration.services", host, str(port), str(folder)]
    os.execv(sys.executable, services)


def _settings() -> Settings:
    try:
        return from_environment()
    except ValueError as error:
        raise StopError(str(error), code=2) from error


def main() -> None:
    """Entry point: errors that a user can mend end in one line."""
    quiet_tracebacks()
    calm_allocator()
    from core.encoders import EncoderError
    from orchestration.cli_db import DbSettings, make_app
    from orchestration.cli_encoders import make_app as make_encoders_app
    from orchestration.cli_gallery import make_app as make_gallery_app
    from resources.database import DatabaseUnavailableError, what_the_database_said

    def database() -> DbSettings:
        settings = _settings()
        return DbSettings(settings.data_dir, settings.database_url)

    app.add_typer(make_app(database), name="db")
    app.add_typer(make_encoders_app(_settings), name="encoders")
    app.add_typer(make_gallery_app(_settings), name="gallery")
    try:
        app()
    except StopError as stop:
        _complain(str(stop))
        sys.exit(stop.code)
    except (InputError, ValueError) as error:
        _complain(str(error))
        sys.exit(2)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _complain(f"{(error.strerror or str(error)).lower()}{where}; what was committed is kept")
        sys.exit(FAILED)
    except (DatabaseUnavailableError, EncoderError) as error:
        _complain(str(error))
        sys.exit(FAILED)
    except Exception as error:
        reason = what_the_database_said(error)
        if not reason:
            raise
        where = database().postgres().described()
        _complain(f"the database ({where}): {reason}; what was committed is kept")
        sys.exit(FAILED)


def _complain(message: str) -> None:
    say(Console(stderr=True), f"quire: {message}")


if __name__ == "__main__":
    main()
