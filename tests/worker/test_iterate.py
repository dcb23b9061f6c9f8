"""`iterate`: from one round to the next by the project's recipe, each step once, whatever interrupts it.

What trains is a stand-in here; `test_two_iterations` has models that learn.
"""

import io
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from annotate import assignments, iterations, jobs, passages, policies
from annotate.errors import Conflict, Invalid
from annotate.models import Assignment, Export, Iteration, Passage, Policy, ProjectPolicy, TrainingRun
from tests import factory
from tests.worker import preferences
from worker.training import passage as walking
from worker.training import running

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

DPO = {"policy": "dpo"}
IMPORTED_ONLY = DPO | {"comparisons": {"origins": ["imported"]}}
"""Of which there is nothing."""
SPLITS = {"train": 2, "validation": 1}


@pytest.fixture(autouse=True)
def home(tmp_path, settings, monkeypatch):
    settings.BOTHSIDES_HOME = tmp_path
    monkeypatch.setattr(running, "TRAINERS", dict.fromkeys(TrainingRun.Kind.values, "tests.worker.quick_trainer"))
    return tmp_path


def ranked_project(**fields):
    """A project whose open round has comparisons that were ranked."""
    made = factory.project(**{"overlap": 2, "secret": "00" * 32, "recipe": DPO, "review_share": 0} | fields)
    preferences.compare(made, SPLITS)
    return made


@pytest.fixture
def project():
    return ranked_project()


def passed(passage: Passage, told=None, agreed=None) -> Passage:
    def progress(step, done, total, values):
        if told is not None:
            told.append(step)

    walking.go_on(passage, progress=progress, agreed=agreed)
    passage.refresh_from_db()
    return passage


def weights(iteration: Iteration) -> dict[str, int]:
    return {row.policy.name: row.weight for row in iteration.iterationpolicy_set.all()}


def test_it_ends_the_round_and_opens_the_next_with_the_new_policy_beside_the_last(project):
    before = factory.current(project)
    passage = passed(passages.prepare(project=project))
    before.refresh_from_db()
    assert (passage.state, before.state) == ("done", "closed")
    after = factory.current(project)
    assert (passage.opens, after.number) == (after, 2)
    run = passages.made_by(passage, "policy")
    assert (run.kind, run.base, run.policy.active) == ("dpo", before.reply_policy, True)
    assert weights(after) == {before.reply_policy.name: 1, run.policy.name: 1}
    assert after.reply_policy == run.policy
    project.refresh_from_db()
    reward = passages.made_by(passage, "reward")
    assert (project.scored_by, reward.kind) == (reward, "reward")
    assert set(passage.steps) == {"close", "export", "reward", "policy", "open"}
    export = Export.objects.get()
    assert (export.format, list(run.exports.all()), list(reward.exports.all())) == ("ranked", [export], [export])


def test_the_recipe_says_what_is_done():
    project = ranked_project()
    slot = factory.held_piece(project)
    opening = next(preferences.openings(project, {"train": 1}))
    factory.finished_piece(
        project, None, factory.written_turn("user", opening), factory.written_turn("assistant", "good"), slot=slot
    )
    older = factory.policy()
    ProjectPolicy.objects.create(project=project, policy=older, weight=3)
    project.recipe = {
        "rounds": "this",
        "sft": {"learning_rate": 0.5},
        "reward": None,
        "policy": "sft",
        "weights": {"new": 3, "last": 2},
        "replies": "last",
        "drops_older": False,
    }
    project.save()
    last = factory.current(project).reply_policy
    passage = passed(passages.prepare(project=project))
    assert set(passage.steps) == {"close", "export", "sft", "open"}
    assert weights(passage.opens) == {last.name: 2, older.name: 3, passages.made_by(passage, "sft").policy.name: 3}
    assert passage.opens.reply_policy == last
    assert passages.made_by(passage, "sft").options["learning_rate"] == 0.5
    assert list(Export.objects.values_list("what", "iteration__number")) == [("demonstrations", 1)]
    project.refresh_from_db()
    assert project.scored_by is None


def test_the_next_passage_begins_with_the_new_policy_and_drops_the_one_before_the_last(project):
    first = factory.current(project).reply_policy
    project.recipe = DPO | {"replies": "last"}
    project.save()
    one = passed(passages.prepare(project=project))
    two = passed(passages.prepare(project=project))
    new, newer = (passages.made_by(passage, "policy").policy for passage in (one, two))
    assert one.opens.reply_policy == first
    assert newer.parent == new
    assert weights(two.opens) == {new.name: 1, newer.name: 1}


def test_after_sft_the_others_begin_with_what_it_made(project):
    project.recipe = DPO | {"sft": {}}
    project.save()
    opening = next(preferences.openings(project, {"train": 1}))
    turns = [factory.written_turn("user", opening), factory.written_turn("assistant", "good")]
    factory.finished_piece(project, None, *turns)
    passage = passed(passages.prepare(project=project))
    made = passages.made_by(passage, "sft").policy
    assert {passages.made_by(passage, step).base for step in ("reward", "policy")} == {made}
    assert {one.what for one in passages.made_by(passage, "reward").exports.all()} == {"comparisons", "demonstrations"}


def test_a_round_stays_open_where_nothing_can_be_trained(project, monkeypatch):
    passage = passages.prepare(project=project)
    with monkeypatch.context() as bare:
        bare.setattr(running, "LIBRARIES", ("no_such_library",))
        with pytest.raises(Invalid, match=r"no_such_library is not installed: .*'\.\[train\]'"):
            passed(passage)
    passage.refresh_from_db()
    assert (passage.state, factory.current(project).state) == ("failed", "open")
    assert passed(passage).state == "done"


def test_it_waits_for_work_that_is_held(project, monkeypatch):
    slot = factory.held_chat(project, factory.trainer(project))
    told = []

    def come_in(_):
        if "waits" in told[-1]:
            Assignment.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))

    monkeypatch.setattr(walking.time, "sleep", come_in)
    assert passed(passages.prepare(project=project), told).state == "done"
    assert "Closing the round: waits for 1 task that is held" in told
    slot.refresh_from_db()
    assert slot.state == Assignment.State.EXPIRED


def test_nothing_new_is_handed_out_while_it_waits(project):
    factory.chat_slot(project)
    passage = passages.prepare(project=project)
    with jobs.running(passage) as held:
        passages.begin_close(passage=passage, token=held.token)
        with pytest.raises(assignments.NothingLeft):
            assignments.claim(user=factory.trainer(project), project=project)
        passages.wait_for_yes(passage=passage, token=held.token, step="close")


# Whatever interrupts it ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone: nothing that it would do at its end is done."""


def killing_at_every_step(monkeypatch) -> list:
    """Ends the process, each time at a place at which it was not ended yet: after each thing that is kept and at each
    word of progress."""
    died = []
    monkeypatch.setattr(jobs, "_leave", lambda *_: None)

    def once(place) -> None:
        if place not in died:
            died.append(place)
            raise Killed(place)

    def watch(module, name):
        real = getattr(module, name)

        def act(*args, **given):
            made = real(*args, **given)
            once((name, given.get("name") or given.get("step")))
            return made

        monkeypatch.setattr(module, name, act)

    for name in ("begin_close", "begin_export", "begin_training", "open_next"):
        watch(passages, name)
    watch(iterations, "close_finished")
    tell = walking._Walk.tell

    def telling(self, step, what, *more):
        tell(self, step, what, *more)
        once((step, what))

    monkeypatch.setattr(walking._Walk, "tell", telling)
    return died


def let_leases_run_out():
    for model in jobs.KINDS.values():
        model.objects.filter(state="running").update(lease_until=timezone.now() - timedelta(seconds=1))


def test_killed_at_every_step_it_goes_on_and_makes_each_thing_once(project, monkeypatch):
    with monkeypatch.context() as patched:
        died = killing_at_every_step(patched)
        passage = passages.prepare(project=project)
        for _ in range(100):
            try:
                passed(passage)
                break
            except Killed:
                let_leases_run_out()
                if Passage.objects.get().state == "done":
                    break
                passage = passages.current(project)
    assert {place for place, _ in died} >= {"begin_close", "begin_export", "begin_training", "open_next", "reward"}
    assert len(died) > 12
    passage.refresh_from_db()
    assert (passage.state, Passage.objects.count(), Export.objects.count()) == ("done", 1, 1)
    assert sorted(TrainingRun.objects.values_list("kind", "state")) == [("dpo", "done"), ("reward", "done")]
    assert Policy.objects.filter(run__isnull=False).count() == 1
    assert [one.number for one in project.iterations.order_by("number")] == [1, 2]


def test_what_another_process_still_holds_is_waited_for(project, monkeypatch):
    passage = passages.prepare(project=project)
    with jobs.running(passage) as held:
        passages.begin_close(passage=passage, token=held.token)
        iterations.close_finished()
        export = passages.begin_export(passage=passage, token=held.token, name="comparisons")
        passages.wait_for_yes(passage=passage, token=held.token, step="export")
    jobs._begin(export, "11111111-1111-1111-1111-111111111111")
    told = []

    def its_lease_runs_out(_):
        if "waits until" in told[-1]:
            Export.objects.update(lease_until=timezone.now() - timedelta(seconds=1))

    monkeypatch.setattr(walking.time, "sleep", its_lease_runs_out)
    assert passed(passage, told).state == "done"
    assert Export.objects.get().attempt == 2


def test_a_stop_ends_the_training_and_it_goes_on(project, monkeypatch):
    tell = walking._Walk.tell

    def stopping(self, step, what, *more):
        tell(self, step, what, *more)
        if (step, what) == ("policy", "Training"):
            raise jobs.Stopped("It was stopped.")

    passage = passages.prepare(project=project)
    with monkeypatch.context() as patched:
        patched.setattr(walking._Walk, "tell", stopping)
        with pytest.raises(jobs.Stopped):
            passed(passage)
    passage.refresh_from_db()
    run = passages.made_by(passage, "policy")
    assert (passage.state, run.state) == ("stopped", "stopped")
    assert passed(passage).state == "done"
    assert passages.made_by(passage, "policy") == run
    assert TrainingRun.objects.count() == 2


# What goes wrong -----------------------------------------------------------------------------------------------------


def test_nothing_to_learn_from_leaves_what_is_served():
    project = ranked_project(recipe=IMPORTED_ONLY)
    served = factory.current(project).reply_policy
    passage = passages.prepare(project=project)
    with pytest.raises(Invalid, match="Exporting: "):
        passed(passage)
    passage.refresh_from_db()
    assert (passage.state, passage.iteration.state) == ("failed", "closed")
    assert passage.reason.startswith("Exporting: ")
    assert list(ProjectPolicy.objects.filter(project=project).values_list("policy", flat=True)) == [served.pk]
    assert not project.iterations.filter(state="open").exists()
    opened = passages.reopen(project=project)
    assert (opened.number, opened.reply_policy) == (2, served)
    # The one that was given up is over, and the next one ends the new round.
    with pytest.raises(Conflict, match="is over"):
        passages.take_up(passage=passage)
    assert passages.prepare(project=project).iteration == opened


def test_a_training_that_failed_is_made_anew_as_the_recipe_asks_now(project, monkeypatch):
    project.recipe = DPO | {"reward": {"learning_rate": 9.0}}
    project.save()
    from tests.worker import quick_trainer

    train = quick_trainer.train

    def diverging(work):
        if work.options.learning_rate == 9.0:
            raise Invalid("Training diverged.")
        return train(work)

    monkeypatch.setattr(quick_trainer, "train", diverging)
    passage = passages.prepare(project=project)
    with pytest.raises(Invalid, match="Training the reward model: Training diverged"):
        passed(passage)
    export = Export.objects.get()
    failed = TrainingRun.objects.get()
    with pytest.raises(Invalid, match="diverged"):
        passed(passage)
    assert TrainingRun.objects.get() == failed
    project.recipe = DPO | {"reward": {"learning_rate": 0.1}}
    project.save()
    passage.refresh_from_db()
    assert passed(passage).state == "done"
    failed.refresh_from_db()
    assert (failed.state, TrainingRun.objects.count()) == ("failed", 3)
    assert Export.objects.get() == export


def test_sft_that_the_recipe_leaves_out_since_is_not_begun_with(project, monkeypatch):
    opening = next(preferences.openings(project, {"train": 1}))
    turns = [factory.written_turn("user", opening), factory.written_turn("assistant", "good")]
    factory.finished_piece(project, None, *turns)
    project.recipe = DPO | {"sft": {}, "reward": None}
    project.save()
    passage = passages.prepare(project=project)
    real = passages.begin_training

    def failing(*, step, **given):
        if step == "policy":
            raise Invalid("No.")
        return real(step=step, **given)

    with monkeypatch.context() as patched:
        patched.setattr(passages, "begin_training", failing)
        with pytest.raises(Invalid, match="No"):
            passed(passage)
    assert TrainingRun.objects.get().state == "done"
    project.recipe = DPO | {"reward": None}
    project.save()
    passage.refresh_from_db()
    assert passages.made_by(passed(passage), "policy").base == passage.iteration.reply_policy


def test_a_step_with_which_a_worker_went_on_by_itself_in_vain_is_gone_on_with(project):
    project.recipe = IMPORTED_ONLY
    project.save()
    passage = passages.prepare(project=project)
    for _ in range(2):
        with pytest.raises(Invalid, match="Exporting"):
            passed(passage)
        export = Export.objects.get()
        jobs.go_on_in_worker(export)
        jobs.ask_to_stop(export)
        passage.refresh_from_db()


def test_an_export_that_is_asked_for_otherwise_now_is_written_anew(project):
    project.recipe = IMPORTED_ONLY
    project.save()
    passage = passages.prepare(project=project)
    with pytest.raises(Invalid, match="Exporting"):
        passed(passage)
    project.recipe = DPO
    project.save()
    passage.refresh_from_db()
    assert passed(passage).state == "done"
    assert sorted(Export.objects.values_list("state", flat=True)) == ["done", "failed"]


def test_a_round_that_a_person_opened_meanwhile_is_not_touched(project, monkeypatch):
    passage = passages.prepare(project=project)
    real = passages.begin_training

    def opening(**given):
        if not project.iterations.filter(state="open").exists():
            iterations.open_next(project=project)
        return real(**given)

    monkeypatch.setattr(passages, "begin_training", opening)
    with pytest.raises(Conflict, match="has an open iteration already"):
        passed(passage)
    assert ProjectPolicy.objects.filter(project=project).count() == 1
    assert not Policy.objects.filter(run__isnull=False, active=True).exists()
    assert passages.current(project) is None


def test_what_cannot_be_done_is_refused_before_the_round_ends(project):
    server = factory.policy(
        engine="openai_compatible", location="http://localhost:1/v1", served_as="x", concurrency=1, context_tokens=9
    )
    for recipe, told in (({"policy": "x"}, "policy is 'x'"), (DPO | {"begins_with": server.name}, "is on a server")):
        project.recipe = recipe
        project.save()
        with pytest.raises(Invalid, match=told):
            passages.prepare(project=project)
    with pytest.raises(Invalid, match="Nothing was ranked"):
        passages.prepare(project=factory.project(recipe=DPO))
    assert factory.current(project).number == 1
    assert not Passage.objects.exists()


def test_a_last_policy_that_is_switched_off_is_not_left_out_of_the_next_round_unasked(project, monkeypatch):
    last = factory.current(project).reply_policy
    policies.switch_off(policy=last)
    with pytest.raises(Invalid, match="is switched off"):
        passages.prepare(project=project)
    policies.switch_on(policy=last)
    passage = passages.prepare(project=project)
    real = passages.open_next

    def switching_off(**given):
        policies.switch_off(policy=last)
        return real(**given)

    with monkeypatch.context() as patched:
        patched.setattr(passages, "open_next", switching_off)
        with pytest.raises(Invalid, match=r"Opening the next round: .* is switched off"):
            passed(passage)
    assert not Policy.objects.filter(active=True).exists()
    project.recipe = DPO | {"weights": {"new": 1, "last": 0}}
    project.save()
    passage.refresh_from_db()
    assert passed(passage).opens.reply_policy == passages.made_by(passage, "policy").policy


def test_there_is_one_at_a_time_and_only_with_an_open_round(project):
    passages.prepare(project=project)
    with pytest.raises(Conflict, match="on its way"):
        passages.prepare(project=project)
    with pytest.raises(Conflict, match="no open iteration"):
        passages.prepare(project=factory.project(iteration=False, recipe=DPO))


# A person's yes ------------------------------------------------------------------------------------------------------


def test_it_waits_before_every_step_for_a_yes(project):
    passage = passages.prepare(project=project, asks=True)
    asked = []
    while passed(passage).state != "done":
        step = passages.waiting_for(passage)
        asked.append(step)
        assert (passage.state, passage.background) == ("waiting", False)
        assert passages.TOLD[step].lower() in passage.step
        with pytest.raises(Conflict, match="does not wait"):
            passages.agree(passage=passage, step="nothing")
        passages.agree(passage=passage, step=step)
        with pytest.raises(Conflict, match="does not wait"):
            passages.agree(passage=passage, step=step)
        assert ("passage", passage.pk) in jobs.waiting(10)
    assert asked == ["close", "export", "reward", "policy", "open"]
    assert passages.waiting_for(passage) is None


def test_on_a_terminal_it_asks(project):
    asked = []

    def agreed(step):
        asked.append(step)
        return step != "reward"

    passage = passed(passages.prepare(project=project, asks=True), agreed=agreed)
    assert (asked, passages.waiting_for(passage)) == (["close", "export", "reward"], "reward")
    assert not TrainingRun.objects.exists()
    assert passed(passage, agreed=lambda step: True).state == "done"


# The command ---------------------------------------------------------------------------------------------------------


def said(*flags) -> str:
    out = io.StringIO()
    call_command("iterate", *flags, stdout=out)
    return out.getvalue()


def test_the_command_goes_all_the_way(project):
    told = said("--project", project.slug)
    new = passages.made_by(Passage.objects.get(), "policy").policy
    assert f"Iteration 2 is open. Trainers chat with {new.name}" in told
    assert "Slots for chats and writing are opened on the project's page." in told
    assert "unseen_accuracy 0.75" in told


def test_the_command_waits_for_yes_and_goes_on(project):
    assert "It waits for a yes: closing the round" in said("--project", project.slug, "--ask")
    assert "It waits for a yes: exporting" in said("--project", project.slug, "--yes")
    assert "is left to a worker" in said("--project", project.slug, "--yes", "--background")
    passage = Passage.objects.get()
    assert (passage.agreed_to, passage.background, passage.state) == ("export", True, "waiting")
    assert "training the reward model" in said("--go-on", str(passage.pk))


def test_no_answer_on_a_terminal_is_no_yes(project, monkeypatch):
    def ended(_):
        raise EOFError

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", ended)
    assert "It waits for a yes: closing the round" in said("--project", project.slug, "--ask")
    assert Passage.objects.get().state == "waiting"


def test_one_that_failed_asks_from_now_on_where_it_is_gone_on_with_so():
    project = ranked_project(recipe=IMPORTED_ONLY)
    with pytest.raises(CommandError, match="Exporting"):
        said("--project", project.slug)
    project.recipe = DPO
    project.save()
    assert "It waits for a yes: exporting" in said("--project", project.slug, "--ask")
    assert not TrainingRun.objects.exists()


def test_the_command_says_what_to_do_when_it_failed():
    project = ranked_project(recipe=IMPORTED_ONLY)
    with pytest.raises(CommandError, match="--reopen it opens the next iteration without a new policy"):
        said("--project", project.slug)
    assert "Iteration 2 is open" in said("--project", project.slug, "--reopen")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "Name a --project"),
        (["--project", "nowhere"], "no project nowhere"),
        (["--project", "round", "--yes"], "no passage that waits"),
        (["--project", "round", "--reopen"], "no passage that was not finished"),
        (["--go-on", "99999"], "no passage 99999"),
        (["--go-on", "1", "--yes"], "leave all else out"),
    ],
)
def test_the_command_refuses(flags, told):
    factory.project(slug="round", recipe=DPO)
    with pytest.raises(CommandError, match=told):
        said(*flags)
