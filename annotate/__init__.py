"""The record of human feedback and its rules; knows no page, no Celery task and no torch."""
