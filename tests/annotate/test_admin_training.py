"""Training runs and passages in the admin site: watched, stopped, gone on with; and the lineage of policies."""

import re

import pytest
from django.db.models import F
from django.utils import timezone

from annotate import iterations, jobs, passages, training
from annotate.admin import curves, measured
from annotate.admin.passages import steps
from annotate.models import Export, Iteration, Passage, Policy, Role, TrainingPoint, TrainingRun
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("rung")]

DONE = {"state": "done", "digest": "0" * 64}
SFT = {"sft": {}, "policy": "sft", "reward": None}


@pytest.fixture
def project():
    return factory.project(slug="field", iteration=False)


def exported(project, what: str = "comparisons", format: str = "ranked") -> Export:
    return Export.objects.create(
        project=project, what=what, format=format, location="there", ended_at=timezone.now(), **DONE
    )


def ran(project, kind: str = "sft", base: Policy | None = None, **fields) -> TrainingRun:
    """A run that is done and made a policy, or a reward model."""
    fields = DONE | {"location": f"{kind}-made", "ended_at": timezone.now()} | fields
    run = TrainingRun.objects.create(project=project, kind=kind, base=base or factory.policy(), **fields)
    run.exports.add(exported(project))
    if kind != "reward":
        factory.policy(name=f"{kind} of {run.pk}", parent=run.base, run=run)
    return run


def measured_at(run: TrainingRun, **values) -> None:
    """Points of these measures, by name the values of steps 1, 2, …; None where there is none."""
    for step, row in enumerate(zip(*values.values(), strict=True), 1):
        kept = {name: value for name, value in zip(values, row, strict=True) if value is not None}
        TrainingPoint.objects.create(run=run, step=step, values=kept)


def page_of(row, more: str = "change/") -> str:
    return f"/admin/annotate/{row._meta.model_name}/{row.pk}/{more}"


def read(client, address: str) -> str:
    page = client.get(address)
    assert page.status_code == 200
    return " ".join(page.content.decode().split())


def said(page) -> list[str]:
    return [str(message) for message in page.context["messages"]]


# What was measured ----------------------------------------------------------------------------------------------------


def test_curves_hold_every_step_of_a_short_run_and_means_of_a_long_one(project):
    run = ran(project)
    TrainingPoint.objects.bulk_create(
        TrainingPoint(
            run=run, step=step, values={"loss": step, "validation_loss": 7} if step == 900 else {"loss": step}
        )
        for step in range(1, 1001)
    )
    found = training.curves(run)
    assert found.width == 5
    assert len(found.points["loss"]) == training.MOST_POINTS
    first = found.points["loss"][0]
    assert (first.step, first.mean, first.low, first.high) == (5, 3.0, 1.0, 5.0)
    assert [(point.step, point.mean) for point in found.points["validation_loss"]] == [(900, 7.0)]
    TrainingPoint.objects.filter(run=run, step__gt=3).delete()
    assert [point.mean for point in training.curves(run).points["loss"]] == [1, 2, 3]
    assert training.curves(ran(project)) == training.Curves(width=1, points={})


def test_charts_put_validation_beside_training_and_what_matters_first(project):
    run = ran(project)
    measured_at(run, gradient_norm=[1, 1], loss=[2.0, 1.0], validation_loss=[None, 1.5], entropy=[0, 0])
    found = curves.charts(training.curves(run))
    assert [chart.title for chart in found] == ["loss", "entropy", "gradient norm"]
    one, two = found[0].lines
    assert (one.path, one.last, one.band) == ("M48.0 8.0L352.0 130.0", "1", "")
    assert (two.name, two.dots) == ("validation loss", [("352.0", "69.0")])
    assert found[0].told == (
        "loss goes from 2 at step 1 to 1 at step 2, between 1 and 2; validation loss is 1.5 at step 2"
    )
    head, rows = curves.rows(training.curves(run))
    assert head == ["entropy", "gradient norm", "loss", "validation loss"]
    assert rows == [("1", ["0", "1", "2", "–"]), ("2", ["0", "1", "1", "1.5"])]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (-3.1, 12.0, [0.0, 5.0, 10.0]),
        (1e-6, 3e-6, [1e-6, 1.5e-6, 2e-6, 2.5e-6, 3e-6]),
        (4.0, 4.0, [4.0]),
    ],
)
def test_round_numbers_stand_beside_a_chart(low, high, wanted):
    lower, upper, found = curves._heights(low, high)
    assert found == pytest.approx(wanted)
    assert lower < upper


def test_metrics_become_tables():
    of_split = {"pairs": 1200, "accuracy": 0.75, "accuracy_error": 0.021, "people": None}
    by_k = {"by_k": {"4": {"pairs": 6, "accuracy": None, "accuracy_error": None}}}
    bins = {"calibration": {"error": 0.1, "bins": [{"from": 0.0, "observed": 0.25}]}}
    found = measured.tables(
        {
            "train_loss": 0.123456,
            "steps": 12000,
            "zero": {"by": "demonstrations", "shift": 0.5},
            "splits": {
                "train": of_split | by_k | {"calibration": None},
                "unseen": of_split | by_k | bins | {"people": {"rewards/chosen": 0.5}},
            },
            "before": {"reward": -1.0, "reward_error": 0.5},
            "after": {"reward": 1e-5, "reward_error": 0.5},
        }
    )
    told = {table.title: (table.head, table.rows, table.aside) for table in found}
    assert told[""] == (["", ""], [["train loss", "0.1235"], ["steps", "12,000"]], False)
    assert told["zero"][1] == [["by", "demonstrations"], ["shift", "0.5"]]
    assert told["splits"][0] == ["", "pairs", "accuracy"]
    assert told["unseen, by K"] == (["K", "pairs", "accuracy"], [["4", "6", "–"]], False)
    assert told["unseen, people"][1] == [["rewards chosen", "0.5"]]
    assert told["train, by K"][2]
    assert told["unseen, calibration, bins"][:2] == (["from", "observed"], [["0", "0.25"]])
    assert [measured.said(value) for value in (12345.6, 5.0123e29)] == ["12,346", "5.012e+29"]
    assert told["before, after"][1] == [["before", "-1 ± 0.5"], ["after", "1e-05 ± 0.5"]]


# Runs -----------------------------------------------------------------------------------------------------------------


def test_the_page_of_a_run_shows_what_it_came_of_and_what_came_of_it(admin_client, project):
    reward = ran(project, "reward")
    sample = {"prompt": "<b>Hi", "before": "no\nway", "after": "<script>", "reward_before": 0.1, "reward_after": 2.5}
    run = ran(
        project,
        "ppo",
        reward=reward,
        options={"seed": 7, "learning_rate": 3e-6},
        metrics={"reward_gain": 2.4, "reward_gain_error": 0.1, "samples": [sample]},
    )
    after = TrainingRun.objects.create(project=project, kind="sft", base=run.policy)
    measured_at(run, reward=[0.1, 2.5], kl=[0.0, 3.0])
    text = read(admin_client, page_of(run))
    for row in (run.base, run.exports.get(), reward, run.policy, after):
        assert page_of(row) in text
    assert f">export {run.exports.get().pk} (comparisons ranked)</a>" in text
    assert text.count('<svg viewBox="0 0 360 150"') == 2
    assert "reward goes from 0.1 at step 1 to 2.5 at step 2" in text
    assert "<b>learning rate</b> 3e-06" in text
    assert '<th scope="row">reward gain</th><td>2.4 ± 0.1</td>' in text
    assert '<p class="said" dir="auto">&lt;script&gt;</p>' in text
    assert "&lt;b&gt;Hi" in text
    assert "style=" not in text.partition("<main")[2].partition("</main>")[0]
    text = read(admin_client, page_of(reward))
    assert page_of(run) in text
    assert "<code>models/reward-made</code>" in text


def test_the_page_of_a_run_asks_no_more_for_a_long_one(admin_client, project, django_assert_max_num_queries):
    run = ran(project, "reward")
    measured_at(run, loss=[1.0])
    read(admin_client, page_of(run))
    with django_assert_max_num_queries(30) as asked:
        read(admin_client, page_of(run))
    few = len(asked)
    run.exports.add(*(exported(project) for _ in range(3)))
    for _ in range(3):
        ran(project, "ppo", reward=run)
    measured_at(other := ran(project, "reward"), loss=[1.0] * 5)
    other.points.update(run=run, step=F("step") + 1)
    with django_assert_max_num_queries(few):
        read(admin_client, page_of(run))


def test_what_a_run_of_each_state_wants_is_said(admin_client, project, rung):
    run = ran(project, state="failed", location="", digest="", reason="No space <left>.")
    assert "No space &lt;left&gt;." in read(admin_client, "/admin/annotate/trainingrun/")
    text = read(admin_client, page_of(run))
    assert "No space &lt;left&gt;." in text
    assert "Mend the cause" in text
    assert "Nothing was measured in this run." in text
    page = admin_client.post(page_of(run, "go-on/"), follow=True)
    assert said(page) == ["A worker goes on with it."]
    assert rung == [("training", run.pk)]
    assert "It begins when a worker that listens to the queue training is free." in page.content.decode()
    page = admin_client.post(page_of(run, "stop/"), follow=True)
    run.refresh_from_db()
    assert run.state == "stopped"
    assert said(page) == ["It stops; what is written so far is kept."]


def test_a_run_that_is_done_is_left_as_it_is(admin_client, project):
    run = ran(project)
    assert said(admin_client.post(page_of(run, "go-on/"), follow=True)) == [
        "It is done, and a run that is done never changes."
    ]
    assert "Go on" not in read(admin_client, page_of(run))


def test_a_run_is_kept_fresh_while_it_goes_on(admin_client, project):
    run = TrainingRun.objects.create(project=project, kind="sft", base=factory.policy())
    with jobs.running(run) as held:
        text = read(admin_client, page_of(run))
        assert "data-goes-on" in text
        assert f'data-live="took-{run.pk}"' in text
        assert 'data-live="curves"' in text
        assert "Nothing was measured yet." in text
        jobs.end(run, token=held.token, state="failed")
    assert "data-goes-on" not in read(admin_client, page_of(run))


def test_empty_lists_say_how_one_begins(admin_client):
    assert "manage.py train" in read(admin_client, "/admin/annotate/trainingrun/")
    assert "manage.py iterate" in read(admin_client, "/admin/annotate/passage/")


@pytest.mark.parametrize("step", ["stop/", "go-on/"])
def test_others_have_no_buttons(client, project, step):
    run = ran(project, state="failed", location="", digest="")
    for role in (Role.TRAINER, Role.REVIEWER, Role.ENGINEER):
        client.force_login(factory.person(project, role=role), backend="sesame.backends.ModelBackend")
        assert client.post(page_of(run, step)).status_code == 302
    run.refresh_from_db()
    assert run.state == "failed"


# Lineage --------------------------------------------------------------------------------------------------------------


def test_a_policy_is_followed_back_to_the_first_in_no_more_queries_for_a_longer_line(
    admin_client, project, django_assert_max_num_queries
):
    first = ran(project)
    reward = ran(project, "reward", first.policy)
    second = ran(project, "ppo", first.policy, reward=reward)
    read(admin_client, page_of(first.policy))
    with django_assert_max_num_queries(40) as short:
        text = read(admin_client, page_of(second.policy))
    few = len(short)
    exports = [run.exports.get() for run in (first, reward, second)]
    for row in (first.base, first, first.policy, reward, second, *exports):
        assert page_of(row) in text
    assert text.count("was not trained here") == 1
    assert page_of(second.policy) in read(admin_client, page_of(first.policy))
    last = second
    for _ in range(3):
        last = ran(project, "ppo", last.policy, reward=reward)
    with django_assert_max_num_queries(few):
        assert page_of(first.base) in read(admin_client, page_of(last.policy))


def test_an_export_and_a_project_name_the_runs(admin_client, project):
    run = ran(project)
    export = run.exports.get()
    passage = begun(project, SFT, sft=run)
    text = read(admin_client, page_of(export))
    assert page_of(run) in text
    assert page_of(passage) in text
    assert page_of(passage) in read(admin_client, page_of(run))
    text = read(admin_client, page_of(project))
    for name in ("trainingrun", "passage"):
        assert f"/admin/annotate/{name}/?project__id__exact={project.pk}" in text


# Passages -------------------------------------------------------------------------------------------------------------


def begun(project, recipe: dict, **runs: TrainingRun) -> Passage:
    """A passage whose round is closed, with its exports and these runs."""
    iteration = iterations.open_next(project=project)
    Iteration.objects.filter(pk=iteration.pk).update(state="closed", closed_at=timezone.now())
    run = next(iter(runs.values()))
    made = {"close": {}, "export": {"demonstrations": run.exports.get().pk}}
    made |= {step: {"run": run.pk} for step, run in runs.items()}
    return Passage.objects.create(project=project, iteration=iteration, recipe=recipe, steps=made)


def test_the_page_of_a_passage_shows_its_steps(admin_client, project):
    run = ran(project)
    passage = begun(project, SFT, sft=run)
    told = [(step["name"], step["state"]) for step in steps(passage)]
    assert told == [
        ("Closing the round", "done"),
        ("Exporting", "done"),
        ("Training by SFT", "done"),
        ("Opening the next round", "waiting"),
    ]
    text = read(admin_client, page_of(passage))
    for row in (run, run.policy, run.exports.get(), passage.iteration):
        assert page_of(row) in text
    assert page_of(passage) in read(admin_client, page_of(passage.iteration))


def test_an_iteration_names_the_passages_before_and_after_it(admin_client, project):
    passage = begun(project, SFT, sft=ran(project))
    after = iterations.open_next(project=project)
    Passage.objects.update(opens=after, state="done", ended_at=timezone.now())
    link = f'<a href="{page_of(passage)}">{passage}</a>'
    for iteration, label in ((after, "Opened by"), (passage.iteration, "On to the next by")):
        assert re.search(f"<label>{label}:</label> .{{,40}}{link}", read(admin_client, page_of(iteration)))


def test_a_passage_that_is_done_says_that_slots_are_to_be_opened(admin_client, project):
    passage = begun(project, SFT, sft=ran(project))
    Passage.objects.update(opens=iterations.open_next(project=project), state="done", ended_at=timezone.now())
    assert "open slots for chats and writing" in read(admin_client, page_of(passage))
    Passage.objects.update(agreed_to="open", started_at=timezone.now())
    assert "</span> since the last yes" in read(admin_client, page_of(passage))
    factory.chat_slot(project)
    assert "What now" not in read(admin_client, page_of(passage))


def test_the_exports_of_a_passage_stand_in_their_order(admin_client, project):
    passage = begun(project, SFT, sft=ran(project))
    first, second, third = (exported(project) for _ in range(3))
    made = {"demonstrations": second.pk, "comparisons": third.pk, "prompts": first.pk}
    Passage.objects.update(steps=passage.steps | {"export": made})
    text = read(admin_client, page_of(passage))
    assert text.index(page_of(first)) < text.index(page_of(second)) < text.index(page_of(third))


def test_an_iteration_says_in_words_how_it_samples(admin_client, project):
    text = read(admin_client, page_of(iterations.open_next(project=project)))
    assert "<li><b>max new tokens</b> 256</li>" in text
    assert "<li><b>temperature</b> 0.8</li>" in text


def test_a_person_says_yes_to_the_step_that_it_waits_for(admin_client, project, rung):
    run = ran(project)
    passage = begun(project, SFT, sft=run)
    assert "Go on with" not in read(admin_client, page_of(passage))
    Passage.objects.update(asks=True)
    Passage.objects.update(step="Waits for a yes: opening the next round")
    text = read(admin_client, page_of(passage))
    assert "Go on with opening the next round" in text
    # The page is looked at anew where this changes: it has another button then.
    assert 'data-state="waiting Waits for a yes: opening the next round"' in text
    assert "waits for a yes" in text
    page = admin_client.post(page_of(passage, "agree/"), {"step": "sft"}, follow=True)
    assert said(page) == [f"{passage} does not wait for a yes to sft."]
    assert admin_client.get(page_of(passage, "agree/")).status_code == 403
    assert rung == []
    page = admin_client.post(page_of(passage, "agree/"), {"step": "open"}, follow=True)
    passage.refresh_from_db()
    assert (passage.agreed_to, passage.background, rung) == ("open", True, [("passage", passage.pk)])
    assert "Go on with" not in page.content.decode()


def test_a_passage_that_failed_is_gone_on_with_until_another_round_is_open(admin_client, project, rung):
    run = ran(project)
    passage = begun(project, SFT, sft=run)
    failed = {"state": "failed", "ended_at": timezone.now(), "reason": "Opening: no disk."}
    Passage.objects.update(**failed)
    assert "Opening: no disk." in read(admin_client, "/admin/annotate/passage/")
    text = read(admin_client, page_of(passage))
    assert "Opening: no disk." in text
    assert "Mend the cause" in text
    assert '<li class="failed"> <strong>Opening the next round</strong>' in text
    page = admin_client.post(page_of(passage, "go-on/"), follow=True)
    assert rung == [("passage", passage.pk)]
    assert "It goes on when a worker that listens to the queue training is free." in page.content.decode()
    assert said(admin_client.post(page_of(passage, "stop/"), follow=True)) == [
        "It stops; what is written so far is kept."
    ]
    passages.reopen(project=project)
    text = read(admin_client, page_of(passage))
    assert "another iteration was opened in its place" in text
    assert ">Go on<" not in text
    assert "is over" in said(admin_client.post(page_of(passage, "go-on/"), follow=True))[0]


def test_nobody_else_says_yes(client, project):
    passage = begun(project, SFT, sft=ran(project))
    Passage.objects.update(asks=True)
    for role in (Role.TRAINER, Role.REVIEWER, Role.ENGINEER):
        client.force_login(factory.person(project, role=role), backend="sesame.backends.ModelBackend")
        assert client.post(page_of(passage, "agree/"), {"step": "open"}).status_code == 302
    passage.refresh_from_db()
    assert passage.agreed_to == ""


def test_a_round_that_is_opened_by_hand_gives_up_the_passage_that_stands_still(admin_client, project):
    project.recipe = SFT
    project.save()
    passage = begun(project, SFT, sft=ran(project))
    Passage.objects.update(asks=True)
    passage.refresh_from_db()
    with jobs.running(passage) as held:
        page = admin_client.post(page_of(project, "open-iteration/"), follow=True)
        assert said(page)[0] == f"{passage} is running; stop it first."
        passages.wait_for_yes(passage=passage, token=held.token, step="open")
    admin_client.post(page_of(project, "open-iteration/"))
    passage.refresh_from_db()
    assert passage.state == "stopped"
    assert passages.prepare(project=project).iteration == factory.current(project)
