"""What exports and imports have in common: how far they are."""

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from annotate import jobs
from annotate.models import Job


class JobOut(serializers.Serializer):
    """Long work that a worker or a command does."""

    id = serializers.IntegerField()
    project = serializers.SlugField(source="project.slug")
    state = serializers.ChoiceField(Job.State.choices)
    step = serializers.CharField(help_text="What is being done now.")
    done = serializers.IntegerField(help_text="How much of the step is done.")
    total = serializers.IntegerField(allow_null=True, help_text="How much of it there is, where that is known.")
    share_done = serializers.SerializerMethodField(help_text="The same as a number from 0 to 1, null where unknown.")
    reason = serializers.CharField(help_text="Why it failed or was stopped.")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True, help_text="When it was last begun.")
    ended_at = serializers.DateTimeField(allow_null=True)

    @extend_schema_field(serializers.FloatField(allow_null=True))
    def get_share_done(self, job: Job) -> float | None:
        return jobs.share_done(job)
