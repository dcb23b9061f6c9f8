"""`train reward`: comparisons become a reward model, K-wise or by pairs, whatever interrupts it, and honest figures."""

import io
import math
import shutil

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command

from annotate import derive, recipes, training
from annotate.errors import Invalid
from annotate.models import Comparison, Export, Policy, Project, TrainingRun
from tests import factory, tiny
from tests.worker import preferences

pytest.importorskip("trl")
import torch
from safetensors import SafetensorError

from tests.worker.trainings import failed, first_step_of_going_on, measured, run_it, stop_at
from worker.training import conversations, examples, kwise, measuring, ranked, scoring
from worker.training import reward as trainer

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

QUICK = {"epochs": 6.0, "learning_rate": 3e-3, "batch_size": 4, "max_tokens": 200, "save_steps": 2, "heads": 3}
PAIRWISE = {"loss": "pairwise", "batch_size": 20, "at_once": 10}


@pytest.fixture(scope="module")
def rows(module_rows, tmp_path_factory):
    """A project with comparisons and a model to begin with, the same ones for all tests."""
    folder = tiny.build(tmp_path_factory.mktemp("models") / "tiny")
    project = factory.project(
        served_by=factory.policy(name="tiny", location="tiny"), overlap=2, review_share=0, secret="00" * 32
    )
    preferences.compare(project)
    return folder, project.pk, preferences.exported(project).pk


@pytest.fixture(autouse=True)
def home(tmp_path, settings, rows):
    settings.BOTHSIDES_HOME = tmp_path
    shutil.copytree(rows[0], tmp_path / "models" / "tiny")
    return tmp_path


@pytest.fixture
def compared(rows) -> Project:
    return Project.objects.get(pk=rows[1])


@pytest.fixture
def export(rows) -> Export:
    return Export.objects.get(pk=rows[2])


@pytest.fixture
def base(compared) -> Policy:
    return Policy.objects.get(name="tiny")


def asked(base, *exports, **more) -> TrainingRun:
    return training.prepare(kind="reward", exports=exports, base=base, options=QUICK | more)


def folder_of(run: TrainingRun):
    return django_settings.BOTHSIDES_HOME / "models" / run.location


# The loss ------------------------------------------------------------------------------------------------


def by_hand(rewards, rankings):
    """The loss of one comparison and one head, pair by pair, as the paper writes it."""
    total = 0.0
    for ranks in rankings:
        k = len(ranks)
        summed = sum(
            -torch.log(torch.sigmoid(rewards[one] - rewards[other]))
            for one in range(k)
            for other in range(k)
            if ranks[one] < ranks[other]
        )
        total = total + summed / (k * (k - 1) / 2)
    return total / len(rankings)


def in_batch(rewards, *comparisons, weights=None):
    """The loss of a batch of comparisons, whose completions have these rewards, one after another."""
    heads = rewards.shape[1]
    elements = [
        kwise.Element([[1]] * len(rankings[0]), kwise.pairs_of(rankings), weights or [1.0] * heads)
        for rankings in comparisons
    ]
    batch = kwise.collated(elements, 0)
    del batch["input_ids"], batch["attention_mask"]
    return kwise.loss(rewards, **batch)


@pytest.mark.parametrize(
    "rankings",
    [[[0, 1]], [[1, 0, 2]], [[3, 1, 0, 2]], [[0, 1, 1, 2]], [[0, 1, 2, 3], [0, 1, 1, 0]], [list(range(9))]],
)
def test_the_loss_and_its_gradient_are_those_of_pairs_summed_by_hand(rankings):
    torch.manual_seed(0)
    rewards = torch.randn(len(rankings[0]), 1, dtype=torch.float64, requires_grad=True)
    same = rewards.detach().clone().requires_grad_()
    ours, theirs = in_batch(rewards, rankings), by_hand(same[:, 0], rankings)
    ours.backward()
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert rewards.grad.tolist() == [pytest.approx(one, rel=1e-5, abs=1e-9) for one in same.grad.tolist()]


def test_a_batch_is_the_mean_of_its_comparisons_and_heads():
    torch.manual_seed(0)
    rewards = torch.randn(7, 2, dtype=torch.float64)
    one, other = [[0, 1, 2]], [[1, 0, 2, 2]]
    each = [by_hand(rewards[:3, head], one) + by_hand(rewards[3:, head], other) for head in (0, 1)]
    assert in_batch(rewards, one, other).item() == pytest.approx(sum(each).item() / 4, rel=1e-6)
    first = in_batch(rewards, one, other, weights=[1.0, 0.0])
    assert first.item() == pytest.approx(each[0].item() / 4, rel=1e-6)


@pytest.mark.parametrize("rankings", [[[0, 0, 0]], [[0, 0], [0, 0]], [[0, None, None]]])
def test_where_all_are_tied_nothing_is_learnt(rankings):
    rewards = torch.randn(len(rankings[0]), 1, requires_grad=True)
    loss = in_batch(rewards, rankings)
    loss.backward()
    assert loss.item() == 0
    assert rewards.grad.abs().sum() == 0


def test_ties_leave_the_weight_of_other_pairs_as_it_is():
    assert [share for _, _, share in kwise.pairs_of([[0, 1, 1]])] == [1 / 3, 1 / 3]
    # Two who ranked the same share the weight of one; of what one did not rank nothing is said.
    assert [share for _, _, share in kwise.pairs_of([[0, 1, None], [0, 1, 2]])] == [1 / 2, 1 / 6, 1 / 6, 1 / 6]


def test_texts_end_where_a_policy_ends_its_turn(base, home):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "models" / "tiny")
    ids = conversations.answered(tokenizer, [{"role": "user", "content": "who"}], "they")
    assert tokenizer.decode(ids) == "<|im_start|>user\nwho<|im_end|>\n<|im_start|>assistant\nthey<|im_end|>"


# Figures -------------------------------------------------------------------------------------------------


def line(comparison: int, ranks: list[int], ranking: int = 1, **more) -> dict:
    """A line of an export, of which the candidates are 1, 2, 3 …"""
    completions = [
        {"candidate_id": number, "rank": rank, "rating": None, "completion": [{"role": "assistant", "content": "x"}]}
        for number, rank in enumerate(ranks, 1)
    ]
    return {
        "comparison_id": comparison,
        "ranking_id": ranking,
        "rankings": 1,
        "agreement": None,
        "iteration": None,
        "context": [],
        "completions": completions,
    } | more


def test_figures_are_what_one_counts_by_hand():
    rows = [line(1, [0, 1, 2]), line(1, [0, 2, 1], ranking=2), line(2, [1, 0], iteration=3)]
    for place, rating in zip(rows[2]["completions"], (2, 7), strict=True):
        place["rating"] = rating
    rewards = {1: {1: (2.0, 0.5), 2: (1.0, 0.5), 3: (0.0, 0.5)}, 2: {1: (1.0, 0.0), 2: (0.0, 0.0)}}
    found = measuring.figures(ranked.comparisons(rows), rewards)
    # Of the first comparison five of six pairs are right, of the second none of one.
    assert (found["comparisons"], found["rankings"], found["pairs"]) == (2, 3, 7)
    assert found["accuracy"] == found["agreement"] == pytest.approx(5 / 7)
    residues = (5 - 6 * 5 / 7, 0 - 5 / 7)
    assert found["accuracy_error"] == pytest.approx(math.sqrt(2 * sum(one**2 for one in residues)) / 7)
    differences = (1, 2, 1, 1, 2, -1, -1)
    assert found["log_loss"] == pytest.approx(sum(math.log(1 + math.exp(-one)) for one in differences) / 7)
    assert found["by_k"]["2"]["accuracy"] == 0.0
    assert found["by_ranks_apart"]["2"] | {"log_loss": 0} == {
        "pairs": 2,
        "accuracy": 1.0,
        "accuracy_error": None,
        "log_loss": 0,
    }
    assert (set(found["by_iteration"]), set(found["by_ratings_apart"])) == ({"3"}, {"5"})
    assert found["spread"] == pytest.approx(1.5 / 5)
    assert found["people"]["comparisons"] == 1
    assert found["people"]["accuracy"] == found["people"]["agreement"] == pytest.approx(2 / 3)
    lowest, low, high, highest = found["calibration"]["bins"]
    assert [one["from"] for one in (lowest, low, high, highest)] == [0.1, 0.2, 0.7, 0.8]
    assert (high["predictions"], high["observed"], low["observed"]) == (5, 3 / 5, 2 / 5)
    assert (highest["predictions"], highest["observed"], lowest["observed"]) == (2, 1.0, 0.0)
    assert high["predicted"] == pytest.approx(1 / (1 + math.exp(-1)))
    off = 5 * abs(high["predicted"] - 3 / 5) + 2 * abs(highest["predicted"] - 1)
    assert found["calibration"]["error"] == pytest.approx(off / 7)


def test_a_ranking_of_two_exports_counts_once_and_a_consensus_tells_of_its_rankings():
    twice = ranked.comparisons([line(1, [0, 1]), line(1, [0, 1]), line(1, [1, 0], ranking=2)])
    assert [order.ranks for order in twice[0].orders] == [{1: 0, 2: 1}, {1: 1, 2: 0}]
    agreed = ranked.comparisons([line(1, [0, 1, 1], ranking=None, rankings=3, agreement=0.5)])
    told = measuring.people(agreed)
    assert told == {
        "comparisons": 1,
        "accuracy": None,
        "accuracy_error": None,
        "agreement": 0.5,
        "agreement_error": None,
    }
    assert measuring.people(ranked.comparisons([line(1, [0, 1])])) is None


# Runs ----------------------------------------------------------------------------------------------------


def test_it_learns_what_trainers_prefer_and_says_how_well(export, base, home):
    run = run_it(asked(base, export))
    assert (run.state, Policy.objects.count()) == ("done", 1)
    # Single steps differ: which comparisons each head learns from, and how often, hangs on their numbers.
    found = list(measured(run).values())
    half = len(found) // 2
    assert sum(found[half:]) < 0.75 * sum(found[:half])
    told = run.metrics
    assert [told[f"{split}_comparisons"] for split in preferences.SPLITS] == list(preferences.SPLITS.values())
    unseen = told["splits"]["unseen"]
    assert (unseen["comparisons"], unseen["rankings"], unseen["pairs"]) == (6, 12, 6 * 11)
    assert told["unseen_accuracy"] == unseen["accuracy"] > 0.9
    assert unseen["log_loss"] < math.log(2)
    assert sum(one["predictions"] for one in unseen["calibration"]["bins"]) == 2 * unseen["pairs"]
    assert set(unseen["by_k"]) == {"4"}
    assert unseen["by_ranks_apart"]["3"]["accuracy"] > 0.9
    assert set(unseen["by_iteration"]) == {"1"}
    # Five of six pairs are strict for both, the sixth is a tie for one of them.
    assert unseen["people"]["agreement"] == pytest.approx(5 / 6)
    assert unseen["people"]["accuracy"] == pytest.approx(10.5 / 11)
    assert unseen["people"]["accuracy_error"] == pytest.approx(0, abs=1e-9)
    assert told["zero"]["by"] == "best_completions"


@pytest.mark.parametrize("how", ["_kwise", "_pairwise"])
def test_what_was_chosen_as_uncertain_is_learnt_from_but_measures_nothing(compared, base, monkeypatch, how):
    make, given = getattr(trainer, how), []

    def heard(work, model, tokenizer, sets, ids):
        given.append({split: len(held) for split, held in sets.items()})
        return make(work, model, tokenizer, sets, ids)

    monkeypatch.setattr(trainer, how, heard)
    by_split: dict[str, list[int]] = {}
    for one in Comparison.objects.filter(project=compared).select_related("message__conversation"):
        by_split.setdefault(derive.split_of(compared.secret, one.message.conversation.family), []).append(one.pk)
    for pk in (*by_split["train"][:2], *by_split["validation"][:3]):
        Comparison.objects.filter(pk=pk).update(pool=pk, selection="uncertain")
    more = PAIRWISE if how == "_pairwise" else {}
    metrics = run_it(asked(base, preferences.exported(compared), epochs=1.0, **more)).metrics
    assert given == [{"train": 12, "validation": 1, "test": 2}]
    assert (metrics["train_comparisons"], metrics["validation_comparisons"]) == (12, 4)
    splits = metrics["splits"]
    assert [splits[name]["comparisons"] for name in ("train", "validation", "test", "unseen")] == [12, 1, 2, 3]


def test_the_folder_is_read_by_others_and_gives_what_the_scorer_gives(compared, export, base, home):
    import transformers

    written = preferences.demonstrations(compared)
    run = run_it(asked(base, export, written))
    assert (run.metrics["zero"]["by"], run.metrics["zero"]["texts"]) == ("demonstrations", 3)
    scorer = scoring.Scorer(folder_of(run), device="cpu", at_once=2)
    shown = ranked.demonstrations(examples.rows(examples.bring(written, home / "copy"), "train"))
    assert len(shown) == 3
    rewards = scorer.score(shown)
    # Demonstrations have 0 on average.
    assert sum(reward for reward, _ in rewards) / 3 == pytest.approx(0, abs=1e-4)
    assert all(spread > 0 for _, spread in rewards)
    model, tokenizer = scoring.with_zero(folder_of(run))
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folder_of(run))
    assert plain.config.num_labels == 1
    for (before, text), (reward, _) in zip(shown, rewards, strict=True):
        ids = torch.tensor([conversations.answered(tokenizer, before, text)])
        padded = torch.nn.functional.pad(ids, (0, 3), value=tokenizer.pad_token_id)
        for tokens in (ids, padded):
            mask = (tokens != tokenizer.pad_token_id).long()
            assert model(tokens, attention_mask=mask).logits.item() == pytest.approx(reward, abs=1e-4)
            more = run.metrics["zero"]["shift"]
            assert plain(tokens, attention_mask=mask).logits.item() - more == pytest.approx(reward, abs=1e-4)
    assert scorer.score([([{"role": "user", "content": "x " * 3000}], "y")]) == [None]


def test_a_folder_of_something_else_is_no_reward_model(base, home):
    with pytest.raises(Invalid, match="no reward model of ours"):
        scoring.Scorer(home / "models" / "tiny")
    with pytest.raises(Invalid, match="cannot be loaded"):
        scoring.Scorer(home / "nothing")


def test_pairs_are_learnt_by_trl_from_the_same_export(export, base):
    run = run_it(asked(base, export, **PAIRWISE))
    # Of each comparison six pairs and five.
    assert run.metrics["steps"] == 6 * math.ceil(12 * 11 / 20)
    assert run.metrics["heads"] == 1
    assert run.metrics["unseen_accuracy"] > 0.9
    assert run.metrics["splits"]["unseen"]["spread"] == 0


def test_a_consensus_is_learnt_from_too(compared, base):
    run = run_it(asked(base, preferences.exported(compared, rankings="consensus"), epochs=1))
    people = run.metrics["splits"]["unseen"]["people"]
    assert people["agreement"] == pytest.approx(5 / 6)
    assert people["accuracy"] is None


def test_the_same_seed_gives_the_same_model(export, base):
    one, other = run_it(asked(base, export, epochs=2)), run_it(asked(base, export, epochs=2))
    assert measured(one) == measured(other)
    third = run_it(asked(base, export, epochs=2, seed=1))
    assert measured(third) != measured(one)


def test_lora_trains_adapters_and_heads_and_leaves_a_whole_model(export, base):
    pytest.importorskip("peft")
    run = run_it(asked(base, export, lora_rank=4, learning_rate=1e-2))
    assert run.metrics["unseen_accuracy"] > 0.9
    names = {path.name for path in folder_of(run).iterdir()}
    assert {"model.safetensors", scoring.HEADS} <= names
    assert not any("adapter" in name for name in names)


@pytest.mark.parametrize("options", [{}, PAIRWISE, {"lora_rank": 4}], ids=["kwise", "pairwise", "lora"])
def test_one_that_is_stopped_goes_on_from_its_checkpoint(export, base, options):
    options = options | {"epochs": 3}
    whole = run_it(asked(base, export, **options))
    run = asked(base, export, **options)
    stop_at(run, 5)
    assert first_step_of_going_on(run) == 5
    assert measured(run) == pytest.approx(measured(whole), rel=1e-3)
    assert run.metrics["unseen_log_loss"] == pytest.approx(whole.metrics["unseen_log_loss"], rel=1e-2)


def test_a_tie_of_all_and_all_bad_are_left_out(base):
    project = factory.project(served_by=base, overlap=2, secret="00" * 32)
    for number, opening in enumerate(preferences.openings(project, {"train": 4})):
        comparison = factory.comparison_about(project, opening)
        order = {} if number else {"all_bad": True}
        factory.ranking(comparison, "A=B=C=D" if number < 2 else "A B C D", **order)
        factory.ranking(comparison, "A=B=C=D" if number < 2 else "A B C D")
    run = run_it(asked(base, preferences.exported(project), epochs=1))
    assert (run.metrics["all_tied"], run.metrics["train_comparisons"]) == (2, 2)
    assert run.metrics["unseen_accuracy"] is None
    assert run.metrics["splits"]["unseen"]["pairs"] == 0


def test_a_loss_that_is_no_number_ends_it(export, base):
    with pytest.raises(Invalid, match="diverged"):
        run_it(run := asked(base, export, learning_rate=1e30))
    assert "A lower learning_rate" in failed(run)


def test_rewards_that_are_no_numbers_end_it(export, base, monkeypatch):
    monkeypatch.setattr(scoring.Scorer, "by_head", lambda self, texts, told: [[math.nan]] * len(texts))
    with pytest.raises(Invalid, match="rewards that are no numbers"):
        run_it(run := asked(base, export, epochs=1))
    failed(run)


def test_nothing_short_enough_is_refused(export, base):
    with pytest.raises(Invalid, match="18 are longer; max_tokens may be raised"):
        run_it(run := asked(base, export, max_tokens=8))
    failed(run)


def test_a_base_without_a_template_is_refused(export, base, home):
    (home / "models" / "tiny" / "chat_template.jinja").unlink()
    with pytest.raises(Invalid, match="has no chat template"):
        run_it(run := asked(base, export))
    failed(run)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "/models/x"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    ],
    ids=["system", "safetensors", "torch"],
)
def test_a_full_disk_is_said(export, base, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(scoring, "normalise", full)
    with pytest.raises(Invalid, match="cannot go on"):
        run_it(run := asked(base, export, epochs=1))
    reason = failed(run)
    assert "No space left" in reason or "the disk is full" in reason


def test_what_it_cannot_learn_from_is_refused(compared, export, base):
    with pytest.raises(Invalid, match="only say where 0 is"):
        asked(base, preferences.demonstrations(compared))
    with pytest.raises(Invalid, match="learns from comparisons as ranked"):
        asked(base, preferences.exported(compared, "preference"))
    export.manifest["counts"]["by_split"].pop("train")
    with pytest.raises(Invalid, match="no line in the split train"):
        asked(base, export)


@pytest.mark.parametrize(("options", "told"), [({"heads": 0}, "heads is 0"), ({"loss": "x"}, "one of kwise, pairwise")])
def test_wrong_options_are_refused(options, told):
    with pytest.raises(Invalid, match=told):
        recipes.parse("reward", options)


def test_the_command_trains_and_says_what_came_of_it(export, base):
    out = io.StringIO()
    flags = ["--epochs=1", "--learning-rate=0.003", "--loss=kwise", "--heads=2"]
    call_command("train", "reward", "--export", str(export.pk), "--base", "tiny", "--foreground", *flags, stdout=out)
    run = TrainingRun.objects.get()
    assert "unseen_accuracy 0." in out.getvalue() or "unseen_accuracy 1" in out.getvalue()
    assert f"run {run.pk}, reward model, models/{run.location}" in out.getvalue()
