"""Jobs: long work that runs in the foreground or in a worker, can be watched, stopped and gone on with."""

from django.conf import settings
from django.db import models


class Job(models.Model):
    """One piece of long work. Whoever runs it holds its token and renews its lease; a lost one can be gone on with."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting for a worker"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed: see the reason"
        STOPPED = "stopped", "Stopped by a person"

    ENDED = ("done", "failed", "stopped")

    state = models.CharField(max_length=7, choices=State, default=State.WAITING)
    background = models.BooleanField(
        default=False, db_default=False, help_text="Whether a worker runs it, and goes on with it where one died."
    )
    stop_asked = models.BooleanField(
        default=False, db_default=False, help_text="A person asked to stop; who runs it ends it."
    )
    step = models.CharField(max_length=80, blank=True, db_default="", help_text="What is being done now.")
    done = models.PositiveBigIntegerField(default=0, db_default=0, help_text="How much of the step is done.")
    total = models.PositiveBigIntegerField(null=True, blank=True, help_text="How much of it there is, where known.")
    token = models.UUIDField(null=True, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempt = models.PositiveSmallIntegerField(default=0, db_default=0, help_text="How often it was begun.")
    reason = models.TextField(blank=True, db_default="", help_text="Why it failed, or was begun again.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+", editable=False
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state="running", token__isnull=False, lease_until__isnull=False)
                | (~models.Q(state="running") & models.Q(token__isnull=True, lease_until__isnull=True)),
                name="%(class)s_running_has_lease",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["waiting", "running"], ended_at__isnull=True)
                | models.Q(state__in=["done", "failed", "stopped"], ended_at__isnull=False),
                name="%(class)s_ended_has_time",
            ),
        ]
        indexes = [
            models.Index(
                fields=["lease_until"],
                condition=models.Q(state__in=["waiting", "running"]),
                name="%(class)s_unfinished",
            ),
        ]
