"""Settings: the only reader of the environment."""

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, get_args

from core.encoders import OWN, each_encoder
from core.text import NO_CREDENTIALS, holds_credentials
from core.text_encoders import each_text_encoder
from resources import scratch

_DAGSTER_YAML = """\
# Written by Quire; delete the file to have it written anew.
storage:
  custom:
    module: orchestration.dagster_storage
    class: PatientStorage
    config:
      postgres_url:
        env: QUIRE_DAGSTER_STORAGE_URL
run_launcher:
  module: orchestration.launcher
  class: WatchedRunLauncher
concurrency:
  runs:
    max_concurrent_runs: 1
run_monitoring:
  enabled: true
  start_timeout_seconds: 300
  cancel_timeout_seconds: 60
  poll_interval_seconds: 20
python_logs:
  python_log_level: INFO
telemetry:
  enabled: false
nux:
  enabled: false
retention:
  schedule:
    purge_after_days: 90
  sensor:
    purge_after_days:
      skipped: 7
      failure: 30
      success: -1
"""

Choice = TypeVar("Choice", bound=str)

EXECUTORS = ("processes", "pods")
"""Where ops work; the first unless told otherwise."""

Beside = Literal["code_server", "nothing", "ui"]
"""What shares the memory with a run: the server that starts it, nothing, or all of ``quire ui``."""


@dataclass(frozen=True)
class Settings:
    """Where things are and how large they may be.

    Attributes:
        home: ``QUIRE_HOME``: the embedded database, stored files, Dagster's own directory.
        database_url: ``QUIRE_DATABASE_URL``: a Postgres of your own; empty: the embedded one.
        store_url: ``QUIRE_STORE_URL``: where files and pixels go; by default below ``home``.
        inbox: ``QUIRE_INBOX``: the folder that the inbox sensor watches; by default below ``home``.
        image_encoder: ``QUIRE_IMAGE_ENCODER``: the encoder channel's model, by default the one that
            comes with Quire; ``none``, which is empty here: no such channel. Two with a blank
            between them while one takes the other's place.
        scans: ``QUIRE_SCANS``: the folder of photographs that the scans sensor watches; by default
            below ``home``.
        gallery_encoder: ``QUIRE_GALLERY_ENCODER``: what items of the gallery are recalled by:
            ``descriptor``, which needs no weights, or an image encoder as above.
        detector: ``QUIRE_DETECTOR``: ``path/to/model.onnx#sha256=...``, what finds items on
            photographs; empty: the detector that needs no model.
        languages: ``QUIRE_LANGUAGES``: what pages are written in, as tesseract names languages,
            joined by a plus sign (``eng+deu``).
        text_encoder: ``QUIRE_TEXT_ENCODER``: what passages are found by; by default the one that
            comes with Quire. Two, likewise.
        remote_hosts: ``QUIRE_REMOTE_HOSTS``: hosts that texts may be sent to; empty: none.
        text_api_key: ``QUIRE_TEXT_API_KEY``: key of the service that encodes texts, if one does.
        serve_api_key: ``QUIRE_SERVE_API_KEY``: what clients of ``quire serve`` have to bring.
        preset: ``QUIRE_PRESET``: fast, balanced or thorough.
        memory_mb: ``QUIRE_MEMORY_MB``: memory of everything together, database included; 0: the
            container's own limit where it has one.
        beside: ``QUIRE_BESIDE``: what shares that memory with a run; ``quire`` sets it itself.
        threads: ``QUIRE_THREADS``: items an op works on at a time; by default the cores, up to 4.
        executor: ``QUIRE_EXECUTOR``: where the ops of a run work: ``processes`` of the run's
            machine, or ``pods`` of a Kubernetes cluster, one per op.
    """

    home: Path
    database_url: str = ""
    store_url: str = ""
    inbox: Path = Path()
    image_encoder: str = OWN
    scans: Path = Path()
    gallery_encoder: str = "descriptor"
    detector: str = ""
    languages: str = "eng"
    text_encoder: str = "minilm"
    remote_hosts: str = ""
    text_api_key: str = field(default="", repr=False)
    serve_api_key: str = field(default="", repr=False)
    preset: str = "balanced"
    memory_mb: int = 0
    beside: Beside = "code_server"
    threads: int = 2
    executor: str = "processes"

    @property
    def data_dir(self) -> Path:
        """Where the embedded database lives."""
        return self.home / "postgres"

    @property
    def dagster_home(self) -> Path:
        """Dagster's own directory."""
        return self.home / "dagster"


def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Raises:
        ValueError: A value cannot be read, with the variable's name.
    """
    known = os.environ if environment is None else environment
    home = Path(known.get("QUIRE_HOME") or _default_home(known)).expanduser().absolute()
    return Settings(
        home=home,
        database_url=known.get("QUIRE_DATABASE_URL", ""),
        store_url=_address("QUIRE_STORE_URL", known, (home / "store").as_uri()),
        inbox=Path(known.get("QUIRE_INBOX") or home / "inbox").expanduser().absolute(),
        image_encoder=_two("QUIRE_IMAGE_ENCODER", _encoder(known), each_encoder),
        scans=Path(known.get("QUIRE_SCANS") or home / "scans").expanduser().absolute(),
        gallery_encoder=known.get("QUIRE_GALLERY_ENCODER") or "descriptor",
        detector=known.get("QUIRE_DETECTOR", ""),
        languages=known.get("QUIRE_LANGUAGES") or "eng",
        text_encoder=_two(
            "QUIRE_TEXT_ENCODER", known.get("QUIRE_TEXT_ENCODER") or "minilm", each_text_encoder
        ),
        remote_hosts=known.get("QUIRE_REMOTE_HOSTS", ""),
        text_api_key=known.get("QUIRE_TEXT_API_KEY", ""),
        serve_api_key=known.get("QUIRE_SERVE_API_KEY", ""),
        preset=known.get("QUIRE_PRESET") or "balanced",
        memory_mb=_whole("QUIRE_MEMORY_MB", known, 0),
        beside=_one_of("QUIRE_BESIDE", known, get_args(Beside)),
        threads=_whole("QUIRE_THREADS", known, min(4, _cores())),
        executor=_one_of("QUIRE_EXECUTOR", known, EXECUTORS),
    )


def _encoder(known: Mapping[str, str]) -> str:
    text = known.get("QUIRE_IMAGE_ENCODER") or OWN
    return "" if text.strip() == "none" else text


def _two(name: str, text: str, each: Callable[[str], Sequence[str]]) -> str:
    """The setting, which names two encoders at most."""
    count = len(each(text))
    if count > 2:
        raise ValueError(
            f"{name} names {count} encoders: it takes one, or with a blank between them the one "
            "that serves and the one that is to take its place"
        )
    return text


def _default_home(known: Mapping[str, str]) -> Path:
    return Path(known.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "quire"


def prepare_dagster_home(settings: Settings, storage_url: str) -> None:
    """Make Dagster's directory and point this process and its children at it."""
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    config = settings.dagster_home / "dagster.yaml"
    if not config.exists():
        # In one move: with an empty file Dagster would use a storage of its own, not the database.
        with scratch.partial_file(settings.dagster_home, config) as file:
            file.write(_DAGSTER_YAML.encode())
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    os.environ["QUIRE_DAGSTER_STORAGE_URL"] = storage_url
    os.environ["QUIRE_HOME"] = str(settings.home)
    os.environ["QUIRE_MEMORY_MB"] = str(settings.memory_mb)
    os.environ["QUIRE_BESIDE"] = settings.beside


def keep_temporary_files_in(folder: Path) -> None:
    """Have this process and those it starts put their temporary files there."""
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # have it looked up again


def calm_allocator() -> None:
    """Set the allocator and the math libraries of the processes that are started next.

    glibc keeps an arena per thread; two are enough. Its trim threshold is left alone: setting it
    also stops glibc from raising the size from which it maps memory anew for every array, which
    costs half as much time again. ``docs/operations.md`` has the measured effect.
    """
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    for library in ("OPENBLAS", "OMP"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")  # ops bring their own threads


def use_few_arenas() -> None:
    """Have this process, too, keep two arenas, before it has threads; elsewhere it does nothing."""
    m_arena_max = -8
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(m_arena_max, 2)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _address(name: str, known: Mapping[str, str], default: str) -> str:
    url = known.get(name) or default
    if holds_credentials(url) or ("?" in url and not url.startswith("file:")):
        raise ValueError(f"{name}: {NO_CREDENTIALS}")
    return url


def _whole(name: str, known: Mapping[str, str], default: int) -> int:
    text = known.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise ValueError(f"{name} is a whole number, not {text!r}")
    return int(text)


def _one_of(name: str, known: Mapping[str, str], choices: Sequence[Choice]) -> Choice:
    given = known.get(name) or choices[0]
    for choice in choices:
        if given == choice:
            return choice
    raise ValueError(f"{name} is one of {', '.join(choices)}, not {given!r}")
