# One image, three roles (web server, daemon, code location), told apart by the command.
# Alone it is everything at once, with the embedded database; nothing outside /data and /tmp is
# written:
#
#   docker run --init --read-only --tmpfs /tmp -p 127.0.0.1:3000:3000 -v quire:/data quire
#   docker run --init --read-only --tmpfs /tmp --no-healthcheck -v quire:/data \
#     -v "$PWD/papers:/papers:ro" -v "$PWD/out:/out" quire quire run /papers --out /out
#
# BASE can be any Debian or Ubuntu with Python 3.11 to 3.14 under the same path in both stages;
# deploy/local-base.sh makes one where no registry is in reach.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# cpu, gpu, or none: torch only converts checkpoints. Without it the image is about half the size and
# runs encoders that were converted elsewhere.
ARG TORCH=cpu
# Where pip looks, for builds behind a mirror. They stay out of the final stage.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_CERT
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY scripts/setup.sh scripts/
RUN QUIRE_TORCH=${TORCH} PIP_NO_CACHE_DIR=1 bash scripts/setup.sh \
      --venv /opt/quire --no-project --groups "run onnx minilm conversion s3 k8s"
COPY core/ core/
COPY store/ store/
COPY resources/ resources/
COPY assets/ assets/
COPY orchestration/ orchestration/
COPY web/ web/
COPY migrations/ migrations/
COPY deploy/slim.sh deploy/
RUN /opt/quire/bin/python -m pip install --quiet --no-cache-dir --no-deps --no-build-isolation . \
 && bash deploy/slim.sh /opt/quire

FROM ${BASE} AS system
# What reads pages. More languages: tesseract-ocr-deu, -fra, ... (QUIRE_LANGUAGES names them).
ARG LANGUAGES="tesseract-ocr-eng"
RUN command -v tesseract >/dev/null \
 || { apt-get update -qq \
      && apt-get install -y -qq --no-install-recommends tesseract-ocr ${LANGUAGES} \
      && rm -rf /var/lib/apt/lists/*; }

FROM system
LABEL org.opencontainers.image.title="Quire" \
      org.opencontainers.image.licenses="AGPL-3.0-or-later"
# The uid is fixed so that volumes and Kubernetes security contexts can name it. The base's own
# installer goes, too.
RUN groupadd --gid 10001 quire \
 && useradd --uid 10001 --gid quire --home-dir /data --no-create-home --shell /usr/sbin/nologin quire \
 && install -d -o quire -g quire /data /data/dagster /data/tmp \
 && rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/* \
           /usr/local/lib/python3*/ensurepip /usr/lib/python3*/ensurepip /usr/share/python-wheels
COPY --from=build /opt/quire /opt/quire
COPY LICENSE workspace.yaml /app/
WORKDIR /app
# What quire would set for its own children; here Dagster's commands are started directly.
ENV PATH=/opt/quire/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_ARENA_MAX=2 \
    OPENBLAS_NUM_THREADS=1 \
    OMP_NUM_THREADS=1 \
    HOME=/data \
    TMPDIR=/data/tmp \
    QUIRE_HOME=/data \
    DAGSTER_HOME=/data/dagster \
    DAGSTER_DISABLE_TELEMETRY=1
USER 10001:10001
VOLUME /data
EXPOSE 3000
# For the web server, alone or as a service. The other roles bring their own check.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:3000/server_info', timeout=4)"]
CMD ["quire", "ui", "--host", "0.0.0.0", "--port", "3000"]
