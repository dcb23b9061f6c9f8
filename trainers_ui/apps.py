"""The browser pages of trainers and reviewers."""

from django.apps import AppConfig


class TrainersUiConfig(AppConfig):
    """Templates, static files and views; no models."""

    name = "trainers_ui"
