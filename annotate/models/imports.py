"""Imports: files of conversations that were brought in."""

from django.db import models

from annotate.models.jobs import Job


class Import(Job):
    """One file of conversations that is brought in, whole or not at all, and what came of its lines."""

    project = models.ForeignKey("annotate.Project", models.PROTECT, related_name="imports")
    source = models.CharField(max_length=200, help_text="The set that it is from: together with an id it names a row.")
    file = models.CharField(
        max_length=300, blank=True, help_text="Where an upload waits in the storage; empty for files of a command."
    )
    format = models.CharField(max_length=32, help_text="As asked for, or as recognised.")
    options = models.JSONField(default=dict, help_text="How it was to be read.")
    report = models.JSONField(
        default=dict, help_text="Counts of what came in, was there already, was mended or left out, with reasons."
    )

    class Meta(Job.Meta):
        pass

    def __str__(self) -> str:
        return f"Import {self.pk} of {self.source}"
