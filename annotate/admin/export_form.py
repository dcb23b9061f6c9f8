"""The page on which an export is asked for."""

from django import forms
from django.contrib.admin.widgets import (
    AdminBigIntegerFieldWidget,
    AdminDateWidget,
    AdminIntegerFieldWidget,
    AdminTextareaWidget,
    AdminTextInputWidget,
)

from annotate.datasets import asking, filters, shapes, shards, snapshots
from annotate.errors import BothsidesError, Invalid
from annotate.models import Conversation, Export, Message

OF_ALL = ("iteration", "split", "since", "include", "without", "personal")

OF = {
    "comparisons": ("rankings", "pairs", "margin", "origins", "selection"),
    "demonstrations": ("review_states", "sources", "mix", "mix_seed"),
    "conversations": ("kinds",),
    "prompts": ("use_case",),
}
"""The filters that belong to one thing only, by what is exported."""


def _formats() -> list[tuple[str, list[tuple[str, str]]]]:
    """Each format under what it is of, as one choice: most names of formats belong to one thing only."""
    return [
        (what.capitalize(), [(f"{what}:{name}", f"{what}: {name}") for name in snapshots.WHATS[what].formats])
        for what in shapes.FORMATS
        if what in snapshots.WHATS
    ]


def _one(label: str, default: str, choices, help_text: str) -> forms.ChoiceField:
    """One of several, or nothing for the default."""
    return forms.ChoiceField(
        label=label, required=False, help_text=help_text, choices=[("", default), *((one, one) for one in choices)]
    )


def _some(label: str, choices, help_text: str) -> forms.MultipleChoiceField:
    """Any of several; none for the default."""
    return forms.MultipleChoiceField(
        label=label,
        required=False,
        help_text=help_text,
        choices=[(one, one.replace("_", " ")) for one in choices],
        widget=forms.CheckboxSelectMultiple,
    )


class NewExportForm(forms.ModelForm):
    """What to export and how. Each field but the first ones is a filter; what is left empty keeps its default."""

    what = forms.ChoiceField(
        label="What and format", help_text="Each format is described, with its reader, in docs/export-formats.md."
    )
    files_kind = forms.ChoiceField(
        label="Files", choices=[(one, one) for one in shards.KINDS], help_text="Zstandard and Parquet are smaller."
    )
    shard_rows = forms.IntegerField(
        label="Rows in a file",
        initial=100_000,
        min_value=1,
        max_value=shards.MOST_ROWS,
        widget=AdminBigIntegerFieldWidget,
        help_text="A split with more is written as several files; lines that belong together stay in one.",
    )
    iteration = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=2**31 - 1,
        widget=AdminIntegerFieldWidget,
        help_text="Only this round, by its number. All rounds where it is empty.",
    )
    split = _one("Split", "train, validation and test", shapes.SPLITS, "Only this split.")
    since = forms.DateField(
        required=False,
        widget=AdminDateWidget,
        help_text="Only what was ranked or finished from this day on, in UTC.",
    )
    include = _some(
        "Also what does not count",
        dict.fromkeys(name for names in filters.INCLUDE.values() for name in names),
        "; ".join(f"of {what}: {', '.join(names)}" for what, names in filters.INCLUDE.items() if names) + ".",
    )
    without = forms.CharField(
        required=False,
        widget=AdminTextInputWidget,
        help_text="People whose work is left out, by the codes under which exports name them; several with spaces.",
    )
    personal = _one(
        "Personal data",
        "ignore",
        [one for one in filters.PERSONAL if one != "ignore"],
        "report counts what looks like an address, a number or the like; redact also replaces it by its kind.",
    )
    rankings = _one(
        "Rankings",
        "each: as many lines as rankings",
        [one for one in filters.RANKINGS if one != "each"],
        "consensus makes one line of all rankings of a comparison, by their median rank.",
    )
    pairs = _one(
        "Pairs", "all", [one for one in filters.PAIRS if one != "all"], "Which strict pairs the formats of pairs make."
    )
    margin = _one("Margin", "none", filters.MARGINS, "What stands beside each pair: the difference in rank or rating.")
    selection = _one(
        "Selection", "all", filters.SELECTIONS, "Only comparisons drawn at random, or only those chosen as uncertain."
    )
    origins = _some("Origins", filters.ORIGINS, "Only rankings by trainers, or only imported ones.")
    review_states = _some(
        "Review states",
        Conversation.ReviewState.values,
        "Only those, in place of the project's rule of what counts.",
    )
    sources = _some(
        "Sources", Message.Source.values, "Only turns of the assistant that came about so; none chosen means all."
    )
    mix = forms.CharField(
        required=False,
        widget=AdminTextareaWidget(attrs={"rows": 3}),
        help_text="Exports to mix in, one a line: export:12:5000 for 5,000 conversations of export 12, export:12:0.5 "
        "for half as many as there are of the project's own.",
    )
    mix_seed = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=2**31 - 1,
        widget=AdminIntegerFieldWidget,
        help_text="Another number draws others; 0 where it is empty.",
    )
    kinds = _some("Kinds", Conversation.Kind.values, "Only conversations of these kinds; none chosen means all.")
    use_case = forms.CharField(
        label="Use case", required=False, widget=AdminTextInputWidget, help_text="Only openings of this one."
    )

    class Meta:
        model = Export
        fields = ("project",)

    def __init__(self, *args, asked_by=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked_by = asked_by
        self.made: Export | None = None
        self.fields["what"].choices = _formats()
        self.fields["project"].widget.can_add_related = False

    def clean(self) -> dict:
        """Ask for the export where nothing is wrong; what is refused only then is an error of the form too."""
        cleaned = super().clean()
        if "what" not in cleaned or "project" not in cleaned:
            return cleaned
        what, _, format = cleaned["what"].partition(":")
        given = self._given(cleaned)
        for name, value in given.items():
            try:
                filters.parse(what, {name: value})
            except Invalid as error:
                self._refuse(name, error.message)
        if not self.errors:
            try:
                self.made = asking.ask(
                    project=cleaned["project"],
                    what=what,
                    format=format,
                    given=given,
                    files={"kind": cleaned["files_kind"], "shard_rows": cleaned["shard_rows"]},
                    created_by=self.asked_by,
                    # The admin site shows all projects to whoever may enter it.
                    may_read=lambda project: True,
                )
            except BothsidesError as error:
                self._refuse(error.message.partition(":")[0].partition(" ")[0], error.message)
        return cleaned

    def _given(self, cleaned: dict) -> dict:
        """The filters that were filled in."""
        values = {name: cleaned.get(name) for names in (OF_ALL, *OF.values()) for name in names}
        values["without"] = (values["without"] or "").split()
        values["mix"] = (values["mix"] or "").split()
        return {name: value for name, value in values.items() if value not in (None, "", [])}

    def _refuse(self, name: str, message: str) -> None:
        """An error at its field, where it has one."""
        name = {"files": "files_kind"}.get(name, name)
        if " has no iteration " in message:
            name = "iteration"
        self.add_error(name if name in self.fields else None, message.removeprefix(f"{name}: "))


FIELDSETS = (
    (None, {"fields": ("project", "what", "files_kind", "shard_rows")}),
    ("Which of it", {"fields": OF_ALL, "description": "What is left empty keeps its default."}),
    *((f"Of {what}", {"fields": names, "classes": (f"only-{what}",)}) for what, names in OF.items()),
)
