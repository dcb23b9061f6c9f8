"""Migrations that change what is stored: on a database of their own, brought to the day before."""

from collections.abc import Iterator

import psycopg
import pytest
from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

ALIAS = "of_migrations"


@pytest.fixture
def database(django_db_blocker, django_db_setup) -> Iterator[BaseDatabaseWrapper]:
    """An empty database beside that of the tests, gone afterwards."""
    with django_db_blocker.unblock():
        name = f"{settings.DATABASES['default']['NAME']}_{ALIAS}"
        server = psycopg.connect(**connections["default"].get_connection_params(), autocommit=True)
        server.execute(f'CREATE DATABASE "{name}"')
        made = connections["default"].copy(alias=ALIAS)
        made.settings_dict = made.settings_dict | {"NAME": name, "OPTIONS": {}}
        connections[ALIAS] = made
        try:
            yield made
        finally:
            made.close()
            del connections[ALIAS]
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            server.close()


def brought_to(database: BaseDatabaseWrapper, name: str):
    """The models as they are after this migration of ours."""
    executor = MigrationExecutor(database)
    return executor.migrate([("annotate", name)]).apps


@pytest.mark.slow
def test_policies_of_projects_and_rounds_keep_their_rows_and_get_a_weight(database) -> None:
    apps = brought_to(database, "0006_servers")
    models = {name: apps.get_model("annotate", name)._default_manager.using(ALIAS) for name in ("Project", "Policy")}
    first, second = (models["Policy"].create(name=name, location=name) for name in ("first", "second"))
    project = models["Project"].create(slug="field", name="Field")
    project.policies.add(second)
    project.policies.add(first)
    iteration = project.iterations.create(number=1, k=4, overlap=1, sampling={}, reply_policy=first)
    iteration.policies.add(second)
    before = list(project.policies.through.objects.using(ALIAS).order_by("id").values_list("id", "policy_id"))
    assert [policy for _, policy in before] == [second.pk, first.pk]

    apps = brought_to(database, "0007_policies_shared")
    rows = apps.get_model("annotate", "ProjectPolicy").objects.using(ALIAS).order_by("id")
    assert list(rows.values_list("id", "policy_id")) == before
    assert set(rows.values_list("project_id", "weight", "replies")) == {(project.pk, 1, False)}
    (row,) = apps.get_model("annotate", "IterationPolicy").objects.using(ALIAS)
    assert (row.iteration_id, row.policy_id, row.weight) == (iteration.pk, second.pk, 1)
    assert apps.get_model("annotate", "Iteration").objects.using(ALIAS).get().keeps_original
    assert apps.get_model("annotate", "Project").objects.using(ALIAS).get().keeps_original
    third = apps.get_model("annotate", "Policy").objects.using(ALIAS).create(name="third", location="third")
    assert rows.create(project_id=project.pk, policy=third).pk > max(pk for pk, _ in before)


@pytest.mark.slow
def test_pools_can_be_taken_back_with_what_was_passed_over_and_what_could_not_be_scored(database) -> None:
    apps = brought_to(database, "0009_pools")
    rows = {model.__name__: model._base_manager.using(ALIAS) for model in apps.get_app_config("annotate").get_models()}
    policy = rows["Policy"].create(name="first", location="first")
    project = rows["Project"].create(slug="field", name="Field")
    of = {"project_id": project.pk}
    iteration = rows["Iteration"].create(**of, number=1, k=2, overlap=1, sampling={}, reply_policy_id=policy.pk)
    came_in = rows["Import"].create(**of, source="file")
    conversation = rows["Conversation"].create(
        **of,
        imported_in_id=came_in.pk,
        source_id="1",
        kind="imported",
        state="finished",
        finished_at=timezone.now(),
    )
    drawn = {**of, "iteration_id": iteration.pk, "k": 2, "overlap": 1, "draw_size": 2, "draw_index": 0}
    opened, over, waiting = (
        rows["Comparison"].create(
            **drawn,
            message_id=rows["Message"]
            .create(conversation_id=conversation.pk, position=position, role="assistant", source="imported", text="So")
            .pk,
        )
        for position in (0, 1, 2)
    )
    rows["Comparison"].exclude(pk=waiting.pk).update(pool_id=opened.pk)
    rows["Comparison"].filter(pk=waiting.pk).update(pool_id=waiting.pk)
    rows["Comparison"].filter(pk=opened.pk).update(state="open", opened_at=timezone.now(), selection="uncertain")
    rows["Comparison"].filter(pk=over.pk).update(state="passed_over", reason="Another one was chosen.")
    run = rows["TrainingRun"].create(**of, kind="reward", base_id=policy.pk)
    for comparison, reward in ((opened, 1.5), (over, None), (waiting, 0.5)):
        text = rows["Completion"].create(kind="imported", text="So")
        candidate = rows["Candidate"].create(comparison_id=comparison.pk, completion_id=text.pk)
        rows["Score"].create(run_id=run.pk, candidate_id=candidate.pk, reward=reward, spread=reward)

    # What waits is scored again, for by what it is chosen was not kept.
    apps = brought_to(database, "0010_scores_by_head")
    kept = apps.get_model("annotate", "Score").objects.using(ALIAS).order_by("id")
    assert list(kept.values_list("reward", "by_head")) == [(1.5, None), (None, None)]
    apps = brought_to(database, "0008_training")
    found = apps.get_model("annotate", "Comparison").objects.using(ALIAS).order_by("id")
    assert list(found.values_list("state", "selection", "reason")) == [
        ("open", "uncertain", ""),
        ("failed", "random", "Another one was chosen."),
        ("sampling", "random", ""),
    ]
    assert apps.get_model("annotate", "Score").objects.using(ALIAS).get().reward == 1.5
    # Else it could not open there: it would be given candidates that it has.
    assert not apps.get_model("annotate", "Candidate").objects.using(ALIAS).filter(comparison=waiting.pk).exists()
    # And forth again: what was chosen is still no random one.
    apps = brought_to(database, "0009_pools")
    found = apps.get_model("annotate", "Comparison").objects.using(ALIAS).order_by("id")
    assert list(found.values_list("selection", "pool_id")) == [
        ("uncertain", opened.pk),
        ("random", None),
        ("random", None),
    ]
