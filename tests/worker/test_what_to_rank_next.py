"""What to rank next, all of it for real on a tiny model: people rank, a reward model learns from them, what it is
uncertain of is sampled, scored and chosen, ranked by people who see no score, and exported as what it is."""

import json

import pytest
from django.core.management import call_command
from django.urls import reverse

from annotate import assignments, prompts, rankings, scores, sweep
from annotate.assignments import NothingLeft
from annotate.comparisons import context
from annotate.models import Comparison, GenerationRequest, Score, TrainingRun
from annotate.quality import uncertainty
from tests import factory, site, tiny
from tests.worker import preferences

pytest.importorskip("trl")

from worker.training.scoring import Scorer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

TRAINING = ("--epochs", "3", "--learning-rate", "3e-3", "--heads", "3", "--batch-size", "4", "--max-tokens", "200")


@pytest.fixture
def project(tmp_path, settings):
    settings.BOTHSIDES_HOME = tmp_path
    default = settings.STORAGES["default"] | {"OPTIONS": {"location": tmp_path / "exports"}}
    settings.STORAGES = settings.STORAGES | {"default": default}
    tiny.build(tmp_path / "models" / "tiny")
    base = factory.policy(name="tiny", location="tiny")
    return factory.project(served_by=base, overlap=2, secret="00" * 32, max_new_tokens=16, authors_rank_own=True)


def trained(project) -> TrainingRun:
    """A reward model that learnt from what people preferred, now the one that scores."""
    preferences.compare(project)
    export = preferences.exported(project)
    call_command("train", "reward", "--export", str(export.pk), "--base", "tiny", "--foreground", *TRAINING)
    run = TrainingRun.objects.get()
    scores.score_by(project=project, run=run)
    return run


def sampled(project, serve) -> None:
    """The policy gives all the texts that are asked of it."""
    loop = serve(project.policies.get())
    pending = GenerationRequest.objects.filter(state__in=["waiting", "claimed"])
    site.wait_until(lambda: not pending.exists(), seconds=120)
    loop.drain(0)


def figure(scorer: Scorer, comparison: Comparison) -> float:
    """How much is to be learnt from it, from what the model itself says of its texts."""
    before = prompts.render(context(comparison))
    texts = comparison.candidates.order_by("id").values_list("completion__text", flat=True)
    return uncertainty.of_rewards(scorer.by_head([(before, text) for text in texts]))


def rank_one(project, user) -> Comparison | None:
    """Have a person claim and rank a comparison; None where nothing is left for them."""
    try:
        slot = assignments.claim(user=user, project=project, kinds=["rank"])
    except NothingLeft:
        return None
    first, *others = slot.shown_order
    rankings.submit(assignment=slot, user=user, tiers=[[first], others])
    return slot.comparison


def test_what_a_trained_model_is_uncertain_of_is_ranked_unseen_and_exported(project, serve, client, tmp_path):
    run = trained(project)
    learnt_from = set(project.comparisons.values_list("id", flat=True))
    factory.finished_chat(project, turns=9)
    call_command(
        "sample_comparisons", "--project", project.slug, "--count=4", "--select=uncertain", "--share=0.5", "--pool=3"
    )
    drawn = project.comparisons.exclude(pk__in=learnt_from)
    sampled(project, serve)
    sweep.run()
    # One that its chat had drawn, and two that were drawn beside the pools.
    assert sorted(drawn.filter(state="open").values_list("selection", "pool")) == [("random", None)] * 3
    assert drawn.filter(pool__isnull=False, state="sampling").count() == 6

    call_command("score", "--project", project.slug, "--most", "1000")
    assert Score.objects.filter(run=run, candidate__comparison__in=drawn, reward__isnull=False).count() == 9 * 4
    scorer, chosen = Scorer(tmp_path / "models" / run.location), drawn.filter(selection="uncertain")
    pools = drawn.filter(pool__isnull=False).values_list("pool", flat=True)
    assert sorted(chosen.values_list("pool", flat=True)) == sorted(set(pools))
    for one in chosen:
        figures = {member.pk: figure(scorer, member) for member in drawn.filter(pool=one.pool)}
        assert figures[one.pk] == max(figures.values()) > 0
        assert sorted(drawn.filter(pool=one.pool).values_list("state", flat=True)) == ["open"] + ["passed_over"] * 2

    client.force_login(factory.person(project, role="reviewer"), backend="sesame.backends.ModelBackend")

    def tells(comparison: Comparison) -> bool:
        return "Reward model" in client.get(reverse("review_comparison", args=[comparison.pk])).content.decode()

    first, second = factory.trainer(project), factory.trainer(project)
    while one := rank_one(project, first):
        assert not tells(one)
    while one := rank_one(project, second):
        assert tells(one)
    assert not any(tells(one) for one in drawn.filter(state="passed_over"))
    assert sorted(drawn.values_list("state", flat=True)) == ["closed"] * 5 + ["passed_over"] * 4

    for selection, wanted in (("uncertain", chosen), ("random", drawn.filter(selection="random", state="closed"))):
        out = tmp_path / selection
        call_command(
            "export", "comparisons", "--format=ranked", "--project", project.slug, "--selection", selection,
            "--out", str(out),
        )  # fmt: skip
        call_command("check_export", str(out))
        lines = [json.loads(line) for path in out.glob("*.jsonl") for line in path.read_text().splitlines()]
        assert {line["selection"] for line in lines} == {selection}
        new = [line["comparison_id"] for line in lines if line["comparison_id"] not in learnt_from]
        assert sorted(new) == sorted([*wanted.values_list("id", flat=True)] * 2)
        assert not any("reward" in line or "spread" in line for line in lines)
