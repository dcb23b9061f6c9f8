"""The browser pages."""

from django.apps import AppConfig


class TrainersUiConfig(AppConfig):
    """Pages of trainers and reviewers; no models of its own."""

    name = "trainers_ui"
