"""Policies that a server samples for, beside models that a worker loads."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotate", "0005_family_texts"),
    ]

    operations = [
        migrations.AddField(
            model_name="policy",
            name="concurrency",
            field=models.PositiveSmallIntegerField(
                blank=True, help_text="Texts that each worker asks the server for at once; empty means 32.", null=True
            ),
        ),
        migrations.AddField(
            model_name="policy",
            name="context_tokens",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="The longest prompt and text together. vLLM and SGLang tell it themselves; needed for other servers.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="policy",
            name="honours_seed",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="The server gives the same text for the same seed: each text gets one, which is kept with it.",
                verbose_name="honours seeds",
            ),
        ),
        migrations.AddField(
            model_name="policy",
            name="key_variable",
            field=models.CharField(
                blank=True,
                db_default="",
                help_text="The environment variable of the workers that holds the server's key, such as VLLM_API_KEY; its name ends in _API_KEY. Never the key itself. Empty where the server wants none.",
                max_length=120,
            ),
        ),
        migrations.AddField(
            model_name="policy",
            name="served_as",
            field=models.CharField(
                blank=True,
                db_default="",
                help_text="The model's name at the server.",
                max_length=200,
                verbose_name="served as",
            ),
        ),
        migrations.AlterField(
            model_name="completion",
            name="completion_tokens",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Of pieces that came, where a server did not tell, as of a text that was stopped.",
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="completion",
            name="prompt_tokens",
            field=models.PositiveIntegerField(
                blank=True, help_text="0 where a server did not tell, as of a text that was stopped.", null=True
            ),
        ),
        migrations.AlterField(
            model_name="generationrequest",
            name="template_hash",
            field=models.CharField(
                blank=True, help_text="SHA-256 of the chat template; empty where a server has its own.", max_length=64
            ),
        ),
        migrations.AlterField(
            model_name="policy",
            name="engine",
            field=models.CharField(
                choices=[
                    ("transformers", "transformers: a Hugging Face model that the worker loads itself"),
                    ("openai_compatible", "openai_compatible: a server that speaks /v1/chat/completions"),
                ],
                default="transformers",
                max_length=32,
            ),
        ),
        migrations.AlterField(
            model_name="policy",
            name="location",
            field=models.CharField(
                help_text="A folder or a hub id; a relative name is first looked for in the folder of models. Of a server its base URL, such as http://localhost:8001/v1.",
                max_length=500,
            ),
        ),
        migrations.AlterField(
            model_name="policy",
            name="revision",
            field=models.CharField(
                blank=True, help_text="Of the hub id; empty for a folder and for a server.", max_length=120
            ),
        ),
        migrations.AddConstraint(
            model_name="policy",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("concurrency__gte", 1),
                        ("concurrency__isnull", False),
                        ("engine", "openai_compatible"),
                        ("revision", ""),
                        ("location__regex", "^https?://"),
                        models.Q(("served_as", ""), _negated=True),
                    ),
                    models.Q(
                        models.Q(("engine", "openai_compatible"), _negated=True),
                        ("concurrency__isnull", True),
                        ("context_tokens__isnull", True),
                        ("honours_seed", False),
                        ("key_variable", ""),
                        ("served_as", ""),
                    ),
                    _connector="OR",
                ),
                name="policy_fields_of_its_engine",
            ),
        ),
        migrations.AddConstraint(
            model_name="policy",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("key_variable", ""), ("key_variable__regex", "^[A-Z][A-Z0-9_]*_API_KEY$"), _connector="OR"
                ),
                name="policy_key_by_name_only",
            ),
        ),
        migrations.AddConstraint(
            model_name="policy",
            constraint=models.CheckConstraint(
                condition=models.Q(("context_tokens__isnull", True), ("context_tokens__gte", 1), _connector="OR"),
                name="policy_context_from_1",
            ),
        ),
    ]
