"""What the pages of exports and imports have in common: how far they are, and buttons to stop them and to go on."""

from collections.abc import Iterator

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.forms import Script
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from annotate import jobs
from annotate.admin.reading import ReadOnly, duration
from annotate.errors import BothsidesError
from annotate.models import Job

DASH = format_html("{}", "–")
SHORT_CHARACTERS = 100
"""Of a reason in a list; the job's page has it whole."""


def how_far(job: Job) -> SafeString | str:
    """State and progress of a job, which a script of the page keeps fresh while it goes on."""
    unfinished = job.state not in Job.ENDED
    share = jobs.share_done(job)
    parts = [format_html("<span>{}</span>", "interrupted" if jobs.was_lost(job) else job.state)]
    if job.state == Job.State.RUNNING:
        if share is not None:
            parts.append(
                format_html(
                    '<progress max="100" value="{0}" aria-label="done">{0}\N{NO-BREAK SPACE}%</progress>',
                    int(share * 100),
                )
            )
        parts.append(format_html("<span>{}</span>", _amount(job, share)))
    inner = format_html("{}" * len(parts), *parts)
    going = SafeString(" data-goes-on") if unfinished else ""
    # One that waits again may wait for another thing, with a button of its own.
    state = f"{job.state} {job.step}".strip() if job.state == Job.State.WAITING else job.state
    return format_html('<span class="how-far" data-live="{}" data-state="{}"{}>{}</span>', job.pk, state, going, inner)


def _amount(job: Job, share: float | None) -> str:
    # Rounded down, as the bar is: what is not done never looks done.
    done = f"{int(share * 100)}\N{NO-BREAK SPACE}%" if share is not None else f"{job.done:,}" if job.done else ""
    return ", ".join(part for part in (job.step, done) if part)


def short_reason(job: Job) -> str:
    """The beginning of why a job failed; empty where it did not."""
    return Truncator(job.reason).chars(SHORT_CHARACTERS) if job.state == Job.State.FAILED else ""


def as_lines(value: dict) -> SafeString:
    """A small JSON object as a list of its values with their names."""
    lines = list(_lines(value))
    return (
        format_html('<ul class="values">{}</ul>', format_html_join("", "<li><b>{}</b> {}</li>", lines))
        if lines
        else DASH
    )


def _lines(value: dict, before: str = "") -> Iterator[tuple[str, str]]:
    for name, one in value.items():
        told = f"{before}{name}".replace("_", " ")
        if isinstance(one, dict) and any(isinstance(inner, dict) for inner in one.values()):
            yield from _lines(one, f"{told}, ")
        elif isinstance(one, dict):
            yield told, ", ".join(f"{inner}: {_said(count)}".replace("_", " ") for inner, count in one.items()) or "–"
        else:
            yield told, _said(one)


def _said(value) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


class JobAdmin(ReadOnly):
    """A list and pages for reading, with buttons. `stop` and `go_on` are the verbs of the kind."""

    class Media:
        js = (Script("annotate/live.js", type="module"),)

    change_form_template = "admin/annotate/job_change_form.html"

    @admin.display(description="state")
    def how_far(self, job: Job) -> SafeString | str:
        return how_far(job)

    def get_fieldsets(self, request, obj=None):
        """Without a reason where there is none."""
        (title, first), *others = self.fieldsets
        fields = [name for name in first["fields"] if name != "reason" or (obj and obj.reason)]
        return [(title, first | {"fields": fields}), *others]

    @admin.display(description="asked for, UTC")
    def asked(self, job: Job) -> str:
        """When, in few characters: lists of jobs have many columns."""
        return timezone.localtime(job.created_at).strftime("%Y-%m-%d %H:%M").replace("-", "\N{NON-BREAKING HYPHEN}")

    @admin.display(description="took")
    def took(self, job: Job) -> SafeString:
        """How long the last attempt took, or has taken by now, which a script of the page keeps fresh."""
        if job.started_at is None or job.state == Job.State.WAITING:
            return DASH
        told = duration(((job.ended_at or timezone.now()) - job.started_at).total_seconds())
        return format_html('<span data-live="took-{}">{}</span>', job.pk, told)

    def stop(self, job: Job) -> None:
        """Stop it. Raises Conflict."""
        jobs.ask_to_stop(job)

    def go_on(self, job: Job) -> None:
        """Have a worker go on with it. Raises Conflict."""
        jobs.go_on_in_worker(job)

    def get_urls(self):
        name = self.opts.model_name
        steps = [("stop", self.stop_one), ("go-on", self.go_on_with_one)]
        return [
            *(
                path(f"<int:job_id>/{step}/", self.admin_site.admin_view(view), name=f"annotate_{name}_{step}")
                for step, view in steps
            ),
            *super().get_urls(),
        ]

    def stop_one(self, request: HttpRequest, job_id: int) -> HttpResponse:
        """The button on the page of one that is not done."""
        return self._step(request, job_id, self.stop, "It stops; what is written so far is kept.")

    def go_on_with_one(self, request: HttpRequest, job_id: int) -> HttpResponse:
        """The button on the page of one that failed, was stopped or was interrupted."""
        return self._step(request, job_id, self.go_on, "A worker goes on with it.")

    def _step(self, request: HttpRequest, job_id: int, take, done: str) -> HttpResponse:
        if request.method != "POST" or not request.user.has_perm(f"annotate.change_{self.opts.model_name}"):
            raise PermissionDenied
        job = self.get_object(request, str(job_id))
        if job is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, str(job_id))
        try:
            take(job)
        except BothsidesError as error:
            messages.error(request, error.message)
        else:
            self.log_change(request, job, done)
            messages.success(request, done)
        return redirect(reverse(f"admin:annotate_{self.opts.model_name}_change", args=[job_id]))

    def render_change_form(self, request, context, add=False, change=False, form_url="", obj=None):
        """The buttons that make sense now."""
        if obj is not None:
            allowed = request.user.has_perm(f"annotate.change_{self.opts.model_name}")
            lost = jobs.was_lost(obj)
            context["can_stop"] = allowed and obj.state not in Job.ENDED and not obj.stop_asked
            context["can_go_on"] = allowed and (lost or obj.state in (Job.State.FAILED, Job.State.STOPPED))
            stop, go_on = (f"admin:annotate_{self.opts.model_name}_{step}" for step in ("stop", "go-on"))
            context |= {"stop_url": reverse(stop, args=[obj.pk]), "go_on_url": reverse(go_on, args=[obj.pk])}
        return super().render_change_form(request, context, add, change, form_url, obj)
