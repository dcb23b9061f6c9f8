"""What a reward model makes of a comparison: for those who read the work of others, and for nobody who may rank."""

import pytest
from django.urls import reverse
from rest_framework.test import APIClient

from annotate import assignments, rankings, scores, streams
from annotate.models import Assignment, TrainingRun
from tests import factory
from trainers_ui import lists

LIST = "/projects/bread/rankings/"
# With more digits before the point than the seconds of a time have.
REWARDS = (7777.654, -3333.217, 1.0, 0.5)
SPREAD = 4444.123
SHOWN = ("7777.65", "-3333.2", "4444.12", "Reward model", "differs from", "pairs</span>")


@pytest.fixture
def run(project) -> TrainingRun:
    made = factory.reward_run(project)
    scores.score_by(project=project, run=made)
    return made


def scored(project, run, *orders: str, rewards=REWARDS):
    """A comparison whose candidates have these rewards, ranked by so many trainers."""
    comparison = factory.open_comparison(project)
    candidates = sorted(comparison.candidates.values_list("id", flat=True))
    given = zip(candidates, rewards, strict=True)
    by_head = {pk: None if reward is None else [reward - SPREAD, reward + SPREAD] for pk, reward in given}
    scores.keep(run=run, by_head=by_head)
    for order in orders:
        factory.ranking(comparison, order)
    return comparison


def page_of(comparison) -> str:
    return reverse("review_comparison", args=[comparison.pk])


def shows(response) -> bool:
    text = response.content.decode()
    return any(word in text for word in SHOWN)


def test_beside_the_order_of_people_once_all_rankings_are_in(browser, html, reviewer, project, run):
    page = html(browser(reviewer).get(page_of(scored(project, run, "A B C=D"))))
    assert "5 pairs otherwise than the model" in page
    assert f'<span class="quiet">run {run.pk} · differs from people on 2 of 5 pairs</span>' in page
    assert "A first, then C, then D, then B." in page
    assert '<td>1st</td><td colspan="2">7777.65 <span class="quiet">spread 4444.12</span>' in page
    assert '<td>4th</td><td colspan="2">-3333.22' in page


def test_what_the_model_cannot_read_has_no_place(browser, html, reviewer, project, run):
    page = html(browser(reviewer).get(page_of(scored(project, run, "A B C D", rewards=(1.0, None, 0.5, 0.25)))))
    assert "differs from people on 0 of 3 pairs" in page
    assert '<th scope="row">Reward model</th><td>–</td><td colspan="2">not scored</td>' in page


def test_nothing_while_a_place_is_free_or_no_model_scores(browser, reviewer, project, run):
    project.iterations.update(overlap=2)
    open_one, client = scored(project, run, "A B C D"), browser(reviewer)
    assert not shows(client.get(page_of(open_one)))
    factory.ranking(open_one)
    assert shows(client.get(page_of(open_one)))
    scores.score_by(project=project, run=factory.reward_run(project))
    assert not shows(client.get(page_of(open_one)))
    scores.score_by(project=project, run=None)
    assert not shows(client.get(page_of(open_one)))


def test_where_the_model_disagrees_most_comes_first(browser, html, reviewer, project, run, monkeypatch):
    little, much, _ = (scored(project, run, order) for order in ("A D C B", "B D C A", "A C D B"))
    client = browser(reviewer)
    response = client.get(LIST, {"state": "closed", "differing": ""})
    assert [row.pk for row in response.context["rows"]] == [much.pk, little.pk]
    assert '<span class="kind">1 of 6 pairs</span>' in html(response)
    assert "Where the reward model disagrees most" in html(client.get(LIST))
    monkeypatch.setattr(lists, "WINDOW", 2)
    response = client.get(LIST, {"state": "closed", "differing": ""})
    assert ([row.pk for row in response.context["rows"]], response.context["older"]) == ([much.pk], much.pk)
    response = client.get(LIST, {"state": "closed", "differing": "", "before": much.pk})
    assert ([row.pk for row in response.context["rows"]], response.context["older"]) == ([little.pk], None)
    assert "ranked otherwise" in html(client.get(LIST, {"state": "closed", "differing": "", "before": little.pk}))


def test_a_list_of_which_nothing_is_scored_yet_says_so(browser, html, reviewer, project, run):
    factory.ranking(factory.open_comparison(project))
    page = html(browser(reviewer).get(LIST, {"state": "closed", "differing": ""}))
    assert "The reward model has scored none of these yet." in page


def test_what_is_not_scored_takes_no_place_in_the_order(browser, reviewer, project, run, monkeypatch):
    monkeypatch.setattr(lists, "WINDOW", 2)
    little, much = (scored(project, run, order) for order in ("A D C B", "B D C A"))
    for _ in range(3):
        factory.imported_comparison(project)
    response = browser(reviewer).get(LIST, {"state": "closed", "differing": ""})
    assert ([row.pk for row in response.context["rows"]], response.context["older"]) == ([much.pk, little.pk], None)


def test_where_the_newest_differ_on_nothing_older_ones_can_still_be_reached(
    browser, html, reviewer, project, run, monkeypatch
):
    monkeypatch.setattr(lists, "WINDOW", 2)
    differing, *agreed = (scored(project, run, order) for order in ("B D C A", "A C D B", "A C D B"))
    page = html(browser(reviewer).get(LIST, {"state": "closed", "differing": ""}))
    assert f"before={agreed[0].pk}" in page
    assert f"/comparisons/{differing.pk}/" not in page


def test_without_a_model_and_in_other_states_there_is_no_such_list(browser, reviewer, project, run):
    client = browser(reviewer)
    assert client.get(LIST, {"state": "open", "differing": ""}).status_code == 422
    scores.score_by(project=project, run=None)
    assert client.get(LIST, {"differing": ""}).status_code == 422
    assert not shows(client.get(LIST))


def test_queries_of_the_list_do_not_grow(browser, count_queries, reviewer, project, run):
    client, address = browser(reviewer), f"{LIST}?state=closed&differing"
    scored(project, run, "B A C D")
    few = count_queries(client, address)
    for _ in range(3):
        scored(project, run, "B A C D")
    assert count_queries(client, address) == few


def addresses(comparison, *slots: Assignment) -> list[str]:
    """Of every page and resource on which a comparison, or one of these rankings of it, is read."""
    found = [page_of(comparison), LIST, f"{LIST}?state=open", f"{LIST}?differing", "/read/", "/history/", "/"]
    found += [reverse("review_conversation", args=[comparison.message.conversation_id])]
    found += [f"/api/v1/comparisons/{comparison.pk}/", "/api/v1/projects/bread/comparisons/"]
    for slot in slots:
        found += [reverse("work", args=[slot.pk]), f"/api/v1/assignments/{slot.pk}/"]
    return found


def leaks(browser, user, comparison, *slots: Assignment) -> list[str]:
    """The addresses that show this person a score, or on which the reward model puts the comparison in its order."""
    client, rest, found = browser(user), APIClient(), []
    rest.force_authenticate(user)
    for address in addresses(comparison, *slots):
        response = (rest if address.startswith("/api/") else client).get(address)
        text = response.content.decode()
        if any(word in text for word in SHOWN) and (address != f"{LIST}?differing" or page_of(comparison) in text):
            found.append(address)
    return found


def test_whoever_ranks_or_may_rank_sees_no_score_anywhere(browser, project, run, trainer):
    project.iterations.update(overlap=2)
    both = factory.person(project, role="reviewer")
    both.groups.add(trainer.groups.get())
    comparison = scored(project, run)
    assert not leaks(browser, both, comparison)
    held = {user: assignments.claim(user=user, project=project, kinds=["rank"]) for user in (trainer, both)}
    for user, slot in held.items():
        assert slot.comparison_id == comparison.pk
        assert not leaks(browser, user, comparison, slot)
        streamed = streams.client().xrange(streams.key_of(slot.pk))
        assert not any(word in str(streamed) for word in SHOWN)

    tiers = [[pk] for pk in comparison.candidates.values_list("pk", flat=True)]
    rankings.submit(assignment=held[both], user=both, tiers=tiers)
    # Another one has still to rank it.
    assert not leaks(browser, both, comparison, held[both])
    rankings.submit(assignment=held[trainer], user=trainer, tiers=tiers)
    assert leaks(browser, both, comparison, held[both]) == [page_of(comparison), f"{LIST}?differing"]
    assert not leaks(browser, trainer, comparison, held[trainer])
    # What ran out may come in late.
    Assignment.objects.filter(pk=held[both].pk).update(state="expired")
    assert not leaks(browser, both, comparison, held[both])


def test_not_for_trainers_and_strangers(browser, trainer, project, run):
    comparison = scored(project, run, "B A C D")
    outside = factory.person(factory.project(), role="reviewer")
    for user, statuses in ((trainer, (404, 403)), (outside, (404, 404))):
        client = browser(user)
        assert (client.get(page_of(comparison)).status_code, client.get(f"{LIST}?differing").status_code) == statuses
