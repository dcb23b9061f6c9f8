"""Training runs: watched as they learn, stopped and gone on with here, and read with what they came of and made."""

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from annotate import jobs, lineage, training
from annotate.admin import curves
from annotate.admin.jobs import JobAdmin, as_lines, short_reason
from annotate.admin.measured import said, tables
from annotate.admin.reading import linked
from annotate.models import Job, TrainingRun

State = Job.State


@admin.register(TrainingRun)
class TrainingRunAdmin(JobAdmin):
    """Each training as it goes or went."""

    class Media:
        css = {"all": ("annotate/training.css",)}

    change_form_template = "admin/annotate/trainingrun/change_form.html"
    change_list_template = "admin/annotate/trainingrun/change_list.html"
    list_display = ("id", "how_far", "kind_of_run", "project", "base", "made_in_short", "took", "asked")
    list_filter = ("state", "kind", "project")
    list_select_related = ("project", "base", "policy")
    search_fields = ("=id", "base__name", "policy__name")
    search_help_text = "Number of the run, or a part of the name of the policy that it begins with or made"
    ordering = ("-id",)
    readonly_fields = (
        "id",
        "how_far",
        "what_now",
        "learns_from",
        "against",
        "step_of",
        "made",
        "went_into",
        "took",
        "option_values",
        "version_values",
    )
    fieldsets = (
        (None, {"fields": ("id", "how_far", "reason", "what_now", "project", "kind", "took")}),
        ("What it came of", {"fields": ("base", "learns_from", "against", "step_of")}),
        ("What came of it", {"fields": ("made", "went_into", "digest")}),
        (
            "How it was asked for",
            {
                "classes": ("collapse",),
                "fields": (
                    "option_values",
                    "version_values",
                    "created_by",
                    "created_at",
                    "started_at",
                    "ended_at",
                    "attempt",
                    "background",
                ),
            },
        ),
    )

    def get_queryset(self, request: HttpRequest):
        # A list of many is quick without what only a page shows.
        return super().get_queryset(request).defer("metrics", "options", "versions")

    def get_fieldsets(self, request, obj=None):
        """Without what a run of its kind and state has not."""
        found = super().get_fieldsets(request, obj)
        absent = {
            "what_now": obj is None or not what_now(obj),
            "against": obj is None or obj.kind != TrainingRun.Kind.PPO,
            "digest": obj is None or not obj.digest,
        }
        return [
            (title, held | {"fields": [name for name in held["fields"] if not absent.get(name)]})
            for title, held in found
        ]

    def go_on(self, job: Job) -> None:
        training.go_on(job)

    def render_change_form(self, request, context, add=False, change=False, form_url="", obj=None):
        """With what was measured, as it goes and at the end."""
        if obj is not None:
            found = training.curves(obj)
            made = tables({name: value for name, value in obj.metrics.items() if name != "samples"})
            head, rows = curves.rows(found)
            context |= {
                "charts": curves.charts(found),
                "width": found.width,
                "points_head": head,
                "points": rows,
                "tables": [one for one in made if not one.aside],
                "tables_aside": [one for one in made if one.aside],
                "samples": [_sample(one) for one in obj.metrics.get("samples", [])],
            }
        return super().render_change_form(request, context, add, change, form_url, obj)

    @admin.display(description="kind", ordering="kind")
    def kind_of_run(self, run: TrainingRun) -> str:
        return run.kind

    @admin.display(description="what now")
    def what_now(self, run: TrainingRun) -> str:
        return what_now(run)

    @admin.display(description="learns from")
    def learns_from(self, run: TrainingRun) -> SafeString:
        return linked(*run.exports.order_by("id"))

    @admin.display(description="against the reward model of")
    def against(self, run: TrainingRun) -> SafeString:
        return linked(run.reward)

    @admin.display(description="a step of")
    def step_of(self, run: TrainingRun) -> SafeString:
        passage = lineage.passage_of_run(run)
        return linked(passage, passage and passage.iteration)

    def made(self, run: TrainingRun) -> SafeString:
        """Its policy, or where its reward model lies."""
        policy = getattr(run, "policy", None)
        if policy is None and run.state == State.DONE:
            return format_html("reward model in <code>models/{}</code>", run.location)
        return linked(policy)

    @admin.display(description="made")
    def made_in_short(self, run: TrainingRun) -> SafeString | str:
        """What came of it, of one that failed why nothing did."""
        if run.state == State.FAILED:
            return short_reason(run)
        policy = getattr(run, "policy", None)
        return format_html("{}", "reward model") if policy is None and run.state == State.DONE else linked(policy)

    @admin.display(description="went into")
    def went_into(self, run: TrainingRun) -> SafeString:
        """The runs that began with its policy, or were trained against its reward model."""
        policy = getattr(run, "policy", None)
        began = policy.training_runs.order_by("id") if policy else run.rewarded.order_by("id")
        return linked(*began[:100])

    @admin.display(description="options")
    def option_values(self, run: TrainingRun) -> SafeString:
        return as_lines({name: said(value) for name, value in run.options.items()})

    @admin.display(description="versions")
    def version_values(self, run: TrainingRun) -> SafeString:
        return as_lines(run.versions)


def what_now(run: TrainingRun) -> str:
    """What a person can do about a run that stands still; empty where there is nothing."""
    if run.state == State.FAILED:
        return (
            "Mend the cause; “Go on” has a worker go on from the last whole checkpoint. With other options it is "
            "another run: manage.py train."
        )
    if run.state == State.STOPPED:
        return "“Go on” has a worker go on from the last whole checkpoint."
    if jobs.was_lost(run):
        told = "Whoever ran it has died."
        return f"{told} A worker takes it up." if run.background else f"{told} “Go on” has a worker take it up."
    if run.state == State.WAITING and run.background:
        return "It begins when a worker that listens to the queue training is free."
    if run.state == State.WAITING:
        return f"It waits to be run in a terminal: manage.py train --go-on {run.pk}"
    return ""


def _sample(sample: dict) -> dict:
    """A prompt with its answers, and what they are worth."""
    answers = [
        {"name": name, "text": sample.get(name, ""), "reward": said(sample.get(f"reward_{name}"))}
        for name in ("before", "after")
    ]
    return {"prompt": sample.get("prompt", ""), "answers": answers}
