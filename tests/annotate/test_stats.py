"""`stats`: what projects hold, by state, by iteration and by person."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotate import assignments, iterations
from annotate.models import Assignment, Message
from tests import factory

pytestmark = pytest.mark.django_db


def stats(*arguments: str) -> str:
    said = StringIO()
    call_command("stats", *arguments, stdout=said)
    return said.getvalue()


@pytest.fixture
def project():
    """Two chats by Ann, one ranked by Bob with all bad and by Ann; a skip by Bob; a free chat slot."""
    made = factory.project(slug="demo", overlap=2, authors_rank_own=True)
    ann = factory.person(made, email="ann@example.org")
    bob = factory.person(made, email="bob@example.org")
    made.prompts.create(text="Never used", digest="d", family="f", uses=0, active=False)
    comparison = factory.comparison_about(made, "One", ann)
    factory.ranking(comparison, user=bob, all_bad=True, active_seconds=1800)
    factory.ranking(comparison, user=ann, active_seconds=7200)
    factory.finished_chat(made, ann)
    skipped = factory.held_chat(made, bob)
    assignments.skip(assignment=skipped, user=bob, reason="language")
    return made


def test_counts_as_json(project):
    (found,) = json.loads(stats("--project", "demo", "--json"))
    assert found["project"] == "demo"
    assert found["prompts"] == {"active": 0, "used": 0}
    (iteration,) = found["iterations"]
    assert (iteration["number"], iteration["state"]) == (1, "open")
    assert iteration["conversations"] == {"open": 0, "finished": 2, "abandoned": 1}
    assert iteration["comparisons"] == {"sampling": 1, "open": 0, "closed": 1, "failed": 0, "passed_over": 0}
    none = dict.fromkeys(Assignment.State.values, 0)
    assert iteration["assignments"] == {
        "chat": none | {"free": 1, "submitted": 2, "skipped": 1},
        "rank": none | {"submitted": 2},
        "write": none,
        "review": none,
    }
    assert iteration["written"] == {"none": 0, "wanted": 0, "approved": 0, "returned": 0}
    assert iteration["suggestions"] == {"asked": 0, "sampled": 0, "taken": 0, "edited": 0}
    assert {state: count for state, count in iteration["requests"]["reply"].items() if count} == {"done": 2}
    assert {state: count for state, count in iteration["requests"]["alternatives"].items() if count} == {
        "waiting": 1,
        "done": 1,
    }
    assert iteration["rankings"] == {"submitted": 2, "surplus": 0, "all_bad": 1}
    nothing = {"held": 0, "expired": 0, "surplus": 0, "written": 0, "reviews": 0}
    assert found["people"] == [
        {"email": "ann@example.org", "chats": 2, "rankings": 1, "skipped": 0, "seconds": 7200} | nothing,
        {"email": "bob@example.org", "chats": 0, "rankings": 1, "skipped": 1, "seconds": 1800} | nothing,
    ]


def test_counts_for_people(project):
    said = stats("--project", "demo")
    assert said.splitlines() == [
        "demo",
        "  prompts        none",
        "  imported       none",
        "  iteration 1, open",
        "    conversations  finished 2, abandoned 1",
        "    written        none",
        "    as user        none",
        "    as assistant   none",
        "    suggestions    none",
        "    comparisons    sampling 1, closed 1",
        "    chat slots     free 1, submitted 2, skipped 1",
        "    rank slots     submitted 2",
        "    write slots    none",
        "    review slots   none",
        "    reply          done 2",
        "    suggestion     none",
        "    alternatives   waiting 1, done 1",
        "    rankings       submitted 2, all bad 1",
        "  ann@example.org: chats 2, rankings 1; 2.0 hours at work",
        "  bob@example.org: rankings 1, skipped 1; 0.5 hours at work",
    ]


@pytest.fixture
def written():
    """A piece with an opening, an answer edited from one of two suggestions and a taken question; and three others."""
    made = factory.project(slug="written")
    ann = factory.person(made, email="ann@example.org")
    ray = factory.person(made, role="reviewer", email="ray@example.org")
    made.prompts.create(text="Say hello", digest="d", family="f")
    slot = factory.held_piece(made, ann)
    first = factory.suggested(slot, "Hello!", "Hi!")
    second = factory.suggested(slot, "And now?", role="user")
    turns = [
        factory.written_turn("user", "Say hello", opening=True, taken=9),
        factory.written_turn("assistant", "Hello to you!", **{"from": [first.pk, 0]}, shown=[[first.pk, 1]], taken=6),
        factory.written_turn("user", "And now?", **{"from": [second.pk, 0]}, taken=8),
        factory.written_turn("assistant", "Nothing."),
    ]
    factory.review_of(factory.finished_piece(made, None, *turns, slot=slot), ray)
    factory.review_of(factory.finished_piece(made, ann), ray, "returned")
    factory.finished_piece(made, ann)
    factory.held_piece(made)
    return made


def test_what_was_written(written):
    (found,) = json.loads(stats("--project", "written", "--json"))
    (iteration,) = found["iterations"]
    assert iteration["conversations"] == {"open": 1, "finished": 3, "abandoned": 0}
    assert iteration["written"] == {"none": 0, "wanted": 1, "approved": 1, "returned": 1}
    sources = dict.fromkeys(Message.Source.values, 0)
    assert iteration["messages"] == {
        "user": sources | {"written": 2, "imported": 1, "taken": 1},
        "assistant": sources | {"written": 3, "edited": 1},
    }
    assert iteration["suggestions"] == {"asked": 2, "sampled": 3, "taken": 1, "edited": 1}
    assert iteration["requests"]["suggestion"]["done"] == 2
    assert (iteration["assignments"]["write"]["submitted"], iteration["assignments"]["write"]["free"]) == (3, 1)
    assert (iteration["assignments"]["review"]["submitted"], iteration["assignments"]["review"]["free"]) == (2, 1)
    people = {person["email"]: (person["written"], person["reviews"]) for person in found["people"]}
    assert (people["ann@example.org"], people["ray@example.org"]) == ((3, 0), (0, 2))


def test_what_was_written_for_people(written):
    said = stats("--project", "written").splitlines()
    for line in (
        "    written        to be reviewed 1, approved 1, returned 1",
        "    as user        written 2, taken 1, imported 1",
        "    as assistant   written 3, edited 1",
        "    suggestions    asked 2, sampled 3, taken 1, edited 1",
        "    write slots    free 1, held 1, submitted 3",
        "    review slots   free 1, submitted 2",
        "    suggestion     done 2",
    ):
        assert line in said


def test_each_iteration_counts_its_own(project):
    first = factory.current(project)
    iterations.close(iteration=first)
    iterations.close_finished()
    iterations.open_next(project=project)
    factory.chat_slot(project)
    (found,) = json.loads(stats("--project", "demo", "--json"))
    old, new = found["iterations"]
    assert (old["number"], new["number"], new["state"]) == (1, 2, "open")
    assert new["assignments"]["chat"]["free"] == 1
    assert new["conversations"]["finished"] == 0
    assert old["conversations"]["finished"] == 2


def test_all_projects(project):
    factory.project(slug="another")
    assert [found["project"] for found in json.loads(stats("--json"))] == ["another", "demo"]
    assert [line for line in stats().splitlines() if not line.startswith(" ")] == ["another", "demo"]


def test_no_project_at_all():
    assert json.loads(stats("--json")) == []
    assert stats() == ""


def test_an_unknown_project(project):
    with pytest.raises(CommandError) as refusal:
        stats("--project", "nope")
    assert refusal.value.returncode == 2
    assert str(refusal.value) == "There is no project nope. Projects: demo."


def test_queries_do_not_grow_with_rows(project):
    with CaptureQueriesContext(connection) as few:
        stats()
    other = factory.project()
    factory.ranking(factory.comparison_about(other, "Two"))
    slot = factory.held_piece(other)
    factory.suggested(slot, "Hello!")
    factory.review_of(factory.finished_piece(other, slot=slot))
    with CaptureQueriesContext(connection) as more:
        stats()
    assert len(more) == len(few)
