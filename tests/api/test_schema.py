"""`/api/schema/`: complete, valid and without a warning."""

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.management import call_command

from tests import site


def test_generation_has_no_warnings(tmp_path) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yml"))
    assert "/api/v1/projects/{slug}/claim/" in (tmp_path / "schema.yml").read_text()


@pytest.mark.django_db
def test_anyone_may_read_it(client) -> None:
    response = client.get("/api/schema/", headers={"accept": "application/vnd.oai.openapi+json"})
    assert response.status_code == 200
    schema = json.loads(response.content)
    assert schema["info"]["title"] == "Bothsides"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_several_may_read_it_at_once_from_a_server_that_has_just_started() -> None:
    def status(_) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/schema/", timeout=60) as answer:
            return answer.status

    with site.web_server(WEB_PROCESSES="1") as port, ThreadPoolExecutor(8) as readers:
        assert set(readers.map(status, range(8))) == {200}
