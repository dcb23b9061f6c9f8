"""Exports: frozen, content-hashed versions of a dataset."""

from django.db import models

from annotate.models.jobs import Job


class Export(Job):
    """A dataset version: what was asked for, and how it was written. Once it is done it never changes."""

    project = models.ForeignKey("annotate.Project", models.PROTECT, related_name="exports")
    iteration = models.ForeignKey("annotate.Iteration", models.PROTECT, null=True, blank=True, related_name="exports")
    what = models.CharField(max_length=20)
    format = models.CharField(max_length=32)
    filters = models.JSONField(default=dict, help_text="What was asked for, beside project, what and format.")
    files = models.JSONField(
        default=dict, db_default={}, help_text="How it is written: kind of files and rows in a shard."
    )
    parents = models.ManyToManyField(
        "self", symmetrical=False, blank=True, related_name="children", help_text="The exports that it was made from."
    )
    manifest = models.JSONField(default=dict, help_text="Empty until it is done.")
    digest = models.CharField(max_length=64, blank=True, help_text="SHA-256 over the digests of its files.")
    rows = models.PositiveBigIntegerField(default=0)
    location = models.CharField(
        max_length=300, blank=True, help_text="Its folder in the storage of exports; empty until it is done."
    )

    class Meta(Job.Meta):
        constraints = [
            *Job.Meta.constraints,
            models.CheckConstraint(
                condition=models.Q(state="done") & ~models.Q(location="") & ~models.Q(digest="")
                | ~models.Q(state="done") & models.Q(location="", digest=""),
                name="export_done_has_files",
            ),
        ]

    def __str__(self) -> str:
        return f"export {self.pk} ({self.what} {self.format})"
