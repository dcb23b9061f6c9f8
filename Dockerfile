# One image for web, worker, beat and commands; see docker-compose.yml and deploy/kubernetes/.
#
# For a GPU: --build-arg BASE=nvidia/cuda:13.2.1-base-ubuntu24.04. PyTorch's own packages bring cuBLAS, cuDNN and NCCL,
# which NVIDIA's larger images would bring a second time; this one has what PyTorch lacks, the libraries by which a data
# centre's older driver runs newer CUDA.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS interpreter
SHELL ["/bin/sh", "-eu", "-c"]
# tini passes signals on and takes away what ended; NVIDIA's images have no Python. Debian's names are Ubuntu's, and
# what they hold is a distribution's own and its security updates', so that no version is named.
# hadolint ignore=DL3008,SC2086
RUN apt-get update; \
    command -v python3 >/dev/null || packages="python3 python3-venv"; \
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends tini ${packages:-}; \
    rm -rf /var/lib/apt/lists/*; \
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'


FROM interpreter AS dependencies

RUN python3 -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Only what changes rarely is copied, so that a change of code installs nothing again. Without a GPU,
# --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu brings a far smaller PyTorch.
ARG PIP_EXTRA_INDEX_URL=
RUN --mount=type=cache,target=/root/.cache/pip pip install --constraint constraints.txt '.[quantised,s3,train]'


FROM interpreter AS run

# A number, because Kubernetes tells by it that this is not root. Its home is the only folder that is written to,
# besides /tmp, so that the rest can be read-only.
RUN useradd --uid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin bothsides; \
    install --directory --owner 10001 --group 10001 /data
COPY --from=dependencies /venv /venv
WORKDIR /app
COPY . .
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BIND=0.0.0.0 \
    HOME=/data \
    BOTHSIDES_HOME=/data \
    STATIC_ROOT=/app/static \
    HF_HOME=/data/huggingface
RUN python manage.py collectstatic --no-input --verbosity 0

USER 10001:10001
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "gunicorn", "--config", "python:annotate.web"]
