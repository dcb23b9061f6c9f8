"""Passages: how far each is on its way to the next round, what its steps made, and a person's yes."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from annotate import jobs, passages
from annotate.admin.jobs import DASH, JobAdmin, as_lines, short_reason
from annotate.admin.reading import linked
from annotate.models import Export, Iteration, Job, Passage, TrainingRun

State = Job.State


@admin.register(Passage)
class PassageAdmin(JobAdmin):
    """Each way from one round to the next."""

    class Media:
        css = {"all": ("annotate/training.css",)}

    change_form_template = "admin/annotate/passage/change_form.html"
    change_list_template = "admin/annotate/passage/change_list.html"
    list_display = ("id", "how_far", "waits", "project", "ends", "opened", "took", "asked")
    list_filter = ("state", "project")
    list_select_related = ("project", "iteration", "opens")
    search_fields = ("=id", "project__slug")
    search_help_text = "Number of the passage, or the slug of its project"
    ordering = ("-id",)
    readonly_fields = ("id", "how_far", "what_now", "took_since", "recipe_values")
    fieldsets = (
        (None, {"fields": ("id", "how_far", "reason", "what_now", "project", "iteration", "opens", "took_since")}),
        (
            "How it was asked for",
            {
                "classes": ("collapse",),
                "fields": (
                    "recipe_values",
                    "asks",
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
        return super().get_queryset(request).select_related("project", "iteration__project", "opens__project")

    def get_fieldsets(self, request, obj=None):
        (title, first), *others = super().get_fieldsets(request, obj)
        fields = [name for name in first["fields"] if name != "what_now" or (obj and self.what_now(obj))]
        return [(title, first | {"fields": fields}), *others]

    def go_on(self, job: Job) -> None:
        passages.take_up(passage=job, background=True)

    def get_urls(self):
        agree = path(
            "<int:job_id>/agree/", self.admin_site.admin_view(self.agree_to_one), name="annotate_passage_agree"
        )
        return [agree, *super().get_urls()]

    def agree_to_one(self, request: HttpRequest, job_id: int) -> HttpResponse:
        """A person's yes to the step that the page named."""

        def agree(passage: Passage) -> None:
            passages.agree(passage=passage, step=request.POST.get("step", ""))

        return self._step(request, job_id, agree, "A worker goes on with it.")

    def render_change_form(self, request, context, add=False, change=False, form_url="", obj=None):
        """With its steps, and the button where it waits for a yes."""
        if obj is not None:
            step = passages.waiting_for(obj)
            context["steps"] = steps(obj)
            context["agree_url"] = reverse("admin:annotate_passage_agree", args=[obj.pk])
            if step and request.user.has_perm("annotate.change_passage"):
                context |= {"agree_step": step, "agree_told": passages.TOLD[step].lower()}
        response = super().render_change_form(request, context, add, change, form_url, obj)
        if obj is not None and obj.state != State.DONE and not is_current(obj):
            response.context_data["can_go_on"] = False
        return response

    @admin.display(description="now")
    def waits(self, passage: Passage) -> str:
        """What it does or waits for, of one that failed why."""
        return short_reason(passage) or passage.step or "–"

    @admin.display(description="from")
    def ends(self, passage: Passage) -> int:
        return passage.iteration.number

    @admin.display(description="to")
    def opened(self, passage: Passage) -> int | None:
        return passage.opens and passage.opens.number

    @admin.display(description="took")
    def took_since(self, passage: Passage) -> SafeString:
        """As of any job; one that asks begins anew with each yes."""
        told = self.took(passage)
        return format_html("{} since the last yes", told) if passage.agreed_to and told != DASH else told

    @admin.display(description="what now")
    def what_now(self, passage: Passage) -> str:
        return what_now(passage)

    @admin.display(description="recipe")
    def recipe_values(self, passage: Passage) -> SafeString:
        return as_lines(passage.recipe) if passage.recipe else DASH


def is_current(passage: Passage) -> bool:
    """Whether it may still be gone on with: no other round was opened in its place."""
    newest = passages.current(passage.project)
    return newest is not None and newest.pk == passage.pk


def what_now(passage: Passage) -> str:
    """What a person can do about one that stands still; empty where there is nothing."""
    if passage.state in (State.FAILED, State.STOPPED):
        if not is_current(passage):
            return "It is over: another iteration was opened in its place."
        return (
            "What is served stays as it was. Mend the cause, the project’s recipe perhaps; “Go on” has a worker go on "
            "where it was. Or open the next iteration on the project’s page, without a new policy."
        )
    if jobs.was_lost(passage) and not passage.background:
        return "Whoever ran it has died. “Go on” has a worker take it up."
    if passage.opens and passage.opens.state == Iteration.State.OPEN and not passage.opens.assignments.exists():
        return "Nothing is handed out in the new iteration yet: open slots for chats and writing on the project’s page."
    if step := passages.waiting_for(passage):
        return f"It waits for a person’s yes to the next step: {passages.TOLD[step].lower()}."
    if passage.state == State.WAITING and passage.background:
        return "It goes on when a worker that listens to the queue training is free."
    return ""


def steps(passage: Passage) -> list[dict]:
    """The steps of its recipe in their order, each with how far it is and links to what it made."""
    order = passages.steps_of(passage)
    following = passages.next_step(passage)
    asked = passages.waiting_for(passage)
    found = _made(passage)
    done_until = order.index(following) if following else len(order)
    told = []
    for number, step in enumerate(order):
        if number < done_until:
            state = "done"
        elif number > done_until:
            state = "to come"
        elif asked:
            state = "waits for a yes"
        elif jobs.was_lost(passage):
            state = "interrupted"
        else:
            state = passage.state
        told.append({"name": passages.TOLD[step], "state": state, "made": found.get(step, "")})
    return told


def _made(passage: Passage) -> dict[str, SafeString]:
    """By step the links to what it made, in a handful of queries."""
    numbers = {step: made["run"] for step, made in passage.steps.items() if "run" in made}
    runs = TrainingRun.objects.select_related("policy").defer("metrics").in_bulk(list(numbers.values()))
    written = passage.steps.get(passages.EXPORT, {}).values()
    exports = Export.objects.defer("manifest").filter(pk__in=written).order_by("id")
    found = {
        step: linked(runs[number], getattr(runs[number], "policy", None))
        for step, number in numbers.items()
        if number in runs
    }
    others = {passages.CLOSE: [passage.iteration], passages.EXPORT: exports, passages.OPEN: [passage.opens]}
    return found | {step: linked(*rows) for step, rows in others.items() if step in passage.steps}
