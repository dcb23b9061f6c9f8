"""The one door: owners and readers of a project get in, strangers learn nothing."""

import pytest
from django.utils import timezone

from annotate import access, assignments, people, rankings
from annotate.errors import Forbidden, NotFound
from annotate.models import Assignment, Membership, Role, User
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factory.project()


@pytest.fixture
def slot(project):
    factory.open_comparison(project)
    return assignments.claim(user=factory.trainer(project), project=project)


def test_projects_are_for_members(project):
    assert access.project_for(factory.trainer(project), project.slug) == project
    with pytest.raises(NotFound):
        access.project_for(factory.trainer(), project.slug)


def test_assignments_are_for_their_trainer(project, slot):
    assert access.assignment_for(slot.trainer, slot.pk) == slot
    for other in (factory.trainer(project), factory.person(project, role=Role.REVIEWER), factory.trainer()):
        with pytest.raises(NotFound):
            access.assignment_for(other, slot.pk)


def test_one_who_has_left_the_project_sees_nothing_of_it(project, slot):
    Membership.objects.filter(user=slot.trainer).delete()
    with pytest.raises(NotFound):
        access.assignment_for(slot.trainer, slot.pk)


def test_conversations_and_rankings_are_for_their_trainer_and_for_readers(project, slot):
    ranking = rankings.submit(assignment=slot, user=slot.trainer, tiers=[[pk] for pk in slot.shown_order])
    conversation = slot.comparison.message.conversation
    assert access.ranking_for(slot.trainer, ranking.pk) == ranking
    assert access.conversation_for(conversation.trainer, conversation.pk) == conversation
    for role in (Role.REVIEWER, Role.ADMIN, Role.ENGINEER):
        reader = factory.person(project, role=role)
        assert access.ranking_for(reader, ranking.pk) == ranking
        assert access.conversation_for(reader, conversation.pk) == conversation
        assert access.comparison_for(reader, ranking.comparison_id).pk == ranking.comparison_id
        stranger = factory.person(factory.project(), role=role)
        for door, pk in (
            (access.ranking_for, ranking.pk),
            (access.conversation_for, conversation.pk),
            (access.comparison_for, ranking.comparison_id),
        ):
            with pytest.raises(NotFound):
                door(stranger, pk)
    other = factory.trainer(project)
    with pytest.raises(NotFound):
        access.ranking_for(other, ranking.pk)
    with pytest.raises(NotFound):
        access.comparison_for(other, ranking.comparison_id)


def test_authors_read_what_a_reviewer_made_of_their_piece(project):
    author = factory.trainer(project)
    edit = factory.review_of(factory.finished_piece(project, author), edits={2: "Nine minutes."}).edit
    assert access.conversation_for(author, edit.pk) == edit
    for other in (factory.trainer(project), factory.trainer(factory.project())):
        with pytest.raises(NotFound):
            access.conversation_for(other, edit.pk)
    Membership.objects.filter(user=author).delete()
    with pytest.raises(NotFound):
        access.conversation_for(author, edit.pk)


def test_what_somebody_else_made_of_a_piece_is_not_its_first_authors(project):
    author, other = factory.trainer(project), factory.trainer(project)
    piece = factory.finished_piece(project, author)
    factory.review_of(piece, verdict="returned")
    mended = factory.finished_piece(project, slot=factory.held(piece.slots.get(kind="write"), other))
    assert mended.revises == piece
    with pytest.raises(NotFound):
        access.conversation_for(author, mended.pk)


@pytest.mark.parametrize(
    ("kind", "role"), [("review", Role.REVIEWER), ("rank", Role.TRAINER), ("write", Role.TRAINER), ("", Role.TRAINER)]
)
def test_each_kind_of_work_has_its_role(project, kind, role):
    for one in (Role.TRAINER, Role.REVIEWER):
        if one == role:
            access.require_role_for(factory.person(project, role=one), kind)
        else:
            with pytest.raises(Forbidden, match=f"role {role}"):
                access.require_role_for(factory.person(project, role=one), kind)


def test_work_of_others_is_for_readers(project):
    with pytest.raises(Forbidden, match="reviewer or admin or engineer"):
        access.reviewed_project_for(factory.trainer(project), project.slug)
    assert access.reviewed_project_for(factory.person(project, role=Role.REVIEWER), project.slug) == project


def test_one_who_ranks_a_comparison_does_not_read_it_before(project, slot):
    people.give_role(user=slot.trainer, role=Role.REVIEWER)
    reader = User.objects.get(pk=slot.trainer.pk)
    with pytest.raises(Forbidden, match="hold a ranking"):
        access.comparison_for(reader, slot.comparison_id)
    rankings.submit(assignment=slot, user=slot.trainer, tiers=[[pk] for pk in slot.shown_order])
    assert access.comparison_for(reader, slot.comparison_id) == slot.comparison


@pytest.mark.parametrize("ran_out", [False, True])
def test_one_who_ranks_a_reply_does_not_read_its_conversation_before(project, slot, ran_out):
    conversation = slot.comparison.message.conversation
    if ran_out:
        Assignment.objects.filter(pk=slot.pk).update(lease_until=timezone.now())
        assert assignments.expire() == 1
    people.give_role(user=slot.trainer, role=Role.REVIEWER)
    reader = User.objects.get(pk=slot.trainer.pk)
    with pytest.raises(Forbidden, match="hold a ranking"):
        access.conversation_for(reader, conversation.pk)
    assert access.conversation_for(conversation.trainer, conversation.pk) == conversation
    assert access.conversation_for(factory.person(project, role=Role.REVIEWER), conversation.pk) == conversation
