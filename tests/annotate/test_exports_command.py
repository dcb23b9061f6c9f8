"""`exports`: the list, what two differ in, and new ones without a person's work."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from annotate import derive
from annotate.datasets import filters, snapshots
from annotate.models import Comparison, Conversation, Export, Prompt, Ranking
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.usefixtures("folders")]


@pytest.fixture
def project():
    return factory.project(slug="demo", overlap=1, counts_before_review=True)


FORMATS = {
    "comparisons": "ranked",
    "demonstrations": "messages",
    "conversations": "messages",
    "prompts": "prompt_only",
}


def run(*arguments: str) -> str:
    said = StringIO()
    call_command("exports", *arguments, stdout=said)
    return said.getvalue()


def told(*arguments: str):
    return json.loads(run(*arguments, "--json"))


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as refusal:
        call_command("exports", *arguments)
    assert refusal.value.returncode == 2
    return str(refusal.value)


def exported(project, what: str = "comparisons", format: str | None = None, **given) -> Export:
    format = format or FORMATS[what]
    return snapshots.export(what, project=project, format=format, filters=filters.parse(what, given))


def ranked(project, text: str, user=None, author=None, order: str = "A B C D") -> Ranking:
    return factory.ranking(factory.comparison_about(project, text, author), order, user)


def reasons(changes: dict) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for one in changes["keys"]:
        found.setdefault(one["why"], []).append(one["key"])
    return found


# The list --------------------------------------------------------------------------------------------


def test_nothing_yet(project):
    assert run() == "No exports yet. `manage.py export` makes one.\n"
    assert told("--project", "demo") == []


def test_each_is_a_line_with_its_rows_splits_digest_and_state(project):
    for number in range(3):
        ranked(project, f"Hello {number}")
    export = exported(project)
    half = snapshots.prepare(
        what="comparisons", project=project, format="preference", filters=filters.parse("comparisons", {})
    )
    alive = {"token": "0" * 32, "lease_until": timezone.now() + timedelta(minutes=1)}
    Export.objects.filter(pk=half.pk).update(state="running", step="Writing lines", done=43, total=100, **alive)
    head, first, second = run("--project", "demo").splitlines()
    assert head.split() == ["id", "when", "project", "what", "format", "rows", "splits", "digest", "state"]
    assert first.split()[0] == str(export.pk)
    for word in ("demo", "comparisons", "ranked", " 3 ", export.digest[:12], "done"):
        assert word in first
    assert "running, Writing lines, 43%" in second
    assert " - " in second


def test_those_that_were_cut_short_are_told_with_how_to_go_on(project):
    fields = {"project": project, "what": "comparisons", "format": "ranked"}
    lost = {"state": "running", "token": "0" * 32, "lease_until": timezone.now() - timedelta(minutes=1)}
    by_hand = Export.objects.create(**fields, **lost)
    by_worker = Export.objects.create(**fields, **lost, background=True)
    ended = {"ended_at": timezone.now(), "reason": "No space\nleft"}
    stopped = Export.objects.create(**fields, state="stopped", **ended)
    failed = Export.objects.create(**fields, state="failed", background=True, **ended)
    text = run()
    assert text.count("interrupted") == 3
    assert f"export {by_hand.pk}: interrupted; go on with it: manage.py export --go-on {by_hand.pk}" in text
    assert f"export {by_worker.pk}: whoever wrote it died; a worker goes on with it" in text
    assert f"export {stopped.pk}: stopped (No space left); it can be gone on with by manage.py export --go-on" in text
    assert f"export {failed.pk}: failed (No space left); it can be gone on with in the admin site or by REST" in text
    assert [one["interrupted"] for one in told()] == [True, True, False, False]


def test_json_has_all_that_is_known_and_only_of_the_project(project):
    ranked(project, "Hello")
    export = exported(project, split=None)
    other = factory.project()
    Export.objects.create(project=other, what="comparisons", format="ranked")
    (one,) = told("--project", "demo")
    assert (one["id"], one["digest"], one["rows"], one["state"]) == (export.pk, export.digest, 1, "done")
    assert one["filters"] == export.filters
    assert len(told()) == 2


# Differences -----------------------------------------------------------------------------------------


def test_what_came_and_went_is_told_by_key_reason_and_split(project):
    stays, superseded = ranked(project, "Stays"), ranked(project, "Superseded")
    left = ranked(project, "Left")
    a = exported(project)
    came = ranked(project, "New")
    Ranking.objects.filter(pk=superseded.pk).update(current=False)
    code = derive.pseudonym(project.secret, left.trainer_id)
    b = exported(project, without=[code])
    found = told("--diff", str(a.pk), str(b.pk))
    assert (found["same"], found["came"]["count"], found["went"]["count"]) == (1, 1, 2)
    assert reasons(found["came"]) == {"new": [came.pk]}
    assert reasons(found["went"]) == {
        "superseded by a newer version": [superseded.pk],
        "of a person who is left out": [left.pk],
    }
    split = derive.split_of(project.secret, came.comparison.message.conversation.family)
    assert found["came"]["by_split"] == {split: 1}
    assert found["manifest"] == {"filters.without": {"a": [], "b": [code]}}
    text = run("--diff", a.digest[:8], str(b.pk))
    assert f"from export {a.pk} to export {b.pk}, comparisons: 1 rankings in both" in text
    assert f"new: 1 ({came.pk})" in text
    assert f'filters.without: [] -> ["{code}"]' in text
    assert stays.pk not in [one["key"] for one in found["came"]["keys"]]
    # The other way round they came back.
    back = told("--diff", str(b.pk), str(a.pk))
    assert "of a person who is no longer left out" in reasons(back["came"])


def test_what_was_asked_for_otherwise_and_what_closed_since(project):
    open_one = factory.comparison_about(project, "Open")
    ranking = factory.ranking(open_one)
    Comparison.objects.filter(pk=open_one.pk).update(state="open", closed_at=None)
    ranked(project, "Closed")
    a = exported(project)
    with_open = exported(project, include=["open"])
    assert reasons(told("--diff", str(a.pk), str(with_open.pk))["came"]) == {"asked for otherwise": [ranking.pk]}
    assert reasons(told("--diff", str(with_open.pk), str(a.pk))["went"]) == {"asked for otherwise": [ranking.pk]}
    Comparison.objects.filter(pk=open_one.pk).update(state="closed", closed_at=timezone.now())
    b = exported(project)
    assert reasons(told("--diff", str(a.pk), str(b.pk))["came"]) == {
        "its comparison was closed since then": [ranking.pk]
    }


def test_of_demonstrations_it_tells_reviews(project):
    project.counts_before_review = False
    project.save()
    reviewed, returned = factory.finished_piece(project), factory.finished_piece(project)
    factory.review_of(returned)
    a = exported(project, "demonstrations")
    factory.review_of(reviewed)
    type(returned).objects.filter(pk=returned.pk).update(review_state="returned")
    b = exported(project, "demonstrations")
    found = told("--diff", str(a.pk), str(b.pk))
    assert reasons(found["came"]) == {"reviewed since then": [reviewed.pk]}
    assert reasons(found["went"]) == {"returned by a reviewer": [returned.pk]}
    assert found["keys_of"] == "conversations"


def test_of_demonstrations_it_tells_newer_versions(project):
    piece = factory.finished_piece(project)
    a = exported(project, "demonstrations")
    edit = factory.review_of(piece, edits={2: "Nine minutes."}).edit
    b = exported(project, "demonstrations")
    found = told("--diff", str(a.pk), str(b.pk))
    assert reasons(found["came"]) == {"a newer version": [edit.pk]}
    assert reasons(found["went"]) == {"superseded by a newer version": [piece.pk]}


def test_of_conversations_and_prompts_it_tells_the_same(project):
    first = factory.finished_chat(project)
    keep, drop = (Prompt.objects.create(project=project, text=text, digest=text, family=text * 64) for text in "ab")
    a, prompts_a = exported(project, "conversations"), exported(project, "prompts")
    later = factory.finished_piece(project)
    Prompt.objects.filter(pk=drop.pk).update(active=False)
    new = Prompt.objects.create(project=project, text="c", digest="c", family="c" * 64)
    b, prompts_b = exported(project, "conversations"), exported(project, "prompts")
    found = told("--diff", str(a.pk), str(b.pk))
    assert (found["same"], reasons(found["came"])) == (1, {"new": [later.pk]})
    found = told("--diff", str(prompts_a.pk), str(prompts_b.pk))
    assert (found["same"], found["keys_of"]) == (1, "prompts")
    assert reasons(found["came"]) == {"new": [new.pk]}
    assert reasons(found["went"]) == {"made inactive": [drop.pk]}
    assert keep.pk not in [one["key"] for one in found["went"]["keys"]]
    (left,) = told("--without-trainer", first.trainer.email, "--of", str(b.pk))
    assert list(snapshots.keys_of(Export.objects.get(pk=left["made"]))) == [later.pk]
    assert "nothing in it is theirs" in run("--without-trainer", first.trainer.email, "--of", str(prompts_b.pk))


def test_what_is_gone_from_the_record_is_told(project):
    ranked(project, "Stays")
    gone = ranked(project, "Gone")
    a = exported(project)
    gone.places.all().delete()
    Ranking.objects.filter(pk=gone.pk).delete()
    b = exported(project)
    found = told("--diff", str(a.pk), str(b.pk))
    assert reasons(found["went"]) == {"not in the record any more": [gone.pk]}
    assert found["went"]["by_split"] == {"": 1}


def test_two_of_the_same_differ_in_nothing(project):
    ranked(project, "Hello")
    a, b = exported(project), exported(project)
    found = told("--diff", str(a.pk), str(b.pk))
    assert (found["same"], found["came"]["count"], found["went"]["count"], found["manifest"]) == (1, 0, 0, {})


def test_the_number_of_questions_does_not_grow(project, django_assert_max_num_queries):
    ranked(project, "One")
    a = exported(project)
    ranked(project, "Two")
    b = exported(project)
    with django_assert_max_num_queries(20) as few:
        told("--diff", str(a.pk), str(b.pk))
    for number in range(5):
        ranked(project, f"More {number}")
    c = exported(project)
    with django_assert_max_num_queries(len(few)):
        assert told("--diff", str(a.pk), str(c.pk))["came"]["count"] == 6


def test_what_cannot_be_compared_is_refused(project):
    ranked(project, "Hello")
    factory.finished_piece(project)
    a, other = exported(project), exported(project, "demonstrations")
    waiting = snapshots.prepare(
        what="comparisons", project=project, format="ranked", filters=filters.parse("comparisons", {})
    )
    assert "only two of the same thing" in refused("--diff", str(a.pk), str(other.pk))
    assert f"Export {waiting.pk} is waiting" in refused("--diff", str(a.pk), str(waiting.pk))
    assert "There is no export 999." in refused("--diff", str(a.pk), "999")
    assert "There is no export abcdef." in refused("--diff", str(a.pk), "abcdef")
    assert "There is no project nope" in refused("--project", "nope")
    assert "either --diff or --without-trainer" in refused("--diff", "1", "2", "--without-trainer", "x")
    assert "--of names the export" in refused("--of", "1")


def test_a_digest_that_several_have_names_none(project):
    ranked(project, "Hello")
    a, b = exported(project), exported(project, format="preference")
    Export.objects.filter(pk=b.pk).update(digest=a.digest[:10] + "0" * 54)
    assert "Several exports have a digest that begins with" in refused("--diff", a.digest[:8], str(a.pk))


# Without a person ------------------------------------------------------------------------------------


@pytest.mark.parametrize("named_by", ["pseudonym", "number", "address"])
def test_a_new_one_is_made_of_the_latest_without_their_work(project, named_by):
    user, author = factory.trainer(project), factory.trainer(project)
    stays = ranked(project, "Stays")
    theirs, held = ranked(project, "Theirs", user), ranked(project, "Held", author=user)
    ranked(project, "More", author=author)
    earlier, parent = exported(project), exported(project)
    late = ranked(project, "Too late")
    code = derive.pseudonym(project.secret, user.pk)
    name = {"pseudonym": code, "number": str(user.pk), "address": user.email.upper()}[named_by]
    (left,) = told("--without-trainer", name, "--project", "demo")
    made = Export.objects.get(pk=left["made"])
    assert (left["parent"], left["theirs"]) == (parent.pk, 2)
    assert list(made.parents.all()) == [parent]
    assert made.manifest["parents"][0]["digest"] == parent.digest
    assert made.filters["without"] == [code]
    keys = set(snapshots.keys_of(made))
    assert stays.pk in keys
    assert keys.isdisjoint({theirs.pk, held.pk, late.pk})
    assert set(snapshots.keys_of(parent)) - keys == {theirs.pk, held.pk}
    assert reasons(left["difference"]["went"]) == {"of a person who is left out": [theirs.pk, held.pk]}
    assert earlier.children.count() == 0


def test_it_is_told_what_left_and_the_new_one_stands_in_its_place(project):
    first, second = factory.trainer(project), factory.trainer(project)
    for text, user in (("One", first), ("Two", second), ("Three", None)):
        ranked(project, text, user)
    parent = exported(project)
    text = run("--without-trainer", first.email, "--project", "demo")
    made = Export.objects.latest("id")
    assert f"export {parent.pk} (comparisons ranked): 1 rankings of theirs; without them it is export {made.pk}" in text
    assert "of a person who is left out: 1" in text
    # Of the second one's work the next is made from that, and nothing of the first one comes back.
    (left,) = told("--without-trainer", second.email, "--project", "demo")
    assert left["parent"] == made.pk
    assert len(Export.objects.get(pk=left["made"]).filters["without"]) == 2
    assert "nothing in it is theirs" in run("--without-trainer", first.email, "--project", "demo")
    assert Export.objects.count() == 3


def test_pieces_that_they_wrote_are_left_out(project):
    user = factory.trainer(project)
    mine, other = factory.finished_piece(project, user), factory.finished_piece(project)
    exported(project, "demonstrations")
    (left,) = told("--without-trainer", user.email, "--project", "demo")
    made = Export.objects.get(pk=left["made"])
    assert list(snapshots.keys_of(made)) == [other.pk]
    assert reasons(left["difference"]["went"]) == {"of a person who is left out": [mine.pk]}


def test_rankings_over_what_was_made_from_theirs_leave_too(project):
    user, other = factory.trainer(project), factory.trainer(project)
    held = factory.finished_chat(project, user)
    branch, stays = ranked(project, "A branch", author=other), ranked(project, "Stays", author=other)
    Conversation.objects.filter(pk=branch.comparison.message.conversation_id).update(forked_from=held)
    exported(project)
    (left,) = told("--without-trainer", user.email, "--project", "demo")
    assert list(snapshots.keys_of(Export.objects.get(pk=left["made"]))) == [stays.pk]
    assert reasons(left["difference"]["went"]) == {"of a person who is left out": [branch.pk]}
    again = exported(project, without=[derive.pseudonym(project.secret, user.pk)])
    assert list(snapshots.keys_of(again)) == [stays.pk]


def test_ranks_that_they_gave_leave_trees(project):
    user = factory.trainer(project)
    ranked(project, "Hello", user)
    parent = exported(project, "conversations", "oasst")
    assert parent.manifest["counts"]["ranked"] == 4
    assert "0 conversations of theirs and ranks that they gave" in run(
        "--without-trainer", user.email, "--project", "demo"
    )
    made = Export.objects.latest("id")
    assert list(made.parents.all()) == [parent]
    assert list(snapshots.keys_of(made)) == list(snapshots.keys_of(parent))
    assert made.manifest["counts"]["ranked"] == 0
    assert "nothing in it is theirs" in run("--without-trainer", user.email, "--project", "demo")


def test_of_one_only_and_where_all_is_theirs(project):
    user = factory.trainer(project)
    ranked(project, "Hello", user)
    parent, other = exported(project), exported(project, format="preference")
    text = run("--without-trainer", user.email, "--of", str(parent.pk))
    assert f"export {parent.pk} (comparisons ranked): all of it is theirs, so that no new one is made" in text
    assert f"export {other.pk}" not in text
    assert Export.objects.count() == 2


def test_work_of_theirs_that_is_mixed_in_is_not_overlooked(project):
    user = factory.trainer(project)
    factory.finished_piece(project, user)
    factory.finished_piece(project)
    mixed = exported(project, "conversations")
    factory.finished_piece(project)
    parent = exported(project, "demonstrations", without=[derive.pseudonym(project.secret, user.pk)])
    Export.objects.filter(pk=parent.pk).update(filters=parent.filters | {"mix": [f"export:{mixed.pk}:1"]})
    text = refused("--without-trainer", user.email, "--of", str(parent.pk))
    assert f"Export {mixed.pk}, which is mixed into export {parent.pk}, has work of this person." in text


def test_who_is_not_known_is_refused(project):
    ranked(project, "Hello")
    exported(project)
    stranger = factory.trainer()
    for name in ("0" * 16, str(stranger.pk), stranger.email):
        assert "Nobody in project demo" in refused("--without-trainer", name, "--project", "demo")
    for name in ("nobody@example.org", "999999", "me", "\0@x"):
        assert "There is nobody" in refused("--without-trainer", name, "--project", "demo")
    assert "Name the --project" in refused("--without-trainer", "me")
    empty = factory.project(slug="empty")
    user = factory.trainer(empty)
    assert "has no export that is done" in refused("--without-trainer", user.email, "--project", "empty")
    assert not Prompt.objects.exists()
