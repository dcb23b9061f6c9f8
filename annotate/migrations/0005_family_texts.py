"""Give openings whose family was found before near ones joined it their texts and the keys that near-duplicates share."""

from django.db import connections, migrations

from annotate import derive, likeness

BATCH = 500

OPENINGS = {
    "prompt": "SELECT id, project_id, text FROM annotate_prompt WHERE id > %s ORDER BY id LIMIT %s",
    "conversation": """
        SELECT conversation.id, conversation.project_id, message.text FROM annotate_conversation conversation, LATERAL (
            SELECT text FROM annotate_message
            WHERE conversation_id = conversation.id AND role = 'user' ORDER BY position LIMIT 1) message
        WHERE conversation.id > %s AND conversation.family <> '' ORDER BY conversation.id LIMIT %s""",
}

STORE = """
UPDATE annotate_familymember SET text = %s, near = %s::bigint[]
WHERE project_id = %s AND member = %s AND text = ''
"""


def fill(apps, schema_editor):
    """A batch a statement, each kept by itself. What an opening was before it was changed is not known any more."""
    with connections[schema_editor.connection.alias].cursor() as cursor:
        for statement in OPENINGS.values():
            after = 0
            while True:
                cursor.execute(statement, [after, BATCH])
                rows = cursor.fetchall()
                if not rows:
                    break
                after = rows[-1][0]
                cursor.executemany(
                    STORE,
                    [
                        (text[: likeness.LONG], likeness.bands(text), project, derive.family_of(text))
                        for _, project, text in rows
                    ],
                )


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("annotate", "0004_datasets_in_and_out")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop, elidable=True)]
