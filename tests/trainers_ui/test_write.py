"""The writing desk, and what its script asks of the server."""

import html as html_module
import json
import re

import pytest
from django.urls import reverse

from annotate import assignments, demonstrations, streams
from annotate.models import Assignment, Conversation, GenerationRequest, Prompt
from annotate.policies import switch_off
from annotate.projects import Opening, add_prompts
from tests import factory
from tests.trainers_ui.conftest import JSON

ANSWER = "Eight minutes in boiling water."
QUESTION = [{"role": "user", "content": "How do I boil an egg?"}]


@pytest.fixture
def piece(project, trainer) -> Assignment:
    """A piece of writing that the trainer holds, nothing written yet."""
    return factory.held_piece(project, trainer)


@pytest.fixture
def ask(browser, trainer, piece):
    """Posts to an endpoint of the desk as its script does."""
    client = browser(trainer)

    def asked(name, client=client, **fields):
        return client.post(reverse(name, args=[piece.pk]), fields, **JSON)

    return asked


@pytest.fixture
def desk(browser, trainer, piece):
    """The page as it is now, and what it tells its script."""

    def shown(slot=piece):
        response = browser(slot.trainer).get(reverse("work", args=[slot.pk]))
        page = response.content.decode()
        told = re.findall(r'data-([a-z-]+)="([^"]*)"', page[page.index("<write-task") :])
        return page, {name: html_module.unescape(value) for name, value in told[::-1]}

    return shown


def ready(piece) -> None:
    """A worker says that it holds the policy."""
    policies = {str(piece.iteration.reply_policy_id): {"state": "ready", "reason": ""}}
    streams.client().set(f"{streams.HEARTBEAT}test", json.dumps({"policies": policies}))


# --- The page ------------------------------------------------------------------------------------------------------


def test_it_opens_with_a_prompt(desk, project):
    add_prompts(project=project, openings=[Opening(text="Why is <bread> flat?")])

    page, told = desk(factory.held_piece(project))

    assert told["prompt"] == "Why is <bread> flat?"
    assert json.loads(told["draft"])["turns"][0]["opening"] is True
    assert "Write my own instead" in page
    assert "<bread>" not in page


def test_a_blank_page_has_the_topic(desk, project, piece):
    project.topic = "Anything about *bread*"
    project.save()

    page, told = desk()

    assert "Anything about <em>bread</em>" in page
    assert json.loads(told["draft"])["turns"][0]["text"] == ""


def test_what_is_written_is_shown_at_once(desk, piece):
    factory.save(piece, factory.written_turn("user", "\nHow *do* I?"), factory.written_turn("assistant", ""))

    page, told = desk()

    assert "How <em>do</em> I?" in page
    assert "\n\nHow *do* I?</textarea>" in page
    assert told["version"] == "1"


def test_it_knows_the_suggestions_that_texts_came_from(desk, piece):
    request = factory.suggested(piece, ANSWER, before=QUESTION)
    turn = factory.written_turn("assistant", "Nine minutes.", **{"from": [request.pk, 0]})
    factory.save(piece, factory.written_turn("user", "How?"), turn)

    assert json.loads(desk()[1]["origins"]) == {f"{request.pk}/0": ANSWER}


def test_it_tells_nothing_of_what_others_were_suggested(desk, project, piece):
    other = factory.suggested(factory.held_piece(project), "Secret", before=QUESTION)
    turn = factory.written_turn("user", "How?", **{"from": [other.pk, 0]})
    factory.save(piece, turn)

    page, told = desk()

    assert told["origins"] == "{}"
    assert "Secret" not in page


@pytest.mark.parametrize("draft", [{}, {"turns": 5}, {"turns": [None]}, {"turns": [{"text": "<script>"}], "at": "x"}])
def test_a_draft_from_elsewhere(desk, trainer, piece, draft):
    assignments.save_draft(assignment=piece, user=trainer, draft=draft, version=0)

    page, told = desk()

    assert json.loads(told["draft"]) == draft
    assert "<script>" not in page


def test_the_system_message_can_be_changed_where_the_project_says_so(desk, project, piece):
    assert "data-system" not in desk()[0]
    project.system_editable = True
    project.save()

    page, told = desk()

    assert f"{project.system_message}</textarea>" in page
    assert told["own"] == project.system_message


def test_without_scripts_it_says_that_it_needs_them(desk):
    assert "Writing needs scripts" in desk()[0]


def test_suggestions_are_not_available(desk, piece):
    assert "Suggestions are not available now: no worker is running" in desk()[0]
    ready(piece)
    assert "Suggestions are not available now" not in desk()[0]


def test_what_came_back_shows_what_to_mend(desk, project):
    conversation = factory.finished_piece(project)
    factory.review_of(conversation, verdict="returned", note="How <old> is it?", comments={2: "Say hard or soft."})

    page, told = desk(assignments.claim(user=conversation.trainer, project=project, kinds=["write"]))

    assert "This came back from its review." in page
    assert "How &lt;old&gt; is it?" in page
    assert json.loads(told["comments"]) == {"2": "Say hard or soft."}
    assert len(json.loads(told["draft"])["turns"]) == 2


def test_one_that_ran_out_goes_on(desk, piece):
    Assignment.objects.filter(pk=piece.pk).update(lease_until=piece.held_at)
    assignments.expire()

    page, _ = desk()

    assert "data-expired>" in page
    assert "<write-task" in page


def test_opening_it_changes_nothing(desk, piece):
    before = (list(Assignment.objects.values()), list(Prompt.objects.values()))

    desk()

    assert (list(Assignment.objects.values()), list(Prompt.objects.values())) == before


def test_queries_do_not_grow(browser, count_queries, trainer, piece):
    client, url = browser(trainer), reverse("work", args=[piece.pk])
    request = factory.suggested(piece, ANSWER, before=QUESTION)
    turn = factory.written_turn("assistant", "Nine minutes.", **{"from": [request.pk, 0]})
    factory.save(piece, factory.written_turn("user", "How?"), turn)
    few = count_queries(client, url)
    factory.save(piece, *[factory.written_turn("user", "How?"), turn] * 5)

    assert count_queries(client, url) == few


# --- Suggestions -----------------------------------------------------------------------------------------------------


def test_asking_for_suggestions(ask, piece):
    response = ask("suggest", role="assistant", before=json.dumps(QUESTION), hint="shorter", n=2)

    asked = GenerationRequest.objects.get()
    assert response.json() == {"request": asked.pk, "n": 2}
    assert (asked.role, asked.hint, asked.position, asked.purpose) == ("assistant", "shorter", 2, "suggestion")


def test_as_many_as_the_project_says(ask, project):
    assert ask("suggest", role="user", before="[]").json()["n"] == project.suggestions


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "system"},
        {"role": ""},
        {"before": ""},
        {"before": "{"},
        {"before": "{}"},
        {"before": "[1]"},
        {"before": '[{"role": "system", "content": "x"}]'},
        {"before": '[{"role": "user", "content": 5}]'},
        {"before": "[" * 100_000},
        {"n": "0"},
        {"n": "4"},
        {"n": "x"},
        {"n": "-1"},
        {"hint": "x" * 501},
        {"system": "Another one"},
    ],
)
def test_a_question_that_is_wrong(ask, fields):
    response = ask("suggest", **{"role": "user", "before": "[]"} | fields)

    assert response.status_code == 422
    assert response.json()["error"].endswith(".")
    assert not GenerationRequest.objects.exists()


def test_a_turn_that_is_too_long(ask, settings):
    settings.MESSAGE_CHARACTERS = 10

    assert ask("suggest", role="assistant", before=json.dumps(QUESTION)).status_code == 422


def test_asking_again_stops_the_ones_before(ask):
    first = ask("suggest", role="user", before="[]").json()["request"]
    ask("suggest", role="user", before="[]")

    assert GenerationRequest.objects.get(pk=first).state == "cancelled"


def test_stopping(ask):
    ask("suggest", role="user", before="[]")

    assert ask("stop").status_code == 204
    assert GenerationRequest.objects.get().state == "cancelled"
    assert ask("stop").status_code == 204


def test_how_they_stand(browser, trainer, piece):
    client, url = browser(trainer), reverse("suggestions", args=[piece.pk])
    away = ["absent", "no worker is running for this model."]
    assert client.get(url).json() == {"request": None, "texts": [], "away": away}
    ready(piece)
    request = factory.suggested(piece, ANSWER, "Hard or soft?", before=QUESTION, hint="short")

    assert client.get(url).json() == {
        "request": request.pk,
        "n": 2,
        "state": "done",
        "role": "assistant",
        "position": 2,
        "hint": "short",
        "reason": "",
        "texts": [
            {"index": 0, "text": ANSWER, "finish": "stop"},
            {"index": 1, "text": "Hard or soft?", "finish": "stop"},
        ],
        "away": None,
    }


def test_what_went_wrong_inside_is_not_told(ask, browser, trainer, piece):
    ask("suggest", role="user", before="[]")
    GenerationRequest.objects.update(state="failed", ended_at=piece.held_at, reason="Out of memory at 0x7f")

    answer = browser(trainer).get(reverse("suggestions", args=[piece.pk])).json()

    assert (answer["state"], answer["reason"]) == ("failed", "")


def test_a_policy_that_is_switched_off_is_told(ask, browser, trainer, piece):
    policy = piece.iteration.reply_policy
    ask("suggest", role="user", before="[]")
    switch_off(policy=policy)

    answer = browser(trainer).get(reverse("suggestions", args=[piece.pk])).json()

    assert (answer["state"], answer["reason"]) == ("failed", f"The policy {policy.name} is switched off.")
    assert answer["away"] == ["off", "the model is switched off."]


# --- Texts as they are shown ---------------------------------------------------------------------------------------


def test_texts_are_shown_as_everywhere(ask):
    response = ask("shown", texts=json.dumps(["*a*", "<script>b</script>", "$x^2$", ""]))

    first, second, third, last = response.json()["html"]
    assert first == "<p><em>a</em></p>\n"
    assert "<script>" not in second
    assert "<math" in third
    assert last == ""


def test_half_a_character_is_shown_as_a_sign_for_it(ask):
    response = ask("shown", texts='["half \\ud800 a character"]')

    assert response.json()["html"] == ["<p>half \ufffd a character</p>\n"]


@pytest.mark.parametrize("texts", ["", "{", "{}", "[1]", json.dumps(["a"] * 51), json.dumps(["a" * 60_001])])
def test_texts_that_are_wrong(ask, texts):
    response = ask("shown", texts=texts)

    assert response.status_code == 422
    assert response.json()["error"].endswith(".")


# --- Branches ------------------------------------------------------------------------------------------------------


def test_branching(ask, piece):
    factory.save(piece, factory.written_turn("user", "How?"), factory.written_turn("assistant", ANSWER))

    response = ask("branch", upto=0)

    branch = Assignment.objects.get(personal=True)
    assert "A copy up to turn 1 waits for you" in response.json()["notice"]
    assert [turn["text"] for turn in branch.draft["turns"]] == ["How?", ""]
    assert branch.conversation.forked_from == piece.conversation


@pytest.mark.parametrize("upto", ["", "x", "-1", "7", "9" * 12])
def test_branching_from_nowhere(ask, upto):
    assert ask("branch", upto=upto).status_code == 422
    assert not Assignment.objects.filter(personal=True).exists()


# --- Who may -------------------------------------------------------------------------------------------------------

STEPS = ("suggest", "stop", "shown", "branch", "finish")
FIELDS = {"role": "user", "before": "[]", "texts": "[]", "upto": "0", "version": "0"}


@pytest.mark.parametrize("name", STEPS)
def test_a_stranger(ask, browser, stranger, name):
    assert ask(name, client=browser(stranger), **FIELDS).status_code == 404


@pytest.mark.parametrize("name", ["work", "suggestions", "finish", "stream"])
def test_a_stranger_sees_nothing(browser, stranger, piece, name):
    assert browser(stranger).get(reverse(name, args=[piece.pk])).status_code == 404


@pytest.mark.parametrize("name", STEPS)
def test_signed_out(ask, browser, name):
    assert ask(name, client=browser(), **FIELDS).status_code == 401


@pytest.mark.parametrize("name", ["suggest", "shown", "branch"])
def test_a_chat_is_no_writing(browser, trainer, chat, name):
    assert browser(trainer).post(reverse(name, args=[chat.pk]), FIELDS).status_code == 404


@pytest.mark.parametrize("name", ["say", "again", "blank"])
def test_writing_is_no_chat(ask, name):
    assert ask(name, text="Hello").status_code == 404


@pytest.mark.parametrize("name", ["suggest", "stop", "branch"])
def test_after_the_end(ask, project, trainer, piece, name):
    factory.finished_piece(project, trainer, slot=piece)

    assert ask(name, **FIELDS).status_code == 409


@pytest.mark.parametrize("name", ["suggest", "stop", "shown", "branch"])
def test_get_changes_nothing(browser, trainer, piece, name):
    assert browser(trainer).get(reverse(name, args=[piece.pk])).status_code == 405


# --- What is kept --------------------------------------------------------------------------------------------------


def test_a_finished_piece_is_shown_with_its_sources(desk, browser, html, project, trainer, piece):
    request = factory.suggested(piece, ANSWER, before=QUESTION)
    taken = factory.written_turn("assistant", ANSWER, taken=len(ANSWER), **{"from": [request.pk, 0]})
    factory.finished_piece(project, trainer, factory.written_turn("user", "How *do* I?"), taken, slot=piece)

    page = html(browser(trainer).get(reverse("work", args=[piece.pk])))

    assert "How <em>do</em> I?" in page
    assert 'The user <span class="from">your words</span>' in page
    assert 'The assistant <span class="from">suggestion</span>' in page
    assert "A reviewer reads it next." in page
    assert "Revise" in page
    assert "<write-task" not in page


def test_what_a_reviewer_said_is_shown(browser, html, project, trainer):
    conversation = factory.finished_piece(project, trainer)
    factory.review_of(conversation, verdict="returned", note="Too <short>.", comments={2: "Hard or soft?"})

    page = html(browser(trainer).get(reverse("work", args=[conversation.assignment.pk])))

    assert "It came back from its review." in page
    assert "Too &lt;short&gt;." in page
    assert "Hard or soft?" in page


def test_what_came_back_leads_to_where_it_is_mended(browser, html, project, trainer):
    conversation = factory.finished_piece(project, trainer)
    factory.review_of(conversation, verdict="returned")

    def page() -> str:
        return html(browser(trainer).get(reverse("work", args=[conversation.assignment.pk])))

    assert f'<a href="{reverse("home")}">It waits for you at home' in page()
    mending = assignments.claim(user=trainer, project=project, kinds=["write"])
    assert f'<a href="{reverse("work", args=[mending.pk])}">Go on mending it' in page()


def test_a_newer_version_is_named(browser, html, project, trainer):
    conversation = factory.finished_piece(project, trainer)
    factory.review_of(conversation)
    newer = demonstrations.revise(conversation=conversation, user=trainer)
    slot = assignments.claim(user=trainer, project=project, reserved=newer.pk)
    turns = Assignment.objects.get(pk=slot.pk).draft["turns"]
    factory.finished_piece(project, trainer, *turns, slot=slot)

    page = html(browser(trainer).get(reverse("work", args=[conversation.assignment.pk])))

    assert "A newer version stands in its place" in page
    assert "Revise</button>" not in page


def test_a_skipped_one_shows_what_was_written(browser, html, trainer, piece):
    factory.save(piece, factory.written_turn("user", "How <b>do</b> I?"))
    assignments.skip(assignment=piece, user=trainer, reason="other")

    page = html(browser(trainer).get(reverse("work", args=[piece.pk])))

    assert "You skipped this" in page
    assert "How &lt;b&gt;do&lt;/b&gt; I?" in page
    assert Conversation.objects.get(pk=piece.conversation_id).state == "abandoned"
