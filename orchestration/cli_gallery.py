"""``quire gallery``: what is known, and how well it does."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from orchestration.settings import Settings

MEMORY = typer.Option(
    help="Memory of everything together, database included, in MB; 0: the container's own limit, "
    "if there is one."
)


def make_app(settings: Callable[[], Settings]) -> typer.Typer:
    """The commands; the settings are read when one of them runs."""
    app = typer.Typer(help="The known items that photographs are compared with.")

    @app.command()
    def add(
        path: Annotated[
            str,
            typer.Argument(
                help="A manifest (.csv, .jsonl, .json) or its folder; a folder without one: every "
                "picture is an item."
            ),
        ],
        images: Annotated[
            str, typer.Option(help="Folder or URL with the pictures, if not the manifest's.")
        ] = "",
        memory_mb: Annotated[int, MEMORY] = 0,
        only_register: Annotated[
            bool, typer.Option(help="Take in, and leave the making to a backfill.")
        ] = False,
        recompute: Annotated[bool, typer.Option(help="Make everything anew.")] = False,
    ) -> None:
        """Take in known items, and make them searchable.

        Exit code 3 when something could not be taken in, 1 when the run failed.
        """
        from orchestration.gallery import add as run

        code = run(
            settings(), path, images, memory_mb, Console(), Console(stderr=True),
            recompute=recompute, build=not only_register,
        )  # fmt: skip
        raise typer.Exit(code)

    @app.command()
    def learn(memory_mb: Annotated[int, MEMORY] = 0) -> None:
        """Judge what people corrected; crops on which enough agree become templates."""
        from orchestration.gallery import learn as run

        raise typer.Exit(run(settings(), memory_mb, Console(), Console(stderr=True)))

    @app.command()
    def stats(
        json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
    ) -> None:
        """What the gallery holds, what looks alike, and how well it did on the last days."""
        from orchestration.gallery import stats as run

        raise typer.Exit(run(settings(), Console(), as_json=json))

    return app
