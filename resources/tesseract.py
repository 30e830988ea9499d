"""Tesseract, one process per picture, which it is sent through a pipe.

The command line and not ``pytesseract``: what is needed of it is one call, and this way the picture
never becomes a file, a process that is beyond its time or its memory is ended with whatever it
started, and nothing is imported. Only Quire's own rendering is ever sent, as grey pixels behind a
header of a few bytes: given a text file, tesseract would read it as a list of files to open.

Each process uses one thread (``OMP_THREAD_LIMIT``): tesseract's own four wait for each other, and
pages beside each other use the cores better. It gets no other environment, so no secrets.
"""

import contextlib
import math
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from core.errors import BudgetError, InputError
from core.paper import Grey
from core.text import legible

PROGRAM = "tesseract"

LEAST_DPI = 70
"""Tesseract takes a lower resolution for a mistake and guesses one itself."""

CPU_GRACE_S = 5
"""CPU seconds beyond the timeout after which the kernel ends a process nobody waits for."""

MB = 1 << 20

_NO_LANGUAGES = {"osd", "equ", "snum"}
"""Data that tesseract lists among its languages."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z0-9_]+)?")
_NO_MEMORY = re.compile(
    r"bad_alloc|[mc]alloc|out of memory|insufficient memory|cannot allocate|made null pix",
    re.IGNORECASE,
)
"""What it and its libraries say where memory is short, whether or not they then go on without the
line that it was for."""
_TURN = re.compile(r"^Rotate: (90|180|270)$", re.MULTILINE)


class TesseractError(Exception):
    """Tesseract is not installed, or lacks a language; the message says what to install."""


@dataclass(frozen=True)
class Tesseract:
    """An installed tesseract and the languages to read.

    Attributes:
        program: Where it is.
        languages: As it names them, the most likely first.
        timeout_s: For one picture.
        memory_mb: What one process may allocate. It needs 50 MB and five bytes per pixel.
    """

    program: str
    languages: tuple[str, ...]
    timeout_s: float = 120.0
    memory_mb: int = 250
    _running: set[subprocess.Popen[bytes]] = field(
        default_factory=set[subprocess.Popen[bytes]], compare=False, repr=False
    )

    def read(
        self, grey: Grey, dpi: float, *, one_block: bool = False, timeout_s: float = math.inf
    ) -> str:
        """What a picture says: words, boxes and confidences as tab-separated lines.

        Args:
            grey: The picture.
            dpi: Its resolution.
            one_block: It shows one block of text, and no page whose layout is to be found.
            timeout_s: Less time than the usual.

        Raises:
            InputError: Tesseract took too long over it, or crashed.
            BudgetError: It was ended for want of memory.
        """
        layout = "6" if one_block else "3"
        code, said, complaint = self._run(
            grey,
            dpi,
            ["-l", "+".join(self.languages), "--psm", layout, "--oem", "1", "tsv"],
            min(timeout_s, self.timeout_s),
        )
        if code != 0 or _NO_MEMORY.search(complaint):
            self._fail(code, complaint)
        return said

    def quarter_turn(self, grey: Grey, dpi: float, *, timeout_s: float = math.inf) -> int:
        """How far the picture has to be turned clockwise to stand upright: 0, 90, 180 or 270.

        Also 0 where that cannot be told, for want of letters or of tesseract's orientation data.
        """
        with contextlib.suppress(InputError):
            limit_s = min(timeout_s, self.timeout_s)
            _, said, _ = self._run(grey, dpi, ["-l", "osd", "--psm", "0"], limit_s)
            if found := _TURN.search(said):
                return int(found[1])
        return 0

    def _run(
        self, grey: Grey, dpi: float, options: Sequence[str], timeout_s: float
    ) -> tuple[int, str, str]:
        """Exit code, output and complaints of one process over one picture."""
        height, width = grey.shape
        pixels = np.ascontiguousarray(grey).data.cast("B")
        resolution = str(max(LEAST_DPI, round(dpi)))
        process = subprocess.Popen(
            [self.program, "stdin", "stdout", "--dpi", resolution, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"OMP_THREAD_LIMIT": "1"},
            start_new_session=True,
        )
        assert process.stdin is not None
        self._running.add(process)
        with process:
            try:
                self._limit_harm(process.pid)  # it waits for the picture
                with contextlib.suppress(BrokenPipeError):
                    os.write(process.stdin.fileno(), b"P5 %d %d 255\n" % (width, height))
                said, complaint = process.communicate(pixels, timeout_s)  # pyright: ignore
            except subprocess.TimeoutExpired as error:
                raise InputError(f"tesseract took longer than {timeout_s:.3g} s") from error
            finally:
                self._running.discard(process)
                _end(process)
        text = legible(said.decode("utf-8", "replace"))
        return process.returncode, text, legible(complaint.decode("utf-8", "replace"))

    def end_all(self) -> None:
        """End every process of it that runs: nobody waits for what it reads."""
        for process in list(self._running):
            _end(process)

    def _limit_harm(self, pid: int) -> None:
        """Bound what the process may hold, write and use; where the system has no such bounds, not.

        It holds even where this process is killed and nobody waits for an answer.
        """
        cpu_s = math.ceil(self.timeout_s) + CPU_GRACE_S
        wanted = (
            (resource.RLIMIT_DATA, self.memory_mb * MB),
            (resource.RLIMIT_CPU, cpu_s),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        )
        for kind, most in wanted:
            with contextlib.suppress(ValueError, OSError, AttributeError):
                resource.prlimit(pid, kind, (most, most))

    def _fail(self, code: int, complaint: str) -> NoReturn:
        """Raise what the end of the process means."""
        if code == -signal.SIGKILL or _NO_MEMORY.search(complaint):
            raise BudgetError(
                f"tesseract needs more than the {self.memory_mb} MB that it was given, or than "
                "there were",
                budget_mb=self.memory_mb,
                needed_mb=2 * self.memory_mb,
            )
        if code == -signal.SIGXCPU:
            raise InputError(f"tesseract took longer than {self.timeout_s:g} s")
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        last = complaint.strip().splitlines()[-1][:200] if complaint.strip() else ""
        raise InputError(f"tesseract crashed ({ended}{': ' + last if last else ''})")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with whatever it started, if it still runs."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def open_tesseract(
    languages: Sequence[str], *, timeout_s: float = 120.0, memory_mb: int = 250
) -> Tesseract:
    """Find tesseract and make sure that it has these languages.

    Raises:
        TesseractError: It is not installed, or lacks one of them. Tesseract itself would leave that
            language out without a word.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        needed = " ".join(["tesseract-ocr", *map(_package, languages)])
        raise TesseractError(
            "pages are read by tesseract, which is not installed. Install it:\n"
            f"    sudo apt-get install {needed}"
        )
    installed = installed_languages(program)
    missing = [name for name in languages if name not in installed]
    if missing or not languages:
        odd = [name for name in missing if not _NAME.fullmatch(name)]
        there = ", ".join(sorted(installed)) or "none"
        if odd or not languages:
            raise TesseractError(
                f"{odd[0] if odd else ''!r} is no language of tesseract; installed are {there}. "
                "Several are joined by a plus sign: eng+deu"
            )
        raise TesseractError(
            f"tesseract lacks the language {', '.join(missing)}; installed are {there}. "
            f"Install it:\n    sudo apt-get install {' '.join(map(_package, missing))}"
        )
    return Tesseract(program, tuple(languages), timeout_s, memory_mb)


def installed_languages(program: str) -> frozenset[str]:
    """The languages that a tesseract has."""
    listed = subprocess.run(
        [program, "--list-langs"], capture_output=True, text=True, timeout=60, env={}, check=False
    )
    return frozenset(line.strip() for line in listed.stdout.splitlines()[1:]) - _NO_LANGUAGES


def version(program: str) -> str:
    """What a tesseract calls itself, such as ``tesseract 5.3.0``."""
    told = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=60, env={}, check=False
    )
    return (told.stdout or told.stderr).strip().partition("\n")[0]


def _package(language: str) -> str:
    """The Debian package of a language."""
    return f"tesseract-ocr-{language.lower().replace('_', '-').replace('/', '-')}"
