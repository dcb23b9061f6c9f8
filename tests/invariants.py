"""What must hold of the queue at any time, asked of the whole record at once."""

from django.db.models import Count, F, Q

from annotate.models import Assignment, Comparison, Project, Ranking

State = Assignment.State


def check_queue(project: Project) -> None:
    """Raises AssertionError where a comparison has lost a place, has one too many, or a row forgot its trainer."""
    live = Count("assignments", filter=Q(assignments__state__in=Assignment.LIVE))
    submitted = Count("assignments", filter=Q(assignments__state=State.SUBMITTED))
    comparisons = Comparison.objects.filter(project=project, state__in=["open", "closed"]).annotate(
        live=live, submitted=submitted
    )
    assert not comparisons.exclude(live=F("overlap")).exists()
    assert not comparisons.filter(state="closed").exclude(submitted=F("overlap")).exists()
    assert not comparisons.filter(state="open", submitted=F("overlap")).exists()
    rows = Assignment.objects.filter(project=project, kind="rank")
    doubled = rows.exclude(trainer=None).values("comparison", "trainer").annotate(rows=Count("id")).filter(rows__gt=1)
    assert not doubled.exists()
    done = rows.filter(state__in=[State.SUBMITTED, State.SURPLUS])
    assert Ranking.objects.filter(comparison__project=project, current=True).count() == done.count()
    assert set(done) == {ranking.assignment for ranking in Ranking.objects.filter(comparison__project=project)}
    ended_with_heir = rows.filter(state__in=[State.SKIPPED, State.EXPIRED, State.SURPLUS])
    assert not ended_with_heir.filter(replacement=None).exists()


def check_all_done(project: Project) -> None:
    """Raises AssertionError where anything is left to do."""
    check_queue(project)
    assert not Comparison.objects.filter(project=project).exclude(state="closed").exists()
    assert not Assignment.objects.filter(project=project, state__in=[State.FREE, State.HELD]).exists()
