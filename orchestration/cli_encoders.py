"""``quire encoders``: which encoder serves, and changing it without a gap."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from orchestration.settings import Settings

Text = Annotated[
    bool, typer.Option("--text", help="Text encoders, which find passages, not image encoders.")
]


def make_app(load_settings: Callable[[], Settings]) -> typer.Typer:
    """The commands ``list``, ``prepare``, ``compare`` and ``switch``.

    Args:
        load_settings: Called by each command, so that making the app reads nothing.
    """
    app = typer.Typer(
        help="Encoders: prepare the next one beside the one that serves, compare, switch.",
        no_args_is_help=True,
    )

    @app.command(name="list")
    def list_them(text: Text = False) -> None:
        """Every encoder that is stored or configured, and whether it serves."""
        from orchestration import encoders, text_encoders

        (text_encoders if text else encoders).show(load_settings(), Console())

    @app.command()
    def prepare(text: Text = False) -> None:
        """Embed everything stored with the second encoder, while the first one serves."""
        from orchestration import encoders, text_encoders

        prepare_next = (text_encoders if text else encoders).prepare_next
        raise typer.Exit(prepare_next(load_settings(), Console(), Console(stderr=True)))

    @app.command()
    def compare(text: Text = False) -> None:
        """What the second encoder would find, beside what the one that serves does."""
        from orchestration import encoders, text_encoders

        (text_encoders if text else encoders).compare(load_settings(), Console())

    @app.command()
    def switch(
        force: Annotated[
            bool, typer.Option(help="Even if it has not embedded everything yet.")
        ] = False,
        text: Text = False,
    ) -> None:
        """Let the two change places at once; doing it again goes back."""
        from orchestration import encoders, text_encoders

        (text_encoders if text else encoders).switch(load_settings(), Console(), force=force)

    return app
