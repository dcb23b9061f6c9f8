"""What says how alike texts are."""

import importlib
import random
import time

import pytest
from django.apps import apps
from django.db import connection
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from annotate import likeness, projects
from annotate.models import Conversation, Message, Project, Prompt
from tests import factory

OPENING = "Please write a short story about a lighthouse keeper who finds a message in a bottle, number {} of the set."
REPLY = "There was a keeper who had not spoken to anybody for a year when the sea brought him a bottle of green glass."

KEY_OF_HELLO = [5278916353277955147]
KEYS_OF_OPENING = [
    7966619475160269457,
    -1515380215597723855,
    -4750911969717465674,
    7438331816175479484,
    7852055346516912561,
    6794075517608802460,
    6398292701626324387,
    -5458057923747641838,
    -6040326711351483918,
    1234759453977175631,
    6052409612016025230,
    -5411764772940552974,
]
KEYS_OF_GREEK = [4780045608003579317, 1882542587275803046]


def finished(project: Project, *texts: str, state: str = "finished") -> Conversation:
    done = state == "finished"
    conversation = Conversation.objects.create(
        project=project,
        iteration=factory.current(project),
        kind=Conversation.Kind.WRITE,
        trainer=factory.trainer(project),
        state=state,
        finished_at=timezone.now() if done else None,
        family="family",
        near=likeness.bands(likeness.whole(texts)) if done else [],
    )
    Message.objects.create(
        conversation=conversation, position=0, role="system", text="Be helpful and brief.", source="written"
    )
    for position, text in enumerate(texts, start=1):
        role = "user" if position % 2 else "assistant"
        Message.objects.create(conversation=conversation, position=position, role=role, text=text, source="written")
    return conversation


def prompts(project: Project, *texts: str) -> list[Prompt]:
    projects.add_prompts(project=project, openings=[projects.Opening(text=text) for text in texts])
    return [project.prompts.get(text=text) for text in texts]


def words(seed: int, characters: int) -> str:
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(3000)]
    return " ".join(draw.choices(vocabulary, k=characters // 3))[:characters]


def test_keys_stay_what_they_are():
    """They are stored: where this fails, the keys of what is stored have to be made again, in a migration."""
    assert likeness.bands("Hello") == KEY_OF_HELLO
    assert likeness.bands(OPENING) == KEYS_OF_OPENING
    assert likeness.bands("Γειά σου Κόσμε, πες μου μια ιστορία για τη θάλασσα.")[:2] == KEYS_OF_GREEK


def test_keys_fit_the_column():
    keys = likeness.bands(words(1, 5000))
    assert len(set(keys)) == likeness.BANDS
    assert all(-(2**63) <= key < 2**63 for key in keys)


def test_each_band_has_a_key_of_its_own():
    # Even of a text with one shingle only.
    assert len(set(likeness.bands("a" * 100))) == likeness.BANDS


def test_an_empty_text_has_no_keys():
    assert likeness.bands("") == likeness.bands(" \n\t") == []


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_has_keys_and_is_like_itself(text):
    assert likeness.bands(text) == likeness.bands(f"  {text}\n")
    assert likeness.likeness(text, text) == 1.0


@given(st.text(), st.text())
def test_likeness_is_a_share_and_has_no_direction(a, b):
    assert 0 <= likeness.likeness(a, b) == likeness.likeness(b, a) <= 1


def test_case_and_white_space_do_not_count():
    a, b = OPENING, OPENING.upper().replace(" ", "\n  ")
    assert likeness.likeness(a, b) == 1.0
    assert likeness.bands(a) == likeness.bands(b)


def test_short_texts_are_near_to_the_same_text_only():
    assert likeness.likeness("Hello", "hello ") == 1.0
    assert likeness.likeness("Hello", "Hello!") == 0.0
    assert likeness.bands("Hello") == likeness.bands(" hello")
    assert len(likeness.bands("Hello")) == 1
    assert not set(likeness.bands("Hello")) & set(likeness.bands("Hello!"))


def test_a_little_changed_is_like_and_another_text_is_not():
    assert likeness.likeness(OPENING.format(1), OPENING.format(22)) >= likeness.LIKE
    assert likeness.likeness(OPENING, REPLY) < 0.1


@pytest.mark.slow
def test_near_duplicates_share_a_key():
    """Of texts a little more alike than LIKE, all but one in a hundred; of unrelated ones none."""
    found = tried = 0
    for seed in range(300):
        text = words(seed, 600)
        changed = f"{text[:480]} {words(seed + 1000, 60)} {text[500:]}"
        if likeness.likeness(text, changed) >= likeness.LIKE:
            tried += 1
            found += bool(set(likeness.bands(text)) & set(likeness.bands(changed)))
        assert not set(likeness.bands(text)) & set(likeness.bands(words(seed + 5000, 600)))
    assert tried > 100
    assert found / tried > 0.97


def test_only_the_start_of_very_long_texts_is_looked_at():
    text = words(3, likeness.LONG)
    assert likeness.bands(text + words(4, 1000)) == likeness.bands(text)
    start = time.process_time()
    likeness.bands(text * 50)
    assert time.process_time() - start < 2


@given(st.text(max_size=60), st.text(max_size=60))
def test_distance_is_levenshtein_over_the_longer_length(a, b):
    assert likeness.distance(a, b) == pytest.approx(Levenshtein.normalized_distance(a, b))
    assert likeness.distance(a, a) == 0


def test_distance_of_long_texts_with_few_changes_is_exact():
    text = words(1, 50_000)
    changed = text[:10_000] + words(2, 300) + text[10_000:30_000] + text[30_400:]
    assert likeness.distance(text, changed) == Levenshtein.normalized_distance(text, changed)
    assert likeness.distance("", text) == 1.0


@pytest.mark.parametrize("length", [20_001, 50_000])
def test_distance_of_long_and_different_texts_is_near_and_never_too_small(length):
    a, b = words(1, length), words(2, length - 7000)
    exact = Levenshtein.normalized_distance(a, b)
    assert exact <= likeness.distance(a, b) <= min(1, exact + 0.05)


@pytest.mark.slow
def test_distance_takes_a_bounded_time():
    draw = random.Random(1)
    a, b = ("".join(chr(draw.randrange(0x4E00, 0x9FFF)) for _ in range(50_000)) for _ in "ab")
    start = time.process_time()
    assert likeness.distance(a, b) > 0.99
    # 0.1 s; exact it would be 0.3 s, and four times that for texts of twice the length.
    likeness.distance(a * 10, b * 10)
    assert time.process_time() - start < 10


@pytest.mark.django_db
def test_conversations_near_to_a_text_are_found():
    project = factory.project()
    same = finished(project, OPENING.format(1), REPLY)
    alike = finished(project, OPENING.format(22), REPLY)
    finished(project, "How do I cook rice so that it does not become sticky?", "Wash it first, then use less water.")
    finished(project, OPENING.format(1), REPLY, state="open")
    finished(factory.project(), OPENING.format(1), REPLY)
    text = likeness.whole([OPENING.format(1), REPLY])
    assert likeness.conversations_near(project=project, text=text) == [same, alike]
    assert likeness.conversations_near(project=project, text=text, besides={same.pk}) == [alike]
    assert likeness.conversations_near(project=project, text=words(1, 300)) == []
    assert likeness.conversations_near(project=project, text="") == []


@pytest.mark.django_db
def test_prompts_near_to_an_opening_are_found():
    project = factory.project()
    first, second, _ = prompts(project, OPENING.format(1), OPENING.format(22), "How do I cook rice?")
    prompts(factory.project(), OPENING.format(1))
    assert likeness.prompts_near(project=project, text=OPENING.format(1)) == [first, second]
    assert likeness.prompts_near(project=project, text=OPENING.format(1), besides=[first.pk]) == [second]
    assert likeness.prompts_near(project=project, text="How do I cook eggs?") == []
    assert [str(prompt) for prompt in likeness.prompts_near(project=project, text="how do i cook rice?")] == [
        "How do I cook rice?"
    ]


@pytest.mark.django_db
def test_a_candidate_that_only_shares_a_key_is_not_near():
    project = factory.project()
    (prompt,) = prompts(project, OPENING.format(1))
    Prompt.objects.filter(pk=prompt.pk).update(near=likeness.bands(REPLY))
    assert likeness.prompts_near(project=project, text=REPLY) == []


@pytest.mark.django_db
def test_of_many_the_nearest_three_are_named():
    project = factory.project()
    prompts(project, *(OPENING.format(number * 1111) for number in range(20)))
    near = likeness.prompts_near(project=project, text=OPENING.format(7777))
    assert len(near) == likeness.MOST
    assert near[0].text == OPENING.format(7777)


@pytest.mark.django_db
def test_queries_do_not_grow_with_what_is_near(django_assert_num_queries):
    project = factory.project()
    text = likeness.whole([OPENING.format(1), REPLY])
    for number in range(5):
        finished(project, OPENING.format(number), REPLY)
    prompts(project, *(OPENING.format(number) for number in range(5)))
    with django_assert_num_queries(3):
        assert len(likeness.conversations_near(project=project, text=text)) == likeness.MOST
    with django_assert_num_queries(2):
        assert len(likeness.prompts_near(project=project, text=OPENING.format(1))) == likeness.MOST


@pytest.mark.django_db
def test_what_was_there_before_gets_its_keys(monkeypatch):
    project = factory.project()
    prompts(project, *(OPENING.format(number) for number in range(5)))
    done, unfinished = finished(project, OPENING, REPLY), finished(project, OPENING, REPLY, state="open")
    Prompt.objects.update(near=[])
    Conversation.objects.update(near=[])
    migration = importlib.import_module("annotate.migrations.0003_near_keys")
    monkeypatch.setattr(migration, "BATCH", 2)
    migration.fill(apps, connection.schema_editor())
    assert all(prompt.near == likeness.bands(prompt.text) for prompt in project.prompts.all())
    done.refresh_from_db()
    unfinished.refresh_from_db()
    assert done.near == likeness.bands(f"{OPENING}\n\n{REPLY}")
    assert unfinished.near == []
