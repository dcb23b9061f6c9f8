"""Times on pages say in which zone they are."""

from datetime import UTC, datetime

import pytest
from django.utils import formats, timezone

from annotate.models import Role
from tests import factory
from trainers_ui.templatetags import words

pytestmark = pytest.mark.django_db

MOMENT = datetime(2026, 3, 9, 7, 5, tzinfo=UTC)


def test_the_admin_site_writes_times_with_their_zone(client):
    assert formats.localize(MOMENT) == "9 Mar 2026, 07:05 UTC"
    project = factory.project()
    project.iterations.update(opened_at=MOMENT)
    client.force_login(factory.person(role=Role.ADMIN), backend="sesame.backends.ModelBackend")
    assert "9 Mar 2026, 07:05 UTC" in client.get("/admin/annotate/iteration/").content.decode()


def test_a_time_of_today_has_its_zone():
    assert words.when(timezone.now()).endswith(" UTC")
