"""Migrations that change what is stored: on a database of their own, brought to the day before."""

from collections.abc import Iterator

import psycopg
import pytest
from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor

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
