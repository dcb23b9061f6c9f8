"""Families: openings join those that they are near to, at first sight and for ever."""

import importlib
import random
import threading

import pytest
from django.apps import apps
from django.db import connection, transaction

from annotate import conversations, demonstrations, derive, families, likeness, projects
from annotate.models import Conversation, FamilyMember, Prompt, Role
from tests import factory

pytestmark = pytest.mark.django_db

WORDS = random.Random(7)


def words(count: int) -> str:
    """So many made-up words, others every time."""
    return " ".join("".join(WORDS.choices("abcdefghijklmnoprstuvw", k=6)) for _ in range(count))


@pytest.fixture
def project():
    return factory.project()


def join(project, *texts: str, **more) -> list[str]:
    return families.join(project=project, texts=list(texts), **more)


def between(project) -> tuple[str, str, str]:
    """Two openings of two splits that are not near to each other, and one that is near to both."""
    middle = words(60)
    one = f"{middle} {words(9)}"
    split = derive.split_of(project.secret, derive.family_of(one))
    while True:
        other = f"{middle} {words(9)}"
        if derive.split_of(project.secret, derive.family_of(other)) != split:
            break
    assert (
        likeness.likeness(one, other)
        < likeness.LIKE
        <= min(likeness.likeness(middle, one), likeness.likeness(middle, other))
    )
    return one, other, middle


def test_an_opening_begins_a_family_and_what_is_near_to_it_joins(project):
    text = words(30)
    (family,) = join(project, text)
    assert family == derive.family_of(text)
    assert join(project, f"{text} please", f"Please: {text}", words(30))[:2] == [family, family]
    # Near to a member is enough, and the same words are of the same family for ever.
    assert join(project, text.upper(), f"{text} please!") == [family, family]


def test_those_of_one_call_are_compared_too(project):
    text = words(30)
    found = join(project, text, words(30), f"{text} please", text)
    assert found[0] == found[2] == found[3] == derive.family_of(text)
    assert found[1] != found[0]


def test_short_ones_are_near_to_their_like_only(project):
    assert len(set(join(project, "What is a cat?", "What is a bat?", "what is a cat"))) == 2


def test_the_nearest_family_is_joined(project):
    text = words(40)
    far, near = f"{text} {words(5)}", f"{text} {words(1)}"
    secret = project.secret
    while derive.split_of(secret, derive.family_of(far)) != "train":
        far = f"{text} {words(5)}"
    while derive.split_of(secret, derive.family_of(near)) != "train":
        near = f"{text} {words(1)}"
    FamilyMember.objects.bulk_create(
        FamilyMember(
            project=project,
            member=derive.family_of(one),
            family=derive.family_of(one),
            text=one,
            near=likeness.bands(one),
        )
        for one in (far, near)
    )
    assert join(project, text) == [derive.family_of(near)]


def test_what_is_near_to_two_splits_is_held_out_and_what_is_near_to_it_with_it(project):
    one, other, middle = between(project)
    first, second = join(project, one, other)
    assert first != second
    (held_out,) = join(project, middle)
    assert (held_out[0], len(held_out)) == ("-", 64)
    assert derive.split_of(project.secret, held_out) == "held_out"
    assert join(project, f"{middle} {words(1)}") == [held_out]
    # Those that were there before stay what they are.
    assert join(project, one, other) == [first, second]


def test_what_is_near_to_two_families_of_one_split_joins_one(project):
    middle = words(60)
    found = []
    while len(found) < 2:
        text = f"{middle} {words(9)}"
        if derive.split_of(project.secret, derive.family_of(text)) == "train":
            found.append(text)
    both = join(project, *found)
    assert len(set(both)) == 2
    assert join(project, middle)[0] in both


def test_another_projects_families_do_not_count(project):
    text = words(30)
    (family,) = join(project, text)
    other = factory.project()
    assert join(other, f"{text} please") == [derive.family_of(f"{text} please")]
    assert join(project, f"{text} please") == [family]


def test_nothing_is_locked_where_all_is_known(project, django_assert_num_queries):
    text = words(30)
    join(project, text)
    with django_assert_num_queries(1):
        join(project, text, text.upper())


def test_more_openings_are_no_more_queries(project, django_assert_num_queries):
    texts = [words(20) for _ in range(40)]
    join(project, *texts[:20])
    for count in (2, 20):
        new = [f"{text} please" for text in texts[20 - count : 20]]
        # Known, a savepoint, the lock, known, the plan, what shares keys, texts, stored, the end of the savepoint.
        with django_assert_num_queries(9):
            join(project, *new)
        FamilyMember.objects.filter(member__in=map(derive.family_of, new)).delete()


@pytest.mark.django_db(transaction=True)
def test_two_that_come_at_once_begin_one_family():
    project = factory.project()
    text = words(30)
    at_once, found = threading.Barrier(4), []

    def come(number: int) -> None:
        at_once.wait()
        found.extend(join(project, f"{text} {number}"))
        connection.close()

    threads = [threading.Thread(target=come, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


# --- As people write -------------------------------------------------------------------------------------------------


def chat(project, opening: str, **more) -> Conversation:
    slot = factory.held_chat(project, factory.trainer(project))
    factory.turn(slot, opening)
    return conversations.finish(assignment=slot, user=slot.trainer)


def piece(project, opening: str, user=None) -> Conversation:
    turns = (factory.written_turn("user", opening), factory.written_turn("assistant", "Yes."))
    return factory.finished_piece(project, user, *turns)


def test_chats_and_pieces_join_each_other_by_their_openings(project):
    text = words(30)
    begun = chat(project, text)
    assert begun.family == derive.family_of(text)
    assert piece(project, f"{text} please").family == begun.family
    assert FamilyMember.objects.get(member=begun.family).author == begun.trainer


def test_what_is_near_comes_before_the_prompt_that_was_changed(project):
    text = words(30)
    (family,) = join(project, text)
    changed = " ".join([*text.split()[:20], *words(10).split()])
    projects.add_prompts(project=project, openings=[projects.Opening(changed)])
    (prompt,) = project.prompts.all()
    assert prompt.family != family
    assert chat(project, f"{text} please").family == family


def test_a_changed_prompt_that_has_no_family_yet_gets_one(project):
    text = words(30)
    projects.insert_prompts(project=project, openings=[projects.Opening(text)])
    half = " ".join([*text.split()[:25], *words(5).split()])
    assert chat(project, half).family == derive.family_of(text)


def test_a_revision_that_begins_as_another_split_is_held_out(project):
    one, other, _ = between(project)
    first, second = join(project, one, other)
    writer = factory.trainer(project)
    before = piece(project, one, writer)
    assert before.family == first
    again = factory.held(demonstrations.revise(conversation=before, user=writer), writer)
    turns = (factory.written_turn("user", other), factory.written_turn("assistant", "Yes."))
    revised = factory.finished_piece(project, writer, *turns, slot=again)
    assert revised.revises == before
    assert derive.split_of(project.secret, revised.family) == "held_out"
    assert join(project, one, other) == [first, second]


def test_a_reviewers_edit_that_begins_as_another_split_is_held_out(project):
    one, other, _ = between(project)
    join(project, one, other)
    done = piece(project, one)
    factory.review_of(done, edits={1: other})
    edit = done.revisions.get()
    assert edit.trainer.groups.get().name == Role.REVIEWER
    assert derive.split_of(project.secret, edit.family) == "held_out"


# --- What was brought in ---------------------------------------------------------------------------------------------


def test_imported_conversations_and_prompts_are_joined_afterwards(project):
    text = words(30)
    system = ("system", "Be kind.")
    found = [
        factory.imported(project, system, ("user", text), ("assistant", "Yes."), family=""),
        factory.imported(project, ("assistant", "Hello."), ("user", f"{text} please"), family=""),
        factory.imported(project, ("assistant", "Only this."), family=""),
    ]
    projects.insert_prompts(project=project, openings=[projects.Opening(f"{text} now")])
    told = []
    joined = families.join_pending(project=project, progress=lambda done, total: told.append((done, total)))
    assert joined == 4
    assert told == [(1, 4), (4, 4)]
    for conversation in found:
        conversation.refresh_from_db()
    (prompt,) = project.prompts.all()
    assert found[0].family == found[1].family == prompt.family == derive.family_of(f"{text} now")
    assert found[2].family == derive.family_of("Only this.")
    assert found[1].near == likeness.bands(likeness.whole(["Hello.", f"{text} please"]))
    assert prompt.near == likeness.bands(prompt.text)
    assert families.join_pending(project=project) == 0


def test_keys_that_are_there_stay(project):
    conversation = factory.imported(project, family="", near=[1, 2])
    families.join_pending(project=project)
    conversation.refresh_from_db()
    assert conversation.near == [1, 2]


def test_other_projects_and_what_is_joined_are_left_alone(project):
    other = factory.imported(factory.project(), family="")
    done = factory.imported(project, family="kept")
    assert families.join_pending(project=project) == 0
    for conversation, family in ((other, ""), (done, "kept")):
        conversation.refresh_from_db()
        assert conversation.family == family


def test_chunks_do_not_change_what_comes_of_it(project, monkeypatch):
    texts = [words(30) for _ in range(5)]
    for text in [*texts, *(f"{text} please" for text in texts)]:
        factory.imported(project, ("user", text), family="")
    monkeypatch.setattr(families, "CHUNK", 3)
    families.join_pending(project=project)
    found = list(Conversation.objects.order_by("id").values_list("family", flat=True))
    assert found == [derive.family_of(text) for text in texts] * 2


def test_chunks_of_long_openings_are_small(project, monkeypatch):
    texts = [words(30) for _ in range(6)]
    for text in texts:
        factory.imported(project, ("user", text), family="")
    monkeypatch.setattr(families, "CHARACTERS", len(texts[0]) + 1)
    told = []
    families.join_pending(project=project, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 6), (4, 6), (6, 6)]
    assert list(Conversation.objects.order_by("id").values_list("family", flat=True)) == [
        derive.family_of(text) for text in texts
    ]


@pytest.mark.django_db(transaction=True)
def test_two_join_at_once_and_both_end_when_all_is_joined(monkeypatch):
    project = factory.project()
    texts = [words(20) for _ in range(10)]
    for text in [*texts, *(f"{text} please" for text in texts)]:
        factory.imported(project, ("user", text), family="")
    monkeypatch.setattr(families, "CHUNK", 2)
    left = []

    def come() -> None:
        families.join_pending(project=project)
        left.append(families.pending(Conversation, project).count())
        connection.close()

    threads = [threading.Thread(target=come) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left == [0, 0]
    assert Conversation.objects.values("family").distinct().count() == 10


def test_little_is_joined_in_passing_and_much_is_not(project, monkeypatch):
    much = factory.project()
    factory.imported(project, family="")
    for _ in range(3):
        factory.imported(much, family="")
    projects.insert_prompts(project=factory.project(), openings=[projects.Opening("Why?")])
    monkeypatch.setattr(families, "FEW", 3)
    assert families.join_few() == 2
    assert families.join_few() == 0
    assert families.pending(Conversation, much).count() == 3
    assert not families.pending(Prompt, project).exists()


@pytest.mark.django_db(transaction=True)
def test_a_long_import_does_not_keep_people_waiting(monkeypatch):
    """The lock is held for one chunk, not for all of them."""
    project = factory.project()
    for _ in range(4):
        factory.imported(project, ("user", words(20)), family="")
    monkeypatch.setattr(families, "CHUNK", 1)
    between_chunks = []

    def come(done: int, total: int) -> None:
        def person() -> None:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [families.LOCK, project.pk])
                between_chunks.append(cursor.fetchone()[0])
            connection.close()

        thread = threading.Thread(target=person)
        thread.start()
        thread.join()

    families.join_pending(project=project, progress=come)
    assert between_chunks == [True] * 4


def test_openings_that_were_there_before_near_ones_joined_them_are_found(project, monkeypatch):
    texts = [words(30) for _ in range(5)]
    projects.add_prompts(project=project, openings=[projects.Opening(text) for text in texts[:3]])
    chats = [chat(project, text) for text in texts[3:]]
    FamilyMember.objects.update(text="", near=[])
    migration = importlib.import_module("annotate.migrations.0005_family_texts")
    monkeypatch.setattr(migration, "BATCH", 2)
    migration.fill(apps, connection.schema_editor())
    found = join(project, *(f"{text} please" for text in texts))
    assert found == list(map(derive.family_of, texts))
    assert found[3:] == [one.family for one in chats]
