"""Samples completions; the only place for Celery tasks and torch."""
