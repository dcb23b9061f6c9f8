"""Exports: frozen, content-hashed versions of a dataset."""

from django.db import models


class Export(models.Model):
    """A dataset version as it was written. Never changed."""

    project = models.ForeignKey("annotate.Project", models.PROTECT, related_name="exports")
    iteration = models.ForeignKey("annotate.Iteration", models.PROTECT, null=True, blank=True, related_name="exports")
    what = models.CharField(max_length=20)
    format = models.CharField(max_length=32)
    filters = models.JSONField(default=dict, help_text="What was asked for, beside project, what and format.")
    manifest = models.JSONField()
    digest = models.CharField(max_length=64, help_text="SHA-256 over the digests of its files.")
    rows = models.PositiveBigIntegerField()
    location = models.CharField(max_length=300, help_text="Its folder in the storage of exports.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.what} {self.format} {self.digest[:12]}"
