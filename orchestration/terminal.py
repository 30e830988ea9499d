"""The terminal: lines for people, in which nothing from outside acts and no secret is shown."""

import sys
import traceback
from types import TracebackType

from rich.console import Console
from rich.text import Text

from core.text import visible, without_secrets


def shown(text: str) -> Text:
    """The text as it may appear on a terminal or in a table of Rich: no control, markup, emoji."""
    return Text(visible(without_secrets(text)))


def say(console: Console, text: str) -> None:
    """Print one line, however long: what reads the output sees as many lines as were said."""
    console.print(shown(text), soft_wrap=True, highlight=False)


def quiet_tracebacks() -> None:
    """Have tracebacks printed line by line through ``say``: errors quote texts from outside."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        console = Console(stderr=True)
        for part in traceback.format_exception(kind, error, trace):
            for line in part.rstrip("\n").split("\n"):
                say(console, line)

    sys.excepthook = hook
