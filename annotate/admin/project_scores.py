"""The reward model that scores a project: chosen on its page, with how far the scoring is."""

from django import forms

from annotate import scores
from annotate.models import Project, TrainingRun

HELP = (
    "What its candidates are scored by, in a worker that trains. Reviewers see the scores, and where people disagree "
    "with them, once all rankings of a comparison are in. Empty: nothing is scored; what was is kept."
)


class RunField(forms.ModelChoiceField):
    """The reward models of a project, the newest first."""

    def __init__(self, **how):
        super().__init__(queryset=TrainingRun.objects.none(), required=False, help_text=HELP, **how)

    def offer(self, project: Project) -> None:
        """Let those of this project be chosen."""
        self.queryset = scores.runs_of(project)

    def label_from_instance(self, run: TrainingRun) -> str:
        accuracy = run.metrics.get("unseen_accuracy")
        told = "" if accuracy is None else f", foretells {accuracy:.0%} of unseen pairs"
        return f"Run {run.pk}: {run.location}{told}"


def told(project: Project) -> str:
    """How far the scoring is, and what keeps it from going on."""
    run = project.scored_by
    if run is None:
        return "Nothing is scored."
    counts = scores.counts(project=project, run=run)
    some = "more than " if counts.missing == scores.MOST_COUNTED else ""
    parts = [f"Candidates scored: {counts.scored:,}. Missing: {some}{counts.missing:,}."]
    if counts.unreadable:
        parts.append(f"Too long for the model, or refused by its chat template: {counts.unreadable:,}.")
    if counts.missing and (reason := scores.trouble(run)):
        parts.append(f"A worker could not go on: {reason}")
    return " ".join(parts)
