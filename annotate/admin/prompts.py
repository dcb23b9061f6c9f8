"""Prompts: the openings that trainers may start from."""

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError

from annotate import derive, families, likeness, projects
from annotate.admin.reading import Listed
from annotate.models import Prompt


class PromptForm(forms.ModelForm):
    """A prompt that its project does not have yet."""

    class Meta:
        model = Prompt
        fields = ("project", "text", "use_case", "source", "source_id", "active")

    def clean(self) -> dict:
        """Raises ValidationError where the project has the text already."""
        given = super().clean()
        project = given.get("project") or getattr(self.instance, "project", None)
        if project is None or not given.get("text"):
            return given
        given["text"] = projects.tidied(given["text"])
        digest = derive.digest_of(given["text"])
        if Prompt.objects.filter(project=project, digest=digest).exclude(pk=self.instance.pk).exists():
            raise ValidationError({"text": "The project has this prompt already."})
        return given


@admin.register(Prompt)
class PromptAdmin(Listed):
    """Many at once come in by `manage.py import_prompts`."""

    form = PromptForm
    list_display = ("__str__", "project", "use_case", "uses", "active")
    list_filter = ("active", "project")
    list_select_related = ("project",)
    search_fields = ("text", "use_case", "source")
    ordering = ("-id",)
    autocomplete_fields = ("project",)
    actions = ("offer", "withhold")

    def get_fields(self, request, obj=None):
        fields = PromptForm.Meta.fields
        return (*fields, "uses", "created_at") if obj else fields

    def get_readonly_fields(self, request, obj=None):
        return ("project", "uses", "created_at") if obj else ()

    def save_model(self, request, prompt, form, change) -> None:
        (made,) = projects.make_prompts(project=prompt.project, openings=[projects.Opening(text=prompt.text)])
        prompt.digest, prompt.near = made.digest, likeness.bands(prompt.text)
        (prompt.family,) = families.join(project=prompt.project, texts=[prompt.text])
        super().save_model(request, prompt, form, change)

    @admin.action(description="Offer to new conversations", permissions=["change"])
    def offer(self, request, prompts) -> None:
        self._switch(request, prompts, active=True)

    @admin.action(description="Offer no longer", permissions=["change"])
    def withhold(self, request, prompts) -> None:
        self._switch(request, prompts, active=False)

    def _switch(self, request, prompts, *, active: bool) -> None:
        changed = prompts.exclude(active=active).update(active=active)
        are = "prompt is" if changed == 1 else "prompts are"
        messages.success(request, f"{changed:,} {are} {'offered' if active else 'no longer offered'}.")
