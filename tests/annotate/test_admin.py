"""The admin site: every list and page opens, for admins only, and no list asks more for more rows."""

import itertools

import pytest
from django.contrib import admin
from django.urls import reverse
from django.utils import timezone
from rest_framework.authtoken.models import TokenProxy

from annotate import assignments, rankings
from annotate.models import (
    Assignment,
    Comparison,
    Conversation,
    Export,
    GenerationRequest,
    GuidelineVersion,
    Import,
    Iteration,
    Membership,
    Passage,
    Policy,
    Project,
    Prompt,
    Ranking,
    Review,
    Role,
    TrainingRun,
    User,
)
from annotate.projects import Opening, add_prompts
from tests import factory

pytestmark = pytest.mark.django_db

_numbers = itertools.count(1)

LISTED = (
    Assignment,
    Comparison,
    Conversation,
    Export,
    GenerationRequest,
    GuidelineVersion,
    Import,
    Iteration,
    Membership,
    Passage,
    Policy,
    Project,
    Prompt,
    Ranking,
    Review,
    TokenProxy,
    TrainingRun,
    User,
)
ADDED_TO = (Export, Membership, Policy, Project, Prompt, TokenProxy, User)


@pytest.fixture
def project() -> Project:
    return factory.project(slug="field")


@pytest.fixture(scope="module")
def everything(module_rows) -> None:
    """A row for every list, the same ones for all tests that ask."""
    one_of_each(factory.project())


def one_of_each(project: Project) -> None:
    """A row for every list."""
    add_prompts(project=project, openings=[Opening(text=f"Say {next(_numbers)}", use_case="chat")])
    user = factory.trainer(project)
    TokenProxy.objects.create(user=user)
    factory.open_comparison(project, turns=2)
    slot = assignments.claim(user=user, project=project)
    rankings.submit(assignment=slot, user=user, tiers=[[candidate] for candidate in slot.shown_order])
    piece = factory.finished_piece(project, user)
    factory.review_of(piece, comments={1: "Shorter."}, edits={2: "Eight."})
    Export.objects.create(
        project=project,
        iteration=factory.current(project),
        what="comparisons",
        format="ranked",
        manifest={"rank_order": "0=best"},
        digest="0" * 64,
        rows=1,
        location="demo",
        state="done",
        ended_at=timezone.now(),
    )
    Import.objects.create(project=project, source="set", format="hh", report={"refused_lines": []})
    run = TrainingRun.objects.create(project=project, kind="sft", base=factory.policy())
    if not Passage.objects.filter(project=project).exists():
        Passage.objects.create(
            project=project, iteration=factory.current(project), recipe={}, steps={"policy": {"run": run.pk}}
        )


def list_of(model) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def page_of(row) -> str:
    key = row.user_id if isinstance(row, TokenProxy) else row.pk
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[key])


def add_page_of(model) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_add")


def test_every_noun_that_has_rows_of_its_own_is_listed() -> None:
    from django.apps import apps

    registered = {model for model in admin.site._registry if model._meta.app_label == "annotate"}
    on_other_pages = {
        "Message",
        "Candidate",
        "Completion",
        "RankedCandidate",
        "ReviewComment",
        "ProjectPolicy",
        "IterationPolicy",
        "TrainingPoint",
        "Score",
    }
    nobodys_business = {"QueueCursor", "FamilyMember"}
    plain = {model for model in apps.get_app_config("annotate").get_models() if not model._meta.auto_created}
    assert registered == {model for model in plain if model.__name__ not in on_other_pages | nobodys_business}
    assert registered | {TokenProxy} == set(LISTED)


@pytest.mark.parametrize("model", LISTED)
def test_list_and_page_open(admin_client, everything, model) -> None:
    page = admin_client.get(list_of(model))
    assert page.status_code == 200
    row = model.objects.order_by("-pk").first()
    assert page_of(row) in page.content.decode()
    assert admin_client.get(page_of(row)).status_code == 200


@pytest.mark.parametrize("model", [model for model in LISTED if admin.site._registry[model].search_fields])
def test_list_is_searched(admin_client, everything, model) -> None:
    for words in ("1", "nothing like it", "\x00"):
        assert admin_client.get(list_of(model), {"q": words}).status_code == 200


@pytest.mark.parametrize("model", LISTED)
def test_is_added_to_and_deleted_only_where_that_harms_no_record(admin_client, everything, model) -> None:
    assert admin_client.get(add_page_of(model)).status_code == (200 if model in ADDED_TO else 403)
    row = model.objects.order_by("-pk").first()
    gone = admin_client.get(page_of(row).replace("change", "delete"))
    assert gone.status_code == (200 if model in (Membership, Prompt, TokenProxy) else 403)


@pytest.mark.parametrize("model", LISTED)
def test_others_are_kept_out(client, everything, project, model) -> None:
    row = model.objects.order_by("-pk").first()
    for address in (list_of(model), page_of(row), add_page_of(model)):
        assert client.get(address).status_code == 302
    for role in (Role.TRAINER, Role.REVIEWER, Role.ENGINEER):
        client.force_login(factory.person(project, role=role), backend="sesame.backends.ModelBackend")
        for address in (list_of(model), page_of(row), add_page_of(model)):
            assert client.get(address).status_code == 302
        assert client.get(list_of(model), follow=True).status_code == 403


def test_query_count_of_no_list_grows(admin_client, project, django_assert_max_num_queries) -> None:
    one_of_each(project)
    few = {}
    for model in LISTED:
        with django_assert_max_num_queries(20, info=model.__name__) as asked:
            admin_client.get(list_of(model))
        few[model] = len(asked)
    for _ in range(3):
        one_of_each(project)
        one_of_each(factory.project())
    for model in LISTED:
        with django_assert_max_num_queries(few[model], info=model.__name__):
            admin_client.get(list_of(model))


@pytest.mark.parametrize("model", [Project, User, Conversation, Comparison, Ranking, Review, GenerationRequest])
def test_query_count_of_a_page_does_not_grow(admin_client, project, model, django_assert_max_num_queries) -> None:
    """With what belongs to it: members, messages, candidates, rankings, completions."""
    project.overlap = 5
    project.save()
    Iteration.objects.update(overlap=5)
    small, large = grown(model, project, 1), grown(model, project, 5)
    admin_client.get(page_of(small))
    with django_assert_max_num_queries(40) as few:
        assert admin_client.get(page_of(small)).status_code == 200
    with django_assert_max_num_queries(len(few)):
        assert admin_client.get(page_of(large)).status_code == 200


def two_turns() -> tuple[dict, dict]:
    """A question and its answer."""
    question, answer = (factory.written_turn(role, text) for role, text in factory.TURNS)
    return question, answer


def test_a_written_conversation_shows_where_its_turns_came_from(admin_client, project) -> None:
    slot = factory.held_piece(project)
    request = factory.suggested(slot, "Eight minutes.", "Ten.")
    shown = [[request.pk, 0], [request.pk, 1]]
    question, answer = two_turns()
    answer |= {"text": "Eight minutes!", "from": shown[0], "shown": shown, "taken": 14}
    piece = factory.finished_piece(project, None, question, answer, slot=slot)
    factory.review_of(piece, edits={2: "Nine minutes."}, note="Longer.")
    text = " ".join(admin_client.get(page_of(piece)).content.decode().split())
    assert f"request {request.pk}, text 0, {request.policy}" in text
    assert "7%" in text
    assert "/ 0 / 14, 5 s" in text
    assert "Longer." in text
    edit = piece.revisions.get()
    assert page_of(edit) in text
    assert page_of(piece) in admin_client.get(page_of(edit)).content.decode()


def test_whom_a_slot_waits_for_is_listed(admin_client, project) -> None:
    author = factory.trainer(project)
    piece = factory.finished_piece(project, author)
    factory.review_of(piece, verdict="returned")
    text = admin_client.get(list_of(Assignment), {"q": author.email}).content.decode()
    assert text.count(str(author)) >= 2
    assert page_of(piece) in text


def grown(model, project: Project, size: int):
    """A row of a model to which `size` others belong."""
    if model is Project:
        made = factory.project()
        for _ in range(size):
            factory.trainer(made)
        return made
    if model is User:
        made = factory.trainer()
        for _ in range(size):
            made.memberships.create(project=factory.project())
        return made
    if model is Conversation:
        return factory.finished_chat(project, turns=size)
    if model is Review:
        piece = factory.finished_piece(project, None, *(size * two_turns()))
        return factory.review_of(piece, comments=dict.fromkeys(range(1, size + 1), "Shorter."))
    comparison = factory.open_comparison(project)
    if model is GenerationRequest:
        chat = factory.finished_chat(project, turns=1)
        request = GenerationRequest.objects.get(comparison__message__conversation=chat)
        GenerationRequest.objects.filter(pk=request.pk).update(n=size)
        request.n = size
        factory.answer(request)
        return request
    for _ in range(size):
        slot = assignments.claim(user=factory.trainer(project), project=project)
        ranking = rankings.submit(assignment=slot, user=slot.trainer, tiers=[slot.shown_order])
    return ranking if model is Ranking else comparison


@pytest.mark.parametrize(("selection", "told"), [("random", "–"), ("uncertain", "uncertain")])
def test_of_what_was_brought_in_only_what_was_chosen_elsewhere_is_said(admin_client, project, selection, told) -> None:
    comparison = factory.imported_comparison(project)
    Comparison.objects.filter(pk=comparison.pk).update(
        selection=selection, pool=comparison.pk if selection == "uncertain" else None
    )
    page = admin_client.get(reverse("admin:annotate_comparison_changelist"))
    assert f'<td class="field-chosen">{told}</td>' in page.content.decode()
    page = admin_client.get(reverse("admin:annotate_comparison_change", args=[comparison.pk]))
    assert page.status_code == 200
