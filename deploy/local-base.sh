#!/usr/bin/env bash
# Make a base image from Debian packages, where no registry is in reach:
#
#   sudo deploy/local-base.sh [NAME]        (localhost/quire-base)
#   buildah build --build-arg BASE=localhost/quire-base -t quire .
#
# It needs debootstrap, buildah and a Debian mirror, QUIRE_DEBIAN_MIRROR or the usual one. Python and
# tesseract are Debian's own, 3.11 and 5.3 in bookworm.
set -euo pipefail

name=${1:-localhost/quire-base}
mirror=${QUIRE_DEBIAN_MIRROR:-http://deb.debian.org/debian}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,tesseract-ocr,tesseract-ocr-eng \
  bookworm "$root" "$mirror"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
  "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/* \
  "$root"/debootstrap

container=$(buildah from scratch)
buildah add --quiet "$container" "$root" / >/dev/null
buildah config --cmd /bin/bash --env PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin "$container"
buildah commit --quiet --rm --format docker "$container" "$name"
echo "made $name"
