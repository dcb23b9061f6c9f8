"""The page of a project's rounds: figures against what is worked out by hand, links to all parents, and for whom."""

from datetime import timedelta

import pytest
from django.db.models import F
from django.utils import timezone
from django.utils.html import strip_tags

from annotate import iterations, rounds
from annotate.models import (
    Comparison,
    Export,
    Iteration,
    Passage,
    Policy,
    Project,
    Ranking,
    Role,
    TrainingPoint,
    TrainingRun,
)
from tests import factory

pytestmark = pytest.mark.django_db


def ranked(project: Project, *orders: str) -> Comparison:
    """A comparison, ranked by trainers who prefer one policy's candidates ("new", "last") or find all the same."""
    comparison = factory.open_comparison(project)
    by: dict[str, list[str]] = {"last": [], "new": []}
    youngest = max(project.policies.values_list("id", flat=True))
    candidates = comparison.candidates.order_by("id").values_list("completion__request__policy_id", flat=True)
    for letter, policy in zip("ABCD", candidates, strict=True):
        by["new" if policy == youngest else "last"].append(letter)
    assert [len(letters) for letters in by.values()] == [2, 2]
    new, last = (" = ".join(by[name]) for name in ("new", "last"))
    for order in orders:
        factory.ranking(comparison, {"new": f"{new} {last}", "last": f"{last} {new}", "same": f"{new} = {last}"}[order])
    return comparison


def exported(project: Project, what: str, **fields) -> Export:
    return Export.objects.create(
        **{
            "project": project,
            "what": what,
            "format": "ranked",
            "state": "done",
            "ended_at": timezone.now(),
            "location": "there",
            "digest": "0" * 64,
        }
        | fields
    )


def trained(project: Project, kind: str, base: Policy, *exports: Export, **fields) -> TrainingRun:
    made = {"state": "done", "ended_at": timezone.now(), "location": "there", "digest": "0" * 64}
    run = TrainingRun.objects.create(**{"project": project, "kind": kind, "base": base} | made | fields)
    run.exports.set(exports)
    return run


def learnt(project: Project) -> Policy:
    """What a reward model and PPO made of the open round, which is closed then; the next one is open with it."""
    ended = factory.current(project)
    last = max(ended.policies.all(), key=lambda policy: policy.pk)
    accuracy = {"unseen_accuracy": 0.6875, "unseen_accuracy_error": 0.021, "splits": {"unseen": {"comparisons": 31}}}
    reward = trained(project, "reward", last, exported(project, "comparisons"), metrics=accuracy)
    gain = {"reward_gain": 0.5, "reward_gain_error": 0.125, "after": {"kl": 3.25}}
    ppo = trained(project, "ppo", last, exported(project, "prompts"), reward=reward, metrics=gain)
    TrainingPoint.objects.bulk_create(
        TrainingPoint(run=ppo, step=step, values={"reward": step / 10, "kl": step / 4, "entropy": 2.0})
        for step in range(5)
    )
    new = factory.policy(parent=last, run=ppo)
    project.policies.add(new)
    Iteration.objects.filter(pk=ended.pk).update(state="closed", closed_at=timezone.now())
    opened = iterations.open_next(project=project)
    Passage.objects.create(
        project=project,
        iteration=ended,
        opens=opened,
        state="done",
        ended_at=timezone.now(),
        recipe={},
        steps={"open": {"policy": new.pk}},
    )
    return new


def of(project: Project) -> list[rounds.Round]:
    return rounds.of_project(project, list(project.iterations.order_by("-number")))


@pytest.fixture(scope="module")
def project(module_rows) -> Project:
    """Two rounds: of the first policy alone, and of what was learnt from that beside it."""
    made = factory.project(overlap=2, k=4)
    learnt(made)
    ranked(made, "new", "new")
    ranked(made, "same", "last")
    # These count in no figure: one that waits for its second ranking, and one that was not drawn.
    ranked(made, "new")
    chosen = ranked(made, "new", "new")
    Comparison.objects.filter(pk=chosen.pk).update(selection="uncertain", pool=chosen)
    factory.finished_piece(made)
    return made


def look(client, project: Project) -> str:
    answer = client.get(f"/admin/rounds/{project.slug}/")
    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    return " ".join(answer.content.decode().split())


def test_figures_are_as_worked_out_by_hand(project) -> None:
    second, first = of(project)
    assert second.counts == rounds.Counts(chats=4, pieces=1, comparisons=4, chosen=1, rankings=6)
    # Won whole by both; a tie and a loss: 1.25 of 2, and half a match each way besides.
    assert second.win_rate.value == pytest.approx(1.75 / 3)
    assert (second.win_rate.comparisons, second.win_rate.better, second.win_rate.tied, second.win_rate.worse) == (
        2, 8, 4, 4,
    )  # fmt: skip
    # All six pairs of the one, the two of one policy each of the other.
    assert (second.agreement.value, second.agreement.clusters) == (8 / 12, 2)
    assert (first.counts, first.win_rate, first.agreement, first.last) == (rounds.Counts(), None, None, None)


def test_agreement_and_win_rates_count_what_exports_count(project) -> None:
    Ranking.objects.filter(comparison__project=project).update(current=False)
    second, _ = of(project)
    assert (second.counts.rankings, second.win_rate, second.agreement) == (0, None, None)


def test_the_new_policy_is_compared_with_its_nearest_ancestor_there(project) -> None:
    second, _ = of(project)
    between = factory.policy(parent=second.last)
    Policy.objects.filter(pk=second.new.pk).update(parent=between)
    other = factory.policy()
    second.iteration.policies.add(other)
    again, _ = of(project)
    assert (again.new, again.last) == (second.new, second.last)
    # Without a passage the youngest is tried out, and without an ancestor there the next youngest is the last one.
    second.iteration.opened_by.delete()
    again = rounds.of_project(project, [Iteration.objects.get(pk=second.iteration.pk)])[0]
    assert (again.new, again.last) == (other, second.new)


def test_runs_stand_at_the_youngest_round_that_they_learnt_from(project) -> None:
    second, first = of(project)
    assert [run.kind for run in first.runs] == ["reward", "ppo"]
    assert second.runs == []
    ppo = first.runs[1]
    assert first.curves == {ppo.pk: [(step / 4, step / 10) for step in range(5)]}
    both = trained(project, "sft", first.new, *ppo.exports.all(), exported(project, "demonstrations"))
    of_first = trained(project, "dpo", first.new, exported(project, "comparisons", iteration=first.iteration))
    older = exported(project, "demonstrations")
    Export.objects.filter(pk=older.pk).update(created_at=timezone.now() - timedelta(days=9))
    trained(project, "sft", first.new, older)
    second, first = of(project)
    assert second.runs == [both]
    assert first.runs[2:] == [of_first]


def test_a_long_curve_is_thinned_to_its_last_point() -> None:
    points = [(float(step), 0.0) for step in range(1000)]
    thinned = rounds._thinned(points)
    assert len(thinned) <= rounds.POINTS + 1
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])


def test_the_page_shows_the_figures_with_links_to_all_parents(admin_client, project) -> None:
    second, first = of(project)
    text = look(admin_client, project)
    assert text.index('id="round-2"') < text.index('id="round-1"')
    assert f'<b>58 %</b> <span class="interval">({100 * second.win_rate.low:.0f} to' in text
    assert f"over {first.new}, in 2 comparisons: 8 better, 4 tied, 4 worse" in text
    assert "<b>66.7 ± 33.3 %</b>" in text
    assert (
        "<li><b>4</b> chats</li><li><b>1</b> piece</li><li><b>4</b> comparisons</li><li><b>6</b> rankings</li>" in text
    )
    assert "1 comparison was chosen, not drawn" in text
    assert '<b>68.8 ± 2.1 %</b> <span class="help">of unseen pairs foretold, in 31 comparisons</span>' in text
    assert "<b>+0.50 ± 0.12</b>" in text
    assert "<b>3.25</b>" in text
    assert '<polyline points="0.0,56.0 40.0,42.0 80.0,28.0 120.0,14.0 160.0,0.0"/>' in text
    assert "One policy alone" in text
    reward, ppo = first.runs
    _, way = strip_tags(text).split("where it comes from ", 1)
    exports = [run.exports.get().pk for run in (ppo, reward)]
    assert way.lstrip().startswith(
        f"{second.new} by ppo run {ppo.pk}, from export {exports[0]}, for reward run {reward.pk} from export "
        f"{exports[1]} {first.new}, which was brought in"
    )
    for one in (*Export.objects.all(), ppo, reward, second.new, first.new, *Passage.objects.all()):
        assert f'href="/admin/annotate/{one._meta.model_name}/{one.pk}/change/"' in text


def test_a_curve_that_begins_at_nothing_is_told_so(admin_client, project) -> None:
    TrainingPoint.objects.filter(run__project=project, step=0).update(values={"reward": -0.001, "kl": -0.002})
    assert "reward 0.00 to 0.40, over KL 0.00 to 1.00" in look(admin_client, project)


def test_what_is_not_there_yet_is_said(admin_client, project) -> None:
    new = factory.project(iteration=False)
    text = look(admin_client, new)
    assert "No round was opened yet" in text
    assert f"/admin/annotate/project/{new.pk}/open-iteration/" in text
    iterations.open_next(project=new)
    text = look(admin_client, new)
    assert "<code>manage.py iterate</code> ends the round" in text
    Comparison.objects.filter(project=project).update(selection="uncertain", pool=F("pk"))
    assert "No comparison drawn at random has candidates of both" in look(admin_client, project)
    Ranking.objects.filter(comparison__project=project).update(current=False)
    assert "No comparison has all its rankings yet." in look(admin_client, project)


def test_a_round_that_closes_and_one_that_won_all_are_told_as_they_are(admin_client) -> None:
    made = factory.shared_project(1, 1, overlap=1, k=4)
    for _ in range(30):
        ranked(made, "new")
    Iteration.objects.filter(project=made).update(state="closing")
    text = " ".join(strip_tags(look(admin_client, made)).split())
    assert "to over 99)" in text
    assert "100)" not in text
    assert "Nothing yet: the round closes when" in text
    assert "goes on" not in text


def test_a_passage_that_is_not_through_has_not_ended_its_round(admin_client, project) -> None:
    second = project.iterations.get(number=2)
    passage = Passage.objects.create(project=project, iteration=second, recipe={}, step="Waits for a yes: exporting")
    text = " ".join(strip_tags(look(admin_client, project)).split())
    assert f"on to the next round by passage {passage.pk} waiting Waits for a yes: exporting" in text
    assert f"ended by passage {passage.pk}" not in text
    assert "manage.py iterate" not in text
    Passage.objects.filter(pk=passage.pk).update(state="failed", ended_at=timezone.now(), step="")
    assert '<span class="state failed">failed</span>' in look(admin_client, project)


def test_queries_do_not_grow_with_rounds_and_rows(admin_client, project, django_assert_max_num_queries) -> None:
    page = f"/admin/rounds/{project.slug}/"
    admin_client.get(page)
    with django_assert_max_num_queries(24) as few:
        admin_client.get(page)
    for _ in range(2):
        learnt(project)
    with django_assert_max_num_queries(len(few)):
        text = admin_client.get(page).content.decode()
    assert 'id="round-4"' in text


def test_old_rounds_are_a_page_further(admin_client, project, monkeypatch) -> None:
    monkeypatch.setattr("annotate.admin.rounds.ON_A_PAGE", 1)
    assert "?page=2" in look(admin_client, project)
    text = admin_client.get(f"/admin/rounds/{project.slug}/?page=2").content.decode()
    assert 'id="round-1"' in text
    assert 'id="round-2"' not in text


def test_it_is_linked_from_the_index_and_the_project(admin_client, project) -> None:
    index = admin_client.get("/admin/").content.decode()
    assert 'href="/admin/rounds/"' in index
    page = f'href="/admin/rounds/{project.slug}/"'
    assert page in admin_client.get("/admin/rounds/").content.decode()
    assert page in admin_client.get(f"/admin/annotate/project/{project.pk}/change/").content.decode()


def test_only_admins_are_let_in(client, admin_client, project) -> None:
    addresses = ("/admin/rounds/", f"/admin/rounds/{project.slug}/")
    assert admin_client.get("/admin/rounds/no-such-project/").status_code == 404
    for role in (Role.TRAINER, Role.REVIEWER, Role.ENGINEER):
        person = factory.person(project, role=role)
        client.force_login(person, backend="sesame.backends.ModelBackend")
        for address in addresses:
            assert client.get(address, follow=True).status_code == 403
        person.is_staff = True
        person.save()
        for address in (*addresses, "/admin/rounds/no-such-project/"):
            assert client.get(address).status_code == 403
    client.logout()
    for address in addresses:
        answer = client.get(address)
        assert (answer.status_code, "login" in answer.headers["Location"]) == (302, True)
