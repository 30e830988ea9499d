"""How much the service takes on, each number with its reason."""

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """What a request may ask for."""

    body_bytes: int = 64 << 10
    """Of a request that is no upload: a query of 1,000 letters and 200 names take 60 kB."""

    discarded_bytes: int = 1 << 20
    discarding_s: float = 2.0
    """Of a body that is refused; beyond either the connection is closed on whoever still sends."""

    upload_bytes: int = 1 << 30
    """Of one file, as ingest has it."""

    upload_silence_s: float = 30.0
    """An upload that sends nothing for so long is ended."""

    upload_s: float = 1_800.0
    """A gigabyte at 5 megabits a second takes half an hour."""

    uploads: int = 4
    """At the same time; more only share the same line."""

    upload_retry_s: int = 10
    """When one that found no place may try again: a paper of some MB is through by then."""

    free_bytes: int = 1 << 30
    """Left on the disk that uploads go to; below it none is taken and the service is not healthy:
    the database on the same disk needs room to go on."""

    threads: int = 8
    """Requests that are worked on at the same time; the others wait."""

    requests: int = 64
    """Taken on at the same time, with those that wait for a thread; further ones are answered with
    503. A search takes some hundredths of a second, so the last of them waits for less than one."""

    least_dpi: int = 30
    dpi: int = 100
    most_dpi: int = 150
    """A letter page at 100 dpi has 850 x 1,100 pixels, as wide as it is read on a screen; at 150
    its rendering holds 6 MB."""

    boxes: int = 100
    """Highlighted on one picture."""

    pictures: int = 2
    """Rendered at the same time, each by a PDF worker of its own of some 80 MB."""

    worker_mb: int = 250
    worker_s: float = 20.0
    """Of one PDF worker. Ordinary pages take 80 MB and a tenth of a second."""

    cache_bytes: int = 8 << 20
    """Rendered pictures that are kept; one has some 200 kB."""

    listed: int = 200
    """Documents in one answer."""

    key_letters: int = 16
    """Of an API key at least; shorter ones are guessed."""


LIMITS = Limits()


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        host: The address that the service listens on.
        api_key: What every request has to bring; empty on a loopback address alone.
    """

    host: str = "127.0.0.1"
    api_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.api_key and len(self.api_key) < LIMITS.key_letters:
            raise ValueError(
                f"QUIRE_SERVE_API_KEY has less than {LIMITS.key_letters} letters; make one with "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if not self.api_key and not is_loopback(self.host):
            raise ValueError(
                f"set QUIRE_SERVE_API_KEY to listen on {self.host}: without a key the service "
                "listens on this machine alone (127.0.0.1)"
            )


@dataclass(frozen=True)
class Places:
    """Where the service finds and puts files.

    Attributes:
        inbox: The folder that uploads are dropped into.
        store_url: The image store, with the files of documents.
    """

    inbox: Path
    store_url: str


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
