import django.contrib.postgres.fields
from django.db import migrations, models


def score_again(apps, schema_editor):
    """Pools that wait choose by what the heads give, which was not kept."""
    rows = apps.get_model("annotate", "Score")._base_manager.using(schema_editor.connection.alias)
    rows.filter(candidate__comparison__state="sampling").delete()


class Migration(migrations.Migration):
    dependencies = [
        ("annotate", "0009_pools"),
    ]

    operations = [
        migrations.RunPython(score_again, migrations.RunPython.noop, elidable=True),
        migrations.AddField(
            model_name="score",
            name="by_head",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.FloatField(),
                help_text="What each head gives. Empty as the reward is, and where only mean and deviation were kept.",
                null=True,
                size=None,
            ),
        ),
    ]
