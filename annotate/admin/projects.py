"""Projects with their guidelines and members, and the steps of their rounds."""

import json
from collections.abc import Callable

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from annotate import assignments, iterations, passages, projects, queue, scores
from annotate.admin import project_policies, project_scores
from annotate.admin.reading import Listed, ReadOnly
from annotate.errors import BothsidesError, Conflict
from annotate.models import (
    Assignment,
    GuidelineVersion,
    Iteration,
    Membership,
    Project,
    ProjectPolicy,
    Role,
    User,
    WriteFrom,
)

MEMBERS_SHOWN = 200
"""Members that a project's page lists; of a larger project the list of memberships does."""

TRAINING = (("trainingrun", "training runs"), ("passage", "passages"))

KINDS = (Assignment.Kind.RANK, Assignment.Kind.CHAT, Assignment.Kind.WRITE)
"""Kinds of work that a project hands out. Reviews come of what was written, and go to reviewers."""

OF_ITERATION = {"k", "overlap", "max_new_tokens", "temperature", "top_p", "top_k", "keeps_original", "guidelines"}
"""What an iteration copies when it opens, beside the policies."""


def tidied(text: str) -> str:
    """As it is stored: browsers send line ends of their own."""
    return text.replace("\r\n", "\n").strip()


class Indented(json.JSONEncoder):
    """JSON as people read it."""

    def __init__(self, **how):
        super().__init__(**how | {"indent": 2})


class Keepable(json.JSONDecoder):
    """JSON that the record can keep: no NUL, no half of a character, nothing too deep or with too many digits."""

    def decode(self, text, *how):
        try:
            found = super().decode(text, *how)
            told = json.dumps(found, ensure_ascii=False)
            told.encode()
        except (ValueError, RecursionError) as error:
            raise json.JSONDecodeError(str(error), text, 0) from error
        if "\\u0000" in told:
            raise json.JSONDecodeError("NUL", text, 0)
        return found


class ProjectForm(forms.ModelForm):
    """A project and the newest text of its guidelines."""

    guidelines = forms.CharField(
        required=False,
        widget=AdminTextareaWidget(attrs={"rows": 30}),
        help_text="Markdown. A changed text becomes a new version; earlier ones are kept.",
    )
    recipe = forms.JSONField(
        required=False,
        encoder=Indented,
        decoder=Keepable,
        widget=AdminTextareaWidget(attrs={"rows": 10, "class": "vLargeTextField", "spellcheck": "false"}),
        help_text="JSON. {} is the default: a reward model of all comparisons, and PPO against it. Another: "
        '{"sft": {"epochs": 3}, "reward": {"heads": 2}, "policy": "dpo", "dpo": {"beta": 0.2}, '
        '"weights": {"new": 2, "last": 1}, "replies": "last"}. docs/training.md has every field.',
    )
    scored_by = project_scores.RunField()

    class Meta:
        model = Project
        fields = (
            "name",
            "slug",
            "guidelines",
            "kinds",
            "system_message",
            "authors_rank_own",
            "k",
            "keeps_original",
            "overlap",
            "write_from",
            "topic",
            "turn_shape",
            "system_editable",
            "suggestions",
            "suggests_unasked",
            "review_share",
            "counts_before_review",
            "return_hours",
            "max_new_tokens",
            "temperature",
            "top_p",
            "top_k",
            "split_by",
            "recipe",
            "scored_by",
        )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.instance.pk and (newest := projects.current_guidelines(self.instance)):
            self.initial["guidelines"] = newest.text.strip()
        if self.instance.pk and "scored_by" in self.fields:
            self.fields["scored_by"].offer(self.instance)

    def clean_guidelines(self) -> str:
        return tidied(self.cleaned_data["guidelines"])

    def clean_system_message(self) -> str:
        return tidied(self.cleaned_data["system_message"])

    def clean_kinds(self) -> list[str]:
        """Each kind of work that trainers do once. Raises ValidationError for anything else."""
        kinds = self.cleaned_data["kinds"]
        if not kinds or len(kinds) != len(set(kinds)) or set(kinds) - set(KINDS):
            raise ValidationError(f"Name each kind of work at most once, and at least one: {', '.join(KINDS)}.")
        return kinds

    def clean_split_by(self) -> str:
        """Raises ValidationError where an export has been asked for meanwhile, which has fixed it."""
        split_by = self.cleaned_data["split_by"]
        if self.instance.pk:
            try:
                projects.check_split_by(project=self.instance, split_by=split_by)
            except BothsidesError as error:
                raise ValidationError(error.message) from error
        return split_by

    def clean_recipe(self) -> dict:
        """Raises ValidationError with what is wrong in it."""
        given = self.cleaned_data["recipe"]
        given = {} if given is None else given
        try:
            passages.recipe_of(given)
        except BothsidesError as error:
            raise ValidationError(error.message) from error
        return given

    def clean_topic(self) -> str:
        return tidied(self.cleaned_data["topic"])

    def clean(self) -> dict:
        """Raises ValidationError where a blank page would say nothing of what to write."""
        cleaned = super().clean()
        writes = "write" in cleaned.get("kinds", [])
        if writes and cleaned.get("write_from") == WriteFrom.BLANK and not cleaned.get("topic"):
            self.add_error("topic", "A blank page needs a topic: say what to write about.")
        return cleaned


class ChatsForm(forms.Form):
    """How many slots for chats to open."""

    count = forms.IntegerField(min_value=1, max_value=100_000, initial=20, label="Chat slots")


class PiecesForm(forms.Form):
    """How many slots for writing to open."""

    count = forms.IntegerField(min_value=1, max_value=100_000, initial=20, label="Writing slots")


FIELDSETS = (
    (None, {"fields": ("name", "slug", "guidelines")}),
    ("Work", {"fields": ("kinds", "system_message")}),
    (
        "Ranking",
        {
            "fields": ("authors_rank_own", "k", "keeps_original", "overlap"),
            "description": "K, the original and the overlap count from the next iteration on. The policies at the end "
            "of the page share the K places in proportion to their weights; a policy of weight 0 gets none, and may "
            "still be the one that trainers chat with.",
        },
    ),
    (
        "Writing",
        {
            "fields": ("write_from", "topic", "turn_shape", "system_editable", "suggestions", "suggests_unasked"),
            "description": "These count at once, for pieces that are being written too.",
        },
    ),
    (
        "Review of writing",
        {
            "fields": ("review_share", "counts_before_review", "return_hours"),
            "description": "Whether a piece is reviewed is decided when it is finished. Reviewers need the role "
            "reviewer and to be members; nobody reviews what they wrote.",
        },
    ),
    (
        "Sampling",
        {
            "fields": ("max_new_tokens", "temperature", "top_p", "top_k"),
            "description": "Policies and sampling settings count from the next iteration on, guidelines too.",
        },
    ),
    (
        "Splits",
        {
            "fields": ("split_by",),
            "description": "Into train, validation and test. By author, what was brought in and prompts go by their "
            "family, and what an author made in a family of another split is held out of all three.",
        },
    ),
    (
        "From one iteration to the next",
        {
            "fields": ("recipe",),
            "description": "What manage.py iterate exports and trains when it ends the open iteration, and what the "
            "next one samples from. One that is under way keeps the recipe that it began with.",
        },
    ),
)


SCORES = ("Scores", {"fields": ("scored_by", "scored")})
"""Of a project that is there: a new one has no reward model."""


class MembersInline(admin.TabularInline):
    """Who works on the project: added and taken off here, by name."""

    model = Membership
    extra = 0
    autocomplete_fields = ("user",)
    fields = ("user", "created_at")
    readonly_fields = ("created_at",)
    verbose_name = "member"
    verbose_name_plural = "members"

    def get_queryset(self, request):
        return super().get_queryset(request).select_related("user", "project").order_by("id")

    def has_change_permission(self, request, obj=None) -> bool:
        # As text: one that could be changed would look its person up again for every row.
        return False


@admin.register(Project)
class ProjectAdmin(Listed):
    """Projects are never deleted: the record hangs on them."""

    form = ProjectForm
    change_form_template = "admin/annotate/project/change_form.html"
    list_display = ("name", "slug", "open_iteration", "k", "overlap", "authors_rank_own")
    search_fields = ("name", "slug")
    ordering = ("name", "id")
    readonly_fields = ("open_iteration", "free_slots", "next_iteration", "trained", "scored")

    def get_queryset(self, request):
        current = Iteration.objects.filter(state=Iteration.State.OPEN)
        return super().get_queryset(request).prefetch_related(Prefetch("iterations", current, "open_iterations"))

    def get_fieldsets(self, request, obj=None):
        state = [("State", {"fields": ("open_iteration", "free_slots", "next_iteration", "trained")})] if obj else []
        return [*state, *FIELDSETS, *([SCORES] if obj else [])]

    def get_prepopulated_fields(self, request, obj=None):
        return {} if obj else {"slug": ("name",)}

    def get_readonly_fields(self, request, obj=None):
        if obj is None:
            return self.readonly_fields
        # Commands, scripts and splits of exports hold the name.
        fixed = ("slug", "split_by") if projects.split_is_fixed(obj) else ("slug",)
        return (*self.readonly_fields, *fixed)

    def get_inlines(self, request, obj):
        crowded = obj is not None and obj.memberships.count() > MEMBERS_SHOWN
        members = [] if obj is None or crowded else [MembersInline]
        return [project_policies.PoliciesInline, *members]

    def has_delete_permission(self, request, obj=None) -> bool:
        return False

    @admin.display(description="open iteration")
    def open_iteration(self, project: Project) -> int | None:
        return next((iteration.number for iteration in project.open_iterations), None)

    @admin.display(description="free slots")
    def free_slots(self, project: Project) -> str:
        """How many slots of each kind wait, counted no further than 10,000."""
        free = project.assignments.filter(state=Assignment.State.FREE)
        counts = {kind: free.filter(kind=kind).values("pk")[:10_000].count() for kind in Assignment.Kind.values}
        return ", ".join(f"{kind}: {count:,}" for kind, count in counts.items())

    @admin.display(description="next iteration")
    def next_iteration(self, project: Project) -> str:
        """What it would do with the settings and policies as they are saved."""
        return project_policies.what_comes(project)

    @admin.display(description="so far")
    def scored(self, project: Project) -> str:
        """How far the scoring is."""
        return project_scores.told(project)

    @admin.display(description="training")
    def trained(self, project: Project) -> SafeString:
        """The lists of what was trained from it, and of its ways from round to round."""
        lists = ((reverse(f"admin:annotate_{name}_changelist"), project.pk, told) for name, told in TRAINING)
        return format_html_join(", ", '<a href="{}?project__id__exact={}">{}</a>', lists)

    @transaction.atomic
    def changeform_view(self, request, object_id=None, form_url="", extra_context=None):
        """Of two who save the same project at once the later sees what the earlier did before it is checked."""
        if request.method == "POST" and (object_id or "").isdecimal():
            Project.objects.select_for_update(no_key=True).filter(pk=object_id).first()
        return super().changeform_view(request, object_id, form_url, extra_context)

    def save_model(self, request, obj, form, change) -> None:
        super().save_model(request, obj, form, change)
        newest = projects.current_guidelines(obj)
        if form.cleaned_data["guidelines"] != (newest.text.strip() if newest else ""):
            projects.set_guidelines(project=obj, text=form.cleaned_data["guidelines"])
        if change and "authors_rank_own" in form.changed_data:
            queue.forget_cursors(project=obj)
        if "scored_by" in form.changed_data:
            scores.score_by(project=obj, run=obj.scored_by)

    def save_related(self, request, form, formsets, change) -> None:
        super().save_related(request, form, formsets, change)
        of_policies = any(one.has_changed() for one in formsets if one.model is ProjectPolicy)
        changed = of_policies or OF_ITERATION & set(form.changed_data)
        if change and changed and form.instance.open_iterations:
            messages.info(
                request, "The open iteration keeps the settings that it began with; yours count from the next one on."
            )

    def render_change_form(self, request, context, add=False, change=False, form_url="", obj=None):
        if obj is not None and request.method == "GET":
            about_people = (too_few_trainers(obj), too_few_reviewers(obj), no_openings(obj))
            for warning in filter(None, (*project_policies.warnings(obj), *about_people)):
                messages.warning(request, warning)
        context["crowded"] = obj is not None and MembersInline not in self.get_inlines(request, obj)
        return super().render_change_form(request, context, add, change, form_url, obj)

    def get_urls(self):
        steps = [
            ("open-iteration", self.open_next_iteration),
            ("close-iteration", self.close_iteration),
            ("open-chats", self.open_chats),
            ("open-pieces", self.open_pieces),
        ]
        return [
            *(
                path(f"<int:project_id>/{name}/", self.admin_site.admin_view(view), name=f"annotate_project_{name}")
                for name, view in steps
            ),
            *super().get_urls(),
        ]

    def open_next_iteration(self, request: HttpRequest, project_id: int) -> HttpResponse:
        """The next round begins."""

        def take(project: Project) -> str:
            return f"Iteration {passages.open_by_hand(project=project).number} is open."

        text = "It takes the project's settings as they stand now and keeps them."
        return self._step(request, project_id, "Open the next iteration", text, forms.Form, take)

    def close_iteration(self, request: HttpRequest, project_id: int) -> HttpResponse:
        """The open round ends."""

        def take(project: Project) -> str:
            iteration = project.iterations.filter(state=Iteration.State.OPEN).first()
            if iteration is None:
                raise Conflict("No iteration is open.")
            iterations.close(iteration=iteration)
            return f"Iteration {iteration.number} is closing: it ends when the work that is held has come in."

        text = "Free slots are withdrawn. What trainers hold may still come in. A closed iteration never opens again."
        return self._step(request, project_id, "Close the iteration", text, forms.Form, take)

    def open_chats(self, request: HttpRequest, project_id: int) -> HttpResponse:
        """More chats to hold."""

        def take(project: Project, count: int) -> str:
            opened = assignments.open_slots(project=project, kind="chat", count=count)
            return f"{opened:,} chat {'slot is' if opened == 1 else 'slots are'} open."

        text = "Each is one conversation that a trainer holds with the model; each brings one comparison to rank."
        return self._step(request, project_id, "Open chat slots", text, ChatsForm, take)

    def open_pieces(self, request: HttpRequest, project_id: int) -> HttpResponse:
        """More to write."""

        def take(project: Project, count: int) -> str:
            opened = assignments.open_slots(project=project, kind="write", count=count)
            return f"{opened:,} writing {'slot is' if opened == 1 else 'slots are'} open."

        text = "Each is one conversation of which a trainer writes both sides; its answers are demonstrations."
        return self._step(request, project_id, "Open writing slots", text, PiecesForm, take)

    def _step(
        self, request: HttpRequest, project_id: int, title: str, text: str, form_class, take: Callable[..., str]
    ) -> HttpResponse:
        """A page that asks before it takes a step; a refusal is a message."""
        project = self.get_object(request, str(project_id))
        if project is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, str(project_id))
        if not self.has_change_permission(request, project):
            raise PermissionDenied
        form = form_class(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            try:
                done = take(project, **form.cleaned_data)
            except BothsidesError as error:
                messages.error(request, error.message)
            else:
                self.log_change(request, project, done)
                messages.success(request, done)
            return redirect(reverse("admin:annotate_project_change", args=[project_id]))
        context = {"title": title, "text": text, "form": form, "original": project, "opts": self.opts}
        return TemplateResponse(
            request, "admin/annotate/project/step.html", self.admin_site.each_context(request) | context
        )


def too_few_trainers(project: Project) -> str:
    """A sentence where a comparison could never get all its rankings, else nothing."""
    trainers = User.objects.filter(memberships__project=project, groups__name=Role.TRAINER, is_active=True).count()
    eligible = trainers if project.authors_rank_own else max(trainers - 1, 0)
    if eligible >= project.overlap:
        return ""
    own = "" if project.authors_rank_own else " (whoever held a conversation does not rank it)"
    if project.overlap == 1:
        return f"Each comparison wants 1 ranking, and nobody can rank it{own}. Add trainers."
    return (
        f"Each comparison wants {project.overlap} rankings by different people, and only {eligible} can rank it{own}. "
        "Add trainers or lower the overlap."
    )


def too_few_reviewers(project: Project) -> str:
    """A sentence where what was written would wait for its review for ever, else nothing."""
    if Assignment.Kind.WRITE not in project.kinds or not project.review_share:
        return ""
    members = User.objects.filter(memberships__project=project, is_active=True)
    reviewers = set(members.filter(groups__name=Role.REVIEWER).values_list("pk", flat=True)[:2])
    if not reviewers:
        return "What is written here is to be reviewed, and no reviewer is a member. Add one, or set the share to 0."
    only = reviewers.pop()
    if reviewers or not members.filter(pk=only, groups__name=Role.TRAINER).exists():
        return ""
    return "The only reviewer here writes too, and nobody reviews what they wrote. Add another reviewer."


def no_openings(project: Project) -> str:
    """A sentence where pieces would begin with prompts that are not there, else nothing."""
    begins_with_prompts = project.write_from == WriteFrom.PROMPTS and Assignment.Kind.WRITE in project.kinds
    if not begins_with_prompts or project.prompts.filter(active=True).exists():
        return ""
    return (
        "Writing begins with a prompt here, and the project has no active one: every page will be blank. Import some."
    )


@admin.register(Membership)
class MembershipAdmin(Listed):
    """Who works on what, as a list."""

    list_display = ("user", "project", "created_at")
    list_filter = ("project",)
    list_select_related = ("user", "project")
    search_fields = ("user__email", "user__name")
    ordering = ("-id",)
    autocomplete_fields = ("user", "project")

    def has_change_permission(self, request, obj=None) -> bool:
        return False


@admin.register(GuidelineVersion)
class GuidelineVersionAdmin(ReadOnly):
    """Every text that trainers have worked by."""

    list_display = ("project", "number", "created_at")
    list_filter = ("project",)
    list_select_related = ("project",)
    ordering = ("-id",)
