"""Projects in the admin site: guidelines, settings, and the steps of a round."""

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from annotate import iterations, people, projects, scores
from annotate.admin import project_scores
from annotate.admin import projects as project_pages
from annotate.admin.project_form import ProjectForm
from annotate.models import Assignment, Export, Iteration, Membership, Project, ProjectPolicy, QueueCursor, Role
from tests import factory
from tests.admin_pages import filled

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return factory.project(slug="field", authors_rank_own=True)


def page_of(project: Project) -> str:
    return reverse("admin:annotate_project_change", args=[project.pk])


def step(name: str, project: Project) -> str:
    return reverse(f"admin:annotate_project_{name}", args=[project.pk])


def saved(client, project: Project, **changes):
    """The page that follows a save."""
    return client.post(page_of(project), filled(client.get(page_of(project)), **changes), follow=True)


def said(page) -> list[str]:
    return [str(message) for message in page.context["messages"]]


def test_a_changed_text_is_a_new_version_of_the_guidelines(admin_client, project) -> None:
    saved(admin_client, project, guidelines="Be *kind*.\r\n\r\nBe brief.\r\n")
    numbers = project.guideline_versions.order_by("number").values_list("number", "text")
    assert list(numbers) == [(1, factory.GUIDELINES), (2, "Be *kind*.\n\nBe brief.")]


def test_other_changes_make_no_new_version(admin_client, project) -> None:
    saved(admin_client, project, guidelines="Two\r\n\r\nparagraphs\r\n")
    saved(admin_client, project, name="Another name")
    project.refresh_from_db()
    assert (project.name, project.guideline_versions.count()) == ("Another name", 2)


def test_a_new_project_begins_with_its_guidelines(admin_client) -> None:
    address = reverse("admin:annotate_project_add")
    sent = filled(admin_client.get(address), name="New", slug="new", guidelines="Be kind.")
    admin_client.post(address, sent)
    assert Project.objects.get(slug="new").guideline_versions.get().text == "Be kind."


def test_the_secret_is_never_shown(admin_client, project) -> None:
    for address in (page_of(project), reverse("admin:annotate_project_changelist"), step("open-chats", project)):
        assert project.secret not in admin_client.get(address).content.decode()
    before = project.secret
    saved(admin_client, project, secret="0" * 64, name="Another name")
    project.refresh_from_db()
    assert (project.secret, project.name) == (before, "Another name")


def test_the_slug_stays(admin_client, project) -> None:
    saved(admin_client, project, slug="meadow")
    project.refresh_from_db()
    assert project.slug == "field"


def test_what_splits_go_by_is_chosen_until_the_first_export(admin_client, project) -> None:
    page = admin_client.get(page_of(project))
    saved(admin_client, project, split_by="author")
    project.refresh_from_db()
    assert project.split_by == "author"
    fields = {"location": "there", "digest": "0" * 64, "state": "done", "ended_at": project.created_at}
    Export.objects.create(project=project, what="comparisons", format="ranked", **fields)
    # One that was opened before the export cannot change it either.
    answer = admin_client.post(page_of(project), filled(page, split_by="family", name="Another name"))
    assert answer.status_code == 302
    answer = admin_client.get(page_of(project))
    assert "split_by" not in answer.context["adminform"].form.fields
    assert "Who held or wrote the conversation" in answer.content.decode()
    project.refresh_from_db()
    assert (project.split_by, project.name) == ("author", "Another name")


def test_an_export_that_is_asked_for_at_this_moment_fixes_it(admin_client, project) -> None:
    # The field is still there when the form is made.
    sent = filled(admin_client.get(page_of(project)), split_by="author")
    Export.objects.create(project=project, what="comparisons", format="ranked")
    form = ProjectForm(sent, instance=project)
    assert "The first export has fixed" in form.errors["split_by"][0]


@pytest.mark.parametrize("kinds", ["", "paint", "rank,rank", "rank,paint", "rank,review"])
def test_unknown_kinds_of_work_are_refused(admin_client, project, kinds: str) -> None:
    page = saved(admin_client, project, kinds=kinds)
    assert page.context["errors"]
    project.refresh_from_db()
    assert project.kinds == ["rank", "chat", "write"]


def test_how_writing_goes_is_set(admin_client, project) -> None:
    sent = {"write_from": "blank", "topic": "Cooking.\r\n", "turn_shape": "free", "suggestions": 2, "review_share": 0.5}
    saved(admin_client, project, kinds="write,rank", system_editable="on", counts_before_review="on", **sent)
    project.refresh_from_db()
    assert (project.kinds, project.topic, project.turn_shape) == (["write", "rank"], "Cooking.", "free")
    assert (project.suggestions, project.review_share) == (2, 0.5)
    assert project.system_editable
    assert project.counts_before_review
    assert not project.suggests_unasked


@pytest.mark.parametrize(
    "wrong",
    [{"suggestions": 4}, {"review_share": 1.5}, {"review_share": -1}, {"write_from": "x"}, {"return_hours": 8761}],
)
def test_settings_out_of_range_are_refused(admin_client, project, wrong: dict) -> None:
    assert saved(admin_client, project, **wrong).context["errors"]


def test_a_blank_page_needs_a_topic(admin_client, project) -> None:
    page = saved(admin_client, project, write_from="blank", topic=" ")
    assert "A blank page needs a topic" in page.content.decode()
    assert not saved(admin_client, project, write_from="blank", topic=" ", kinds="rank,chat").context.get("errors")


def test_the_open_iteration_keeps_its_settings_and_the_page_says_so(admin_client, project) -> None:
    page = saved(admin_client, project, k=6)
    assert any("from the next one on" in message for message in said(page))
    assert factory.current(project).k == 4
    assert not any("from the next one on" in message for message in said(saved(admin_client, project, name="New")))


def test_who_ranks_what_has_changed_so_the_whole_queue_is_looked_through_again(admin_client, project) -> None:
    QueueCursor.objects.create(
        project=project, trainer=factory.trainer(project), kind="rank", priority=0, ordinal=1, after=7
    )
    saved(admin_client, project, name="New")
    assert QueueCursor.objects.exists()
    saved(admin_client, project, authors_rank_own=None)
    project.refresh_from_db()
    assert (project.authors_rank_own, QueueCursor.objects.exists()) == (False, False)


def test_members_are_added_and_taken_off(admin_client, project) -> None:
    factory.trainer(project)
    user = factory.trainer()
    page = admin_client.get(page_of(project))
    new = {"memberships-TOTAL_FORMS": 2, "memberships-1-user": user.pk, "memberships-1-project": project.pk}
    admin_client.post(page_of(project), filled(page) | new)
    assert Membership.objects.filter(project=project, user=user).exists()
    page = admin_client.get(page_of(project))
    admin_client.post(page_of(project), filled(page) | {"memberships-1-DELETE": "on"})
    assert not Membership.objects.filter(project=project, user=user).exists()


def test_many_members_are_a_list_of_their_own(admin_client, project, monkeypatch) -> None:
    monkeypatch.setattr(project_pages, "MEMBERS_SHOWN", 2)
    for _ in range(3):
        factory.trainer(project)
    page = admin_client.get(page_of(project))
    assert [one.opts.model for one in page.context["inline_admin_formsets"]] == [ProjectPolicy]
    assert f"/admin/annotate/membership/?project__id__exact={project.pk}" in page.content.decode()
    assert (
        admin_client.get(f"/admin/annotate/membership/?project__id__exact={project.pk}").context["cl"].result_count == 3
    )


@pytest.mark.parametrize(
    ("own", "trainers", "warned"), [(True, 1, True), (True, 2, False), (False, 2, True), (False, 3, False)]
)
def test_too_few_trainers_for_the_overlap_are_warned_of(admin_client, project, own, trainers, warned) -> None:
    project.overlap, project.authors_rank_own = 2, own
    project.save()
    for _ in range(trainers):
        factory.trainer(project)
    factory.person(project, role=Role.REVIEWER)
    left = factory.trainer(project)
    left.is_active = False
    left.save()
    assert (
        any("2 rankings by different people" in message for message in said(admin_client.get(page_of(project))))
        == warned
    )


def test_nobody_for_the_only_ranking_is_warned_of(admin_client, project) -> None:
    project.overlap, project.authors_rank_own = 1, False
    project.save()
    factory.trainer(project)
    assert (
        "Each comparison wants 1 ranking, and nobody can rank it (whoever held a conversation does not rank it). "
        "Add trainers."
    ) in said(admin_client.get(page_of(project)))


def test_state_of_the_work_is_shown(admin_client, project) -> None:
    factory.chat_slot(project)
    factory.open_comparison(project)
    text = admin_client.get(page_of(project)).content.decode()
    assert "chat: 1, rank: 1" in text


def test_chat_slots_are_opened_after_a_page_that_asks_how_many(admin_client, project) -> None:
    address = step("open-chats", project)
    assert admin_client.get(address).status_code == 200
    assert not project.assignments.exists()
    page = admin_client.post(address, {"count": 7}, follow=True)
    assert said(page)[0] == "7 chat slots are open."
    assert project.assignments.filter(kind=Assignment.Kind.CHAT, state=Assignment.State.FREE).count() == 7
    assert LogEntry.objects.get().change_message == "7 chat slots are open."
    assert said(admin_client.post(address, {"count": 1}, follow=True))[0] == "1 chat slot is open."


@pytest.mark.parametrize("count", ["", "0", "-1", "100001", "many"])
def test_a_bad_number_of_slots_opens_none(admin_client, project, count: str) -> None:
    page = admin_client.post(step("open-chats", project), {"count": count})
    assert page.context["form"].errors
    assert not project.assignments.exists()


def test_writing_slots_are_opened_after_a_page_that_asks_how_many(admin_client, project) -> None:
    address = step("open-pieces", project)
    assert address in admin_client.get(page_of(project)).content.decode()
    assert "Writing slots" in admin_client.get(address).content.decode()
    page = admin_client.post(address, {"count": 3}, follow=True)
    assert said(page)[0] == "3 writing slots are open."
    assert project.assignments.filter(kind=Assignment.Kind.WRITE, state=Assignment.State.FREE).count() == 3


@pytest.mark.parametrize(
    ("share", "roles", "warning"),
    [
        (1.0, [], "no reviewer is a member"),
        (1.0, [["reviewer", "trainer"]], "The only reviewer here writes too"),
        (1.0, [["reviewer"]], ""),
        (0.5, [["reviewer", "trainer"], ["reviewer", "trainer"]], ""),
        (0.0, [], ""),
    ],
)
def test_reviews_that_nobody_could_give_are_warned_of(admin_client, project, share, roles, warning) -> None:
    Project.objects.filter(pk=project.pk).update(review_share=share)
    for several in roles:
        user = factory.person(project, role=several[0])
        for role in several[1:]:
            people.give_role(user=user, role=role)
    warned = [message for message in said(admin_client.get(page_of(project))) if "reviewer" in message]
    assert len(warned) == bool(warning)
    assert all(warning in message for message in warned)


def test_writing_that_begins_with_prompts_wants_some(admin_client, project) -> None:
    assert any("has no active one" in message for message in said(admin_client.get(page_of(project))))
    projects.add_prompts(project=project, openings=[projects.Opening(text="Why is bread flat?")])
    assert not any("has no active one" in message for message in said(admin_client.get(page_of(project))))


def test_rounds_are_closed_and_opened(admin_client, project) -> None:
    first = factory.current(project)
    factory.chat_slot(project)
    admin_client.get(step("close-iteration", project))
    assert factory.current(project) == first
    admin_client.post(step("close-iteration", project))
    first.refresh_from_db()
    assert first.state == Iteration.State.CLOSING
    assert project.assignments.get().state == Assignment.State.WITHDRAWN
    iterations.close_finished()
    admin_client.get(step("open-iteration", project))
    assert not project.iterations.filter(state=Iteration.State.OPEN).exists()
    page = admin_client.post(step("open-iteration", project), follow=True)
    assert "Iteration 2 is open." in said(page)
    assert factory.current(project).number == 2


def test_a_refused_step_is_a_message_and_changes_nothing(admin_client, project) -> None:
    assert "has an open iteration already" in said(admin_client.post(step("open-iteration", project), follow=True))[0]
    iterations.close(iteration=factory.current(project))
    for name, sent, reason in (
        ("open-chats", {"count": 3}, "has no open iteration"),
        ("close-iteration", {}, "No iteration is open."),
    ):
        assert reason in said(admin_client.post(step(name, project), sent, follow=True))[0]
    project.policies.all().update(active=False)
    assert "an active policy first" in said(admin_client.post(step("open-iteration", project), follow=True))[0]
    assert not project.assignments.exists()
    assert project.iterations.count() == 1
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("name", ["open-iteration", "close-iteration", "open-chats", "open-pieces"])
def test_steps_are_for_admins(client, project, name: str) -> None:
    user = factory.person(project, role=Role.REVIEWER)
    user.is_staff = True
    user.save()
    assert client.post(step(name, project), {"count": 3}).status_code == 302
    client.force_login(user, backend="sesame.backends.ModelBackend")
    for answer in (client.get(step(name, project)), client.post(step(name, project), {"count": 3})):
        assert answer.status_code == 403
    assert not project.assignments.exists()
    assert factory.current(project).number == 1


def test_a_project_that_is_not_there_is_said_to_be_missing(admin_client, project) -> None:
    address = step("open-chats", project).replace(str(project.pk), "999999")
    page = admin_client.post(address, {"count": 3}, follow=True)
    assert "doesn’t exist" in said(page)[0]


def test_the_reward_model_that_scores_is_chosen_among_those_of_the_project(
    admin_client, project, django_capture_on_commit_callbacks
) -> None:
    assert 'name="scored_by"' not in admin_client.get(reverse("admin:annotate_project_add")).content.decode()
    run = factory.reward_run(project, metrics={"unseen_accuracy": 0.684})
    factory.reward_run(project, state="failed", location="", digest="")
    factory.reward_run(project, kind="sft")
    other = factory.reward_run(factory.project())
    choices = admin_client.get(page_of(project)).context["adminform"].form.fields["scored_by"].choices
    assert [str(label) for _, label in choices][1:] == [f"Run {run.pk}: {run.location}, foretells 68% of unseen pairs"]
    with django_capture_on_commit_callbacks() as callbacks:
        saved(admin_client, project, scored_by=run.pk)
    project.refresh_from_db()
    assert (project.scored_by, len(callbacks)) == (run, 1)
    assert "Select a valid choice" in saved(admin_client, project, scored_by=other.pk).content.decode()
    with django_capture_on_commit_callbacks() as callbacks:
        saved(admin_client, project, name="Meadow")
    assert not callbacks
    saved(admin_client, project, scored_by="")
    project.refresh_from_db()
    assert project.scored_by is None


def test_it_says_how_far_the_scoring_is_and_what_keeps_it(admin_client, project) -> None:
    run = factory.reward_run(project)
    assert project_scores.told(project) == "Nothing is scored."
    scores.score_by(project=project, run=run)
    first, second, *_ = factory.open_comparison(project).candidates.all()
    scores.keep(run=run, by_head={first.pk: [0.5, 1.5], second.pk: None})
    scores.tell_trouble(run=run, reason="There is no folder <models>.")
    shown = admin_client.get(page_of(project)).content.decode()
    assert "Candidates scored: 1. Missing: 2." in shown
    assert "Too long for the model, or refused by its chat template: 1." in shown
    assert "A worker could not go on: There is no folder &lt;models&gt;." in shown
