"""Give prompts and finished conversations that were there before them the keys that near-duplicates share."""

from collections.abc import Iterator

from django.db import connections, migrations, models

from annotate import likeness

BATCH = 500


def fill(apps, schema_editor):
    """A batch a statement, each kept by itself, so that what was done is not done again."""
    alias = schema_editor.connection.alias
    for prompts in _unfilled(apps.get_model("annotate", "Prompt").objects.using(alias)):
        texts = prompts.values_list("pk", "text")
        _store(alias, "annotate_prompt", [(likeness.bands(text), pk) for pk, text in texts])
    finished = apps.get_model("annotate", "Conversation").objects.using(alias).filter(state="finished")
    for conversations in _unfilled(finished):
        texts = {pk: [] for pk in conversations.values_list("pk", flat=True)}
        said = apps.get_model("annotate", "Message").objects.using(alias).filter(conversation__in=list(texts))
        said = said.exclude(role="system").order_by("conversation", "position")
        for pk, text in said.values_list("conversation_id", "text"):
            texts[pk].append(text)
        keys = [(likeness.bands(likeness.whole(parts)), pk) for pk, parts in texts.items()]
        _store(alias, "annotate_conversation", keys)


def _unfilled(rows: models.QuerySet) -> Iterator[models.QuerySet]:
    rows = rows.filter(near=[]).order_by("pk")
    after = 0
    while batch := list(rows.filter(pk__gt=after).values_list("pk", flat=True)[:BATCH]):
        yield rows.filter(pk__in=batch)
        after = batch[-1]


def _store(alias: str, table: str, keys: list[tuple[list[int], int]]) -> None:
    with connections[alias].cursor() as cursor:
        cursor.executemany(f"UPDATE {table} SET near = %s::bigint[] WHERE id = %s", keys)  # noqa: S608


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("annotate", "0002_writing")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop, elidable=True)]
