"""What may be asked of an export: read from words, kept as JSON, read back; and what each refusal says."""

from datetime import UTC, datetime

import pytest

from annotate.datasets import filters
from annotate.errors import Invalid


def refused(what: str, **given) -> str:
    with pytest.raises(Invalid) as refusal:
        filters.parse(what, given)
    return refusal.value.message


@pytest.mark.parametrize("what", list(filters.OF))
def test_nothing_asked_is_the_default(what):
    assert filters.parse(what, {}) == filters.OF[what]()
    assert filters.parse(what, dict.fromkeys(filters.OF[what]().as_json())) == filters.OF[what]()


@pytest.mark.parametrize(
    ("what", "given"),
    [
        (
            "comparisons",
            {
                "iteration": "2",
                "split": "held_out",
                "since": "2026-01-31",
                "include": ["surplus", "open"],
                "without": ["0123456789abcdef"],
                "personal": "redact",
                "origins": ["imported"],
                "selection": "random",
                "rankings": "consensus",
                "pairs": "adjacent",
                "margin": "rank",
            },
        ),
        (
            "demonstrations",
            {
                "sources": ["written"],
                "review_states": ["none", "approved"],
                "mix": ["a:b.jsonl:0.5", "export:12:300"],
                "mix_seed": 7,
            },
        ),
        ("conversations", {"kinds": ["imported", "chat"]}),
        ("prompts", {"use_case": "open QA", "include": ["inactive"]}),
    ],
)
def test_what_was_asked_comes_back_from_the_record(what, given):
    read = filters.parse(what, given)
    assert read != filters.OF[what]()
    assert filters.parse(what, read.as_json()) == read


def test_a_mix_is_a_count_or_a_weight():
    mixed = filters.parse("demonstrations", {"mix": ["a:b.jsonl:0.5", "export:12:300", "c:1.0"]}).mix
    assert mixed == (
        filters.Mix("a:b.jsonl", weight=0.5),
        filters.Mix("export:12", count=300),
        filters.Mix("c", weight=1.0),
    )


@pytest.mark.parametrize("text", ["", "file", "file:", ":3", " :3", "file:0", "file:-1", "file:0.0", "file:nan",
                                  "file:inf", "file:x", "file:1e99", "file:" + "9" * 30])  # fmt: skip
def test_what_is_no_mix(text):
    assert refused("demonstrations", mix=[text]).startswith(f"mix: {text!r} is not NAME:WEIGHT")


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T00:00:00", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T01:00:00+01:00", datetime(2026, 1, 31, tzinfo=UTC)),
        (datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 1, 31, tzinfo=UTC)),
        (datetime(2026, 1, 31).date(), datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_dates_are_days_or_moments(given, moment):
    assert filters.parse("comparisons", {"since": given}).since == moment


@pytest.mark.parametrize("text", ["", "31.1.2026", "2026-13-01", "2026-02-30", "now", 7, ["2026-01-31"], True])
def test_what_is_no_date(text):
    assert refused("comparisons", since=text).startswith("since: not a date")


@pytest.mark.parametrize(
    ("what", "given", "says"),
    [
        ("trees", {}, "There is no export of trees. What there is: comparisons, demonstrations,"),
        ("prompts", {"colour": "red"}, "colour: there is no such filter. Filters of prompts: iteration, split,"),
        ("prompts", {"mix": ["a:1"]}, "mix is for demonstrations; prompts do not have it."),
        ("demonstrations", {"pairs": "all"}, "pairs is for comparisons; demonstrations do not have it."),
        ("prompts", {"use_case": "\ud800"}, "The filters hold half a character (a lone surrogate), which is no text."),
        ("demonstrations", {"mix": ["export:\ud800:5"]}, "The filters hold half a character"),
        ("comparisons", {"\ud800": 1}, "The filters hold half a character"),
        ("comparisons", {"iteration": 0}, "iteration: 0 is no whole number from 1 on."),
        ("comparisons", {"iteration": True}, "iteration: True is no whole number"),
        ("comparisons", {"iteration": "first"}, "iteration: 'first' is no whole number"),
        ("comparisons", {"iteration": 2**40}, "is no whole number"),
        ("comparisons", {"split": "dev"}, "split: 'dev' is none of train, validation, test, held_out."),
        ("comparisons", {"split": ["test"]}, "split: ['test'] is none of"),
        ("comparisons", {"include": "open"}, "include: 'open' is no list."),
        ("comparisons", {"include": [1]}, "include: a list of words is wanted."),
        ("comparisons", {"include": ["returned"]}, "include returned is not for comparisons, which know open,"),
        ("conversations", {"include": ["open"]}, "include open is not for conversations, which have no"),
        ("comparisons", {"without": ["ann@example.org"]}, "without: 'ann@example.org' is no pseudonym"),
        ("comparisons", {"personal": "hide"}, "personal: 'hide' is none of ignore, report, redact."),
        ("comparisons", {"origins": []}, "origins: name one or more of trainer, imported, or leave it out."),
        ("comparisons", {"selection": ["random"]}, "selection: ['random'] is none of random, uncertain."),
        ("comparisons", {"rankings": "mean"}, "rankings: 'mean' is none of each, consensus."),
        ("comparisons", {"pairs": "some"}, "pairs: 'some' is none of all, adjacent, best_worst."),
        ("comparisons", {"margin": 1.0}, "margin: 1.0 is none of rank, rating."),
        ("demonstrations", {"sources": ["found"]}, "sources: 'found' is none of written,"),
        ("demonstrations", {"mix": "a:1"}, "mix: 'a:1' is no list."),
        ("demonstrations", {"mix": [{"name": "a"}]}, "is not NAME:WEIGHT"),
        ("demonstrations", {"mix": ["a:1", "a:0.5"]}, "mix: a is there twice"),
        ("demonstrations", {"mix_seed": -1}, "mix_seed: -1 is no whole number from 0 on."),
        ("conversations", {"kinds": ["rank"]}, "kinds: 'rank' is none of chat, write, imported."),
        ("prompts", {"use_case": 3}, "use_case: a text is wanted."),
        (
            "demonstrations",
            {"review_states": ["approved"], "include": ["unreviewed"]},
            "review_states names all that is wanted; leave include unreviewed out.",
        ),
    ],
)  # fmt: skip
def test_each_refusal_names_its_field(what, given, says):
    assert says in refused(what, **given)
