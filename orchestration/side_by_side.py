"""Two encoders side by side, of images or of texts: what changing from one to the other shares."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import dagster as dg
from rich.console import Console
from rich.table import Table

import store.page_batches
from core.errors import InputError
from orchestration.budgets import share_of
from orchestration.headless import (
    FAILED,
    FAILED_BECAUSE,
    INCOMPLETE,
    QUIET,
    close_killed_runs,
    execute,
    first_failure,
    prepare,
)
from orchestration.requests import chunks
from orchestration.settings import Settings
from orchestration.terminal import say, shown
from store.database import Db


class Described(Protocol):
    """What an encoder is, whatever it encodes."""

    @property
    def encoder_id(self) -> str:
        """Names it, and everything that its vectors depend on."""
        ...


Spec = TypeVar("Spec", bound=Described, covariant=True)


@dataclass(frozen=True)
class Both(Generic[Spec]):
    """The two encoders between which one switches.

    Attributes:
        serving: What is searched with.
        waiting: The other one.
        missing: How much the waiting one has not embedded, or failed to.
    """

    serving: Spec
    waiting: Spec
    missing: int


@dataclass(frozen=True)
class Words:
    """How encoders of one kind are spoken of.

    Attributes:
        encoder: One of them.
        setting: The variable that names them.
        items: What they embed.
        option: What the commands take for them.
    """

    encoder: str
    setting: str
    items: str
    option: str = ""

    def no_second(self) -> InputError:
        """Only one is configured, so there is nothing to prepare, to compare or to switch to."""
        return InputError(
            f"there is no second {self.encoder}: name both in {self.setting}, with a blank between "
            "them, the one that serves first"
        )

    def waits(self, missing: int) -> str:
        """The state of the one that waits."""
        return f"waits, {missing} {self.items} to go" if missing else "waits, complete"

    def command(self, name: str) -> str:
        """One of the commands, as it is typed."""
        return f"quire encoders {name}{self.option}"


def show_states(
    words: Words, states: Mapping[str, str], vectors: Mapping[str, int], out: Console
) -> None:
    """Print each encoder with its state and how many vectors of it are stored."""
    if not states:
        say(out, f"no {words.encoder} is configured or stored; {words.setting} names one")
        return
    table = Table(show_edge=False)
    for name in ("encoder", "state", "vectors"):
        table.add_column(name, justify="right" if name == "vectors" else "left")
    for encoder_id, state in states.items():
        table.add_row(shown(encoder_id), state, f"{vectors.get(encoder_id, 0):,}")
    out.print(table)


def embed_everything(
    words: Words,
    settings: Settings,
    job: Callable[[], dg.JobDefinition],
    both: Callable[[Db], Both[Described]],
    out: Console,
    err: Console,
) -> int:
    """Run the job that prepares the next encoder over everything stored.

    Args:
        words: How its kind is spoken of.
        settings: The settings, for a run with nothing beside it.
        job: Makes the job; at the top of a module, so that processes of ops can call it, too.
        both: The two encoders, asked for once the job is done.
        out: For how it ended.
        err: For what went wrong.

    Returns:
        The exit code: 3 where something could not be embedded, 1 where the run failed.
    """
    share = share_of(settings)
    postgres = prepare(settings)
    with postgres.connect() as db:
        keys = store.page_batches.keys(db)
    failed = ""
    with dg.DagsterInstance.get() as instance:
        close_killed_runs(instance)
        for part in chunks([keys] if keys else []):
            result = execute(job, instance, part, share, QUIET)
            if not result.success:
                failed = failed or first_failure(result)
    if failed:
        say(err, f"quire: {FAILED_BECAUSE} {failed}")
        return FAILED
    with postgres.connect() as db:
        found = both(db)
    name = found.waiting.encoder_id
    if found.missing:
        say(err, f"quire: {name} could not embed {found.missing} {words.items}")
        return INCOMPLETE
    say(out, f"{name} has embedded everything: compare it, or switch to it")
    return 0


def require_everything(words: Words, both: Both[Described]) -> None:
    """Refuse to switch to an encoder that has not embedded everything.

    Raises:
        InputError: It has not; the message says how much is missing, and what to do.
    """
    if both.missing:
        raise InputError(
            f"{both.waiting.encoder_id} has not embedded {both.missing} {words.items}: "
            f"{words.command('prepare')} does it; {words.command('switch')} --force leaves it to "
            "the next run"
        )


def require_vectors(both: Both[Described], stored: Mapping[str, object]) -> None:
    """Refuse to compare what has not been used.

    Args:
        both: The two encoders.
        stored: By encoder, what is empty where it has no vectors.

    Raises:
        InputError: One of the two has no vectors.
    """
    ids = [spec.encoder_id for spec in (both.serving, both.waiting)]
    unused = [name for name in ids if not stored.get(name)]
    if unused:
        raise InputError(f"nothing has been embedded yet with {' and '.join(unused)}")
