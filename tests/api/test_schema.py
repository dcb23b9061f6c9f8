"""`/api/schema/`: complete, valid and without a warning."""

import json

import pytest
from django.core.management import call_command


def test_generation_has_no_warnings(tmp_path) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yml"))
    assert "/api/v1/projects/{slug}/claim/" in (tmp_path / "schema.yml").read_text()


@pytest.mark.django_db
def test_anyone_may_read_it(client) -> None:
    response = client.get("/api/schema/", headers={"accept": "application/vnd.oai.openapi+json"})
    assert response.status_code == 200
    schema = json.loads(response.content)
    assert schema["info"]["title"] == "Bothsides"
