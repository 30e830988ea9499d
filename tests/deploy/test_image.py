"""What goes into the image; building it is for `benchmarks/image.py`."""

import re
import shlex
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
STEPS = [line.split(maxsplit=1) for line in LINES if line and not line.startswith("#")]
FINAL = STEPS[max(i for i, (word, *_) in enumerate(STEPS) if word == "FROM") :]


def copied() -> set[str]:
    """What is copied from the checkout, in any stage."""
    found: set[str] = set()
    for word, rest in ((word, rest[0]) for word, *rest in STEPS if rest):
        if word == "COPY" and not rest.startswith("--from"):
            found.update(source.rstrip("/") for source in shlex.split(rest)[:-1])
    return found


def test_every_package_is_copied_and_nothing_that_is_copied_is_ignored() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]
    assert {package.split(".")[0] for package in packages} <= copied()
    allowed = {
        line.removeprefix("!").rstrip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied() == allowed
    for source in copied():
        assert (ROOT / source).exists(), source


def test_the_last_stage_is_not_root_installs_nothing_and_can_be_asked_for_its_health() -> None:
    words = [step[0] for step in FINAL]
    assert words[-1] == "CMD"
    assert ["USER", "10001:10001"] in FINAL
    assert words.index("USER") > max(i for i, word in enumerate(words) if word == "RUN")
    assert "HEALTHCHECK" in words
    run = " ".join(step[1] for step in FINAL if step[0] == "RUN")
    assert not re.search(r"apt|pip install|curl|wget", run)


def test_the_base_is_an_argument_and_all_stages_stand_on_it() -> None:
    assert STEPS[0] == ["ARG", "BASE=python:3.11-slim-bookworm"]
    stages = [step[1] for step in STEPS if step[0] == "FROM"]
    assert stages == ["${BASE} AS build", "${BASE} AS system", "system"]


def test_tesseract_is_all_that_the_system_is_given() -> None:
    (run,) = [step[1] for step in STEPS if step[0] == "RUN" and "apt-get install" in step[1]]
    packages = re.findall(r"--no-install-recommends ([^&;]+?)\s*&&", run)
    assert packages == ["tesseract-ocr ${LANGUAGES}"]
    assert ["ARG", 'LANGUAGES="tesseract-ocr-eng"'] in STEPS
