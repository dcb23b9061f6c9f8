"""What samples completions."""

from django.apps import AppConfig


class WorkerConfig(AppConfig):
    """Celery tasks, engines and their commands; no models."""

    name = "worker"
