"""The Django app of everything that samples and trains."""

from django.apps import AppConfig


class WorkerConfig(AppConfig):
    """The worker's commands are found through this app; it has no models."""

    name = "worker"
