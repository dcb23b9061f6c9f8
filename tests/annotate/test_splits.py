"""Splits by family or by author: for ever, in their shares, and neither in two."""

import contextlib
import threading
from collections import defaultdict

import pytest
from django.db import OperationalError, connection, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate import conversations, derive, families, projects
from annotate.datasets.splits import Splitter
from annotate.errors import Conflict
from annotate.models import Export, FamilyMember, Project, SplitBy
from tests import factory

SECRET = "ab" * 32


def splitter(split_by: str = "author") -> Splitter:
    return Splitter(Project(secret=SECRET, split_by=split_by))


def people(*splits: str) -> list[int]:
    """Ids of authors of these splits."""
    found, number = [], 0
    for split in splits:
        number += 1
        while derive.split_of_author(SECRET, number) != split:
            number += 1
        found.append(number)
    return found


def family(split: str) -> str:
    return next(name for name in map(str, range(1000)) if derive.split_of(SECRET, name) == split)


def test_by_family_authors_do_not_count():
    assert splitter("family").of(family("test"), *people("train", "validation")) == "test"
    assert splitter("family").of(family("test")) == "test"


def test_a_family_goes_with_the_author_who_began_it():
    train, test, other = people("train", "test", "test")
    split = splitter()
    assert split.of(family("validation"), test, test) == "test"
    assert split.of(family("validation"), other, test) == "test"
    assert split.of(family("validation"), train, test) == "held_out"


def test_what_was_brought_in_goes_by_its_family():
    train, test = people("train", "test")
    split = splitter()
    assert split.of(family("validation"), None, None) == "validation"
    assert split.of(family("validation"), None, test) == "test"
    # A family that nobody began keeps its own split, whoever writes in it.
    assert split.of(family("train"), train, None) == "train"
    assert split.of(family("train"), test, None) == "held_out"


def test_what_is_near_to_two_splits_stays_held_out_whoever_wrote_it():
    name = derive.held_out("anything")
    (train,) = people("train")
    assert splitter().of(name, train, train) == splitter().of(name) == splitter("family").of(name) == "held_out"


def test_authors_have_the_shares_of_families():
    shares = defaultdict(int)
    for number in range(10_000):
        shares[derive.split_of_author(SECRET, number)] += 1
    assert 8_800 < shares["train"] < 9_200
    assert 400 < shares["validation"] < 600
    assert 400 < shares["test"] < 600


WORKS = st.lists(st.tuples(st.integers(0, 30), st.one_of(st.none(), st.integers(1, 30))), max_size=200)


@settings(max_examples=50, deadline=None)
@given(WORKS, st.sampled_from(SplitBy.values))
def test_neither_a_family_nor_an_author_is_in_two_splits(works, split_by):
    split, begun_by = splitter(split_by), {}
    of_family, of_author = defaultdict(set), defaultdict(set)
    for name, author in works:
        begun_by.setdefault(name, author)
        found = split.of(str(name), author, begun_by[name])
        if found != "held_out":
            of_family[name].add(found)
            if author is not None and split_by == "author":
                of_author[author].add(found)
    assert all(len(splits) == 1 for splits in (*of_family.values(), *of_author.values()))


@pytest.mark.django_db
def test_the_author_of_a_family_is_who_wrote_its_first_opening():
    project = factory.project(split_by="author")
    slot = factory.held_chat(project, factory.trainer(project))
    factory.turn(slot, "How do I mend a bicycle that squeaks when I brake hard in the rain?")
    first = conversations.finish(assignment=slot, user=slot.trainer)
    slot = factory.held_chat(project, factory.trainer(project))
    factory.turn(slot, "How do I mend a bicycle that squeaks when I brake hard in the rain??!")
    second = conversations.finish(assignment=slot, user=slot.trainer)
    assert second.family == first.family
    begun_by = FamilyMember.objects.get(member=first.family).author_id
    assert begun_by == first.trainer_id
    split = Splitter(project)
    own = derive.split_of_author(project.secret, first.trainer_id)
    assert split.of(first.family, first.trainer_id, begun_by) == own
    agree = derive.split_of_author(project.secret, second.trainer_id) == own
    assert split.of(second.family, second.trainer_id, begun_by) == (own if agree else "held_out")


PARTS = (("same", 60), ("one", 9), ("other", 9))


@pytest.mark.django_db
def test_by_author_what_is_near_to_families_of_two_authors_in_one_split_joins_one():
    """The names of families do not count then: those of their authors do."""
    project = factory.project(split_by="author")
    middle, *tails = (" ".join(derive.digest_of(f"{place}{at}")[:6] for at in range(count)) for place, count in PARTS)
    writers = iter([factory.trainer(project) for _ in range(60)])
    train = [one for one in writers if derive.split_of_author(project.secret, one.pk) == "train"][:2]
    texts = [f"{middle} {tail}" for tail in tails]
    found = [families.join(project=project, texts=[one], author=who)[0] for one, who in zip(texts, train, strict=True)]
    assert found == list(map(derive.family_of, texts))
    assert families.join(project=project, texts=[middle])[0] in found
    assert {Splitter(project).of(family, None, who.pk) for family, who in zip(found, train, strict=True)} == {"train"}


def exported(project, state: str) -> Export:
    fields = {"location": "there", "digest": "0" * 64} if state == "done" else {}
    ended = {} if state == "waiting" else {"ended_at": project.created_at}
    return Export.objects.create(project=project, what="comparisons", format="ranked", state=state, **fields, **ended)


@pytest.mark.django_db
def test_what_splits_go_by_is_fixed_with_the_first_export():
    project = factory.project()
    exported(project, "failed")
    exported(factory.project(), "done")
    projects.check_split_by(project=project, split_by="author")
    assert not projects.split_is_fixed(project)
    exported(project, "done")
    assert projects.split_is_fixed(project)
    with pytest.raises(Conflict, match="first export has fixed"):
        projects.check_split_by(project=project, split_by="author")
    projects.check_split_by(project=project, split_by="family")


@pytest.mark.django_db
def test_an_export_that_waits_fixes_it_too():
    project = factory.project()
    exported(project, "waiting")
    with pytest.raises(Conflict):
        projects.check_split_by(project=project, split_by="author")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("split_by", "waits"), [("family", False), ("author", True)])
def test_a_project_is_saved_while_an_import_runs_unless_its_splits_change(split_by, waits):
    project = factory.project()

    def save() -> None:
        with contextlib.suppress(OperationalError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '100ms'")
            projects.check_split_by(project=project, split_by=split_by)
            saved.append(split_by)
        connection.close()

    saved = []
    with transaction.atomic(), connection.cursor() as cursor:
        # As the rows of an import that refer to the project.
        cursor.execute("SELECT 1 FROM annotate_project WHERE id = %s FOR KEY SHARE", [project.pk])
        thread = threading.Thread(target=save)
        thread.start()
        thread.join()
    assert saved == ([] if waits else [split_by])


@pytest.mark.django_db(transaction=True)
def test_an_export_that_is_asked_for_at_this_moment_waits():
    project = factory.project()

    def ask() -> None:
        with contextlib.suppress(OperationalError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '100ms'")
            exported(project, "waiting")
        connection.close()

    thread = threading.Thread(target=ask)
    with transaction.atomic():
        projects.check_split_by(project=project, split_by="author")
        thread.start()
        thread.join()
    assert not Export.objects.exists()
    ask()
    assert Export.objects.exists()
