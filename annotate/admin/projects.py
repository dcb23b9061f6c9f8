"""Projects with their guidelines and members, and the steps of their rounds."""

from collections.abc import Callable

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
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
from annotate.admin.project_form import FIELDSETS, SCORES, ProjectForm
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

OF_ITERATION = {"k", "overlap", "max_new_tokens", "temperature", "top_p", "top_k", "keeps_original", "guidelines"}
"""What an iteration copies when it opens, beside the policies."""


class ChatsForm(forms.Form):
    """How many slots for chats to open."""

    count = forms.IntegerField(min_value=1, max_value=100_000, initial=20, label="Chat slots")


class PiecesForm(forms.Form):
    """How many slots for writing to open."""

    count = forms.IntegerField(min_value=1, max_value=100_000, initial=20, label="Writing slots")


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
