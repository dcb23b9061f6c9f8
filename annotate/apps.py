"""The record and its rules."""

from django.apps import AppConfig


class AnnotateConfig(AppConfig):
    """Registers the system checks."""

    name = "annotate"

    def ready(self) -> None:
        from annotate import checks  # noqa: F401 (registers them)
