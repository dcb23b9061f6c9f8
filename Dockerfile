# One image for web, worker, sweep and commands; see docker-compose.yml.
FROM python:3.11-slim AS dependencies

RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Only what changes rarely is copied, so that a change of code installs nothing again. Without a GPU,
# --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu brings a far smaller PyTorch.
ARG PIP_EXTRA_INDEX_URL=
RUN pip install --constraint constraints.txt '.[s3,train]'


FROM python:3.11-slim

RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin bothsides \
    && install --directory --owner bothsides --group bothsides /data
COPY --from=dependencies /venv /venv
WORKDIR /app
COPY . .
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BIND=0.0.0.0 \
    BOTHSIDES_HOME=/data \
    STATIC_ROOT=/app/static \
    HF_HOME=/data/huggingface
RUN python manage.py collectstatic --no-input --verbosity 0

USER bothsides
VOLUME /data
EXPOSE 8000
CMD ["python", "-m", "gunicorn", "--config", "python:annotate.web"]
