"""`/api/v1/projects/{slug}/exports/` and `/api/v1/exports/{id}/` with what can be done to one."""

import hashlib
import json

import pytest
from django.core.files.storage import default_storage
from django.utils import timezone

from annotate import exports
from annotate.datasets import snapshots, stored
from annotate.models import Export
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("folders", "rung")]

downloads = pytest.mark.django_db(transaction=True)
"""A download closes the database connection, because it may last."""

LIST = "/api/v1/projects/field/exports/"
RANKED = {"what": "comparisons", "format": "ranked"}


@pytest.fixture
def project():
    return factory.project(slug="field", overlap=1)


@pytest.fixture
def engineer(api, project):
    """The client of an engineer of the project."""
    return api(factory.person(project, role="engineer"))


def one(pk: int, more: str = "") -> str:
    return f"/api/v1/exports/{pk}/{more}"


def done(project, **more) -> Export:
    """An export of two rankings, written."""
    for text in ("Hello", "Bye"):
        factory.ranking(factory.comparison_about(project, text))
    asked = snapshots.prepare(what="comparisons", project=project, format="ranked", **more | {"filters": filters()})
    return snapshots.go_on(asked)


def filters(**given):
    from annotate.datasets import filters

    return filters.parse("comparisons", given)


@pytest.mark.parametrize("role", ["engineer", "admin"])
def test_one_is_asked_for_and_a_worker_is_rung_for(api, project, role, rung):
    asked = {
        **RANKED,
        "filters": {"split": "train", "since": "2026-01-31", "include": ["open"], "rankings": "consensus"},
        "files": {"kind": "parquet", "shard_rows": 500},
    }
    user = factory.person(project, role=role)
    response = api(user).post(LIST, asked)
    assert response.status_code == 202
    export = Export.objects.get()
    assert (export.state, export.background, export.created_by) == ("waiting", True, user)
    assert rung == [("export", export.pk)]
    body = response.json()
    assert {
        name: body[name] for name in ("id", "project", "state", "what", "format", "rows", "digest", "iteration")
    } == {
        "id": export.pk,
        "project": "field",
        "state": "waiting",
        "what": "comparisons",
        "format": "ranked",
        "rows": 0,
        "digest": "",
        "iteration": None,
    }
    assert body["filters"]["include"] == ["open"]
    assert body["filters"]["since"] == "2026-01-31T00:00:00+00:00"
    assert body["files_as"] == {"kind": "parquet", "shard_rows": 500}
    assert body["files"] == body["parents"] == []
    assert body["manifest"] == body["counts"] == {}


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"what": "people", "format": "ranked"}, "no export of people"),
        ({"what": "comparisons", "format": "messages"}, "no format messages of comparisons"),
        ({**RANKED, "filters": {"split": "dev"}}, "split"),
        ({**RANKED, "filters": {"kinds": ["chat"]}}, "kinds is for conversations"),
        ({**RANKED, "filters": {"nonsense": 1}}, "no such filter"),
        ({**RANKED, "filters": {"iteration": 9}}, "no iteration 9"),
        ({**RANKED, "files": {"kind": "csv"}}, "'csv' is none of"),
        ({"what": "demonstrations", "format": "messages", "filters": {"mix": ["/etc/passwd:5"]}}, "is a file"),
    ],
)
def test_what_cannot_be_is_422_and_leaves_nothing(engineer, asked, word):
    response = engineer.post(LIST, asked)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert word in response.json()["detail"]
    assert not Export.objects.exists()


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"what": "comparisons"},
        {**RANKED, "filters": []},
        {**RANKED, "files": 3},
        {**RANKED, "filter": {"split": "train"}},
        [],
    ],
)
def test_what_is_malformed_is_422_with_its_fields(engineer, asked):
    response = engineer.post(LIST, asked)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert response.json()["fields"]


def test_exports_of_other_projects_are_not_mixed_in(engineer, project):
    other = factory.project()
    theirs = Export.objects.create(project=other, what="demonstrations", format="messages")
    refusals = []
    for number in (theirs.pk, 999_999):
        asked = {"what": "demonstrations", "format": "messages", "filters": {"mix": [f"export:{number}:5"]}}
        response = engineer.post(LIST, asked)
        assert response.status_code == 404
        refusals.append(response.json()["detail"].replace(str(number), "N"))
    # Nobody can tell by it which there are.
    assert refusals[0] == refusals[1]


def test_a_done_one_has_its_manifest_and_files(engineer, project):
    first = done(project)
    second = snapshots.prepare(what="comparisons", project=project, format="ranked", filters=filters(), parents=[first])
    body = engineer.get(one(first.pk)).json()
    assert (body["state"], body["rows"], body["share_done"], body["digest"]) == ("done", 2, 1.0, first.digest)
    assert body["manifest"] == first.manifest
    assert body["counts"]["rankings"] == 2
    names = {file["name"] for file in body["files"]}
    assert "README.md" in names
    (shard,) = [file for file in body["files"] if file["rows"] == 2 or file["name"] == "train.jsonl"][:1]
    assert shard["url"].endswith(one(first.pk, f"files/{shard['name']}/"))
    parents = engineer.get(one(second.pk)).json()["parents"]
    assert parents == [{"id": first.pk, "what": "comparisons", "format": "ranked", "digest": first.digest}]


def test_pages_hold_everything_once_in_order(engineer, project):
    made = [
        snapshots.prepare(what="comparisons", project=project, format="ranked", filters=filters()) for _ in range(5)
    ]
    Export.objects.create(project=factory.project(), what="comparisons", format="ranked")
    found, address = [], f"{LIST}?limit=2"
    while address:
        body = engineer.get(address).json()
        found += [row["id"] for row in body["results"]]
        address = body["next"]
    assert found == [export.pk for export in made]
    assert engineer.get(f"{LIST}?limit=0").status_code == 422


def test_query_count_does_not_grow(engineer, project, django_assert_num_queries):
    snapshots.prepare(what="comparisons", project=project, format="ranked", filters=filters())
    with django_assert_num_queries(4):
        engineer.get(LIST)
    for _ in range(3):
        snapshots.prepare(what="comparisons", project=project, format="ranked", filters=filters())
    with django_assert_num_queries(4):
        engineer.get(LIST)


def test_one_is_stopped_and_gone_on_with(engineer, project, rung):
    export = snapshots.prepare(what="comparisons", project=project, format="ranked", filters=filters())
    body = engineer.post(one(export.pk, "stop/")).json()
    assert (body["state"], body["reason"]) == ("stopped", "It was stopped.")
    again = engineer.post(one(export.pk, "stop/"))
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    rung.clear()
    response = engineer.post(one(export.pk, "go-on/"))
    assert (response.status_code, response.json()["state"]) == (202, "waiting")
    assert rung == [("export", export.pk)]
    assert engineer.post(one(export.pk, "go-on/")).status_code == 409


def test_one_that_is_done_is_neither_stopped_nor_gone_on_with(engineer, project):
    export = done(project)
    assert engineer.post(one(export.pk, "stop/")).status_code == 409
    assert engineer.post(one(export.pk, "go-on/")).status_code == 409


def test_one_that_a_command_lost_is_gone_on_with_by_a_worker(engineer, project, rung):
    export = Export.objects.create(
        project=project,
        what="comparisons",
        format="ranked",
        filters=filters().as_json(),
        state="running",
        token="0" * 32,
        lease_until=timezone.now(),
    )
    assert engineer.post(one(export.pk, "go-on/")).status_code == 202
    assert rung == [("export", export.pk)]
    assert exports.listed(project).get().background


# Files ------------------------------------------------------------------------------------------------


@pytest.fixture
def file(engineer, project):
    """One file of lines of an export: (its address, its bytes)."""
    export = done(project)
    name = next(name for name in export.manifest["files"] if name.endswith(".jsonl"))
    with default_storage.open(f"{export.location}/{name}") as lines:
        return one(export.pk, f"files/{name}/"), lines.read()


def body(response) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content


@downloads
def test_a_file_is_downloaded_whole(engineer, file):
    address, data = file
    response = engineer.get(address)
    assert body(response) == data
    assert response.status_code == 200
    assert response["Content-Length"] == str(len(data))
    assert response["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert response["Accept-Ranges"] == "bytes"
    assert response["Content-Type"] == "application/x-ndjson"
    assert 'attachment; filename="' in response["Content-Disposition"]


@downloads
def test_every_file_that_is_named_can_be_downloaded_and_so_can_the_manifest(engineer, project):
    export = done(project)
    for described in engineer.get(one(export.pk)).json()["files"]:
        data = body(engineer.get(described["url"]))
        assert (len(data), hashlib.sha256(data).hexdigest()) == (described["bytes"], described["sha256"])
    manifest = engineer.get(one(export.pk, "files/manifest.json/"))
    data = body(manifest)
    assert json.loads(data) == export.manifest
    assert manifest["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert manifest["Content-Length"] == str(len(data))


@downloads
def test_a_range_is_sent_alone(engineer, file):
    address, data = file
    for wanted, part in (
        ("bytes=0-9", slice(0, 10)),
        ("bytes=10-", slice(10, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=5-5", slice(5, 6)),
        ("bytes=3-999999999", slice(3, None)),
        ("bytes=-999999999", slice(0, None)),
    ):
        response = engineer.get(address, HTTP_RANGE=wanted)
        assert body(response) == data[part]
        assert response.status_code == 206
        begin, end, _ = part.indices(len(data))
        assert response["Content-Range"] == f"bytes {begin}-{end - 1}/{len(data)}"
        assert response["Content-Length"] == str(end - begin)
    for outside in ("bytes=999999999-", "bytes=-0"):
        response = engineer.get(address, HTTP_RANGE=outside)
        assert (response.status_code, response["Content-Range"]) == (416, f"bytes */{len(data)}")


@downloads
def test_what_is_no_single_range_is_answered_with_the_whole(engineer, file):
    address, data = file
    for wanted in ("bytes=0-1,4-5", "lines=0-9", "bytes=9-3", "bytes=", "bytes=x-", "bytes=" + "9" * 30):
        response = engineer.get(address, HTTP_RANGE=wanted)
        assert (response.status_code, body(response)) == (200, data)


@downloads
def test_a_range_is_sent_only_of_what_one_has_a_part_of(engineer, file):
    address, data = file
    etag = engineer.get(address)["ETag"]
    same = engineer.get(address, HTTP_RANGE="bytes=4-", HTTP_IF_RANGE=etag)
    assert (same.status_code, body(same)) == (206, data[4:])
    for other in ('"0"', f"W/{etag}", "Wed, 21 Oct 2026 07:28:00 GMT"):
        whole = engineer.get(address, HTTP_RANGE="bytes=4-", HTTP_IF_RANGE=other)
        assert (whole.status_code, body(whole)) == (200, data)


@downloads
def test_what_one_has_already_is_not_sent_again(engineer, file):
    address, _ = file
    etag = engineer.get(address)["ETag"]
    assert engineer.get(address, HTTP_IF_NONE_MATCH=f'"x", {etag}').status_code == 304
    assert engineer.get(address, HTTP_IF_NONE_MATCH='"x"').status_code == 200


@downloads
def test_head_tells_the_size_and_sends_nothing(engineer, file):
    address, data = file
    response = engineer.head(address, HTTP_RANGE="bytes=0-9")
    assert (response.status_code, response["Content-Length"], body(response)) == (206, "10", b"")
    assert engineer.head(address)["Content-Length"] == str(len(data))


@downloads
def test_a_client_that_accepts_only_bytes_gets_them(engineer, file):
    address, data = file
    assert body(engineer.get(address, HTTP_ACCEPT="application/octet-stream")) == data


@downloads
def test_a_file_that_is_not_there_is_404_and_one_that_the_storage_lost_503(engineer, project, file):
    export = Export.objects.get()
    for name in ("other.jsonl", "..", "%2e%2e", "export.keys", "train.jsonl%00"):
        assert engineer.get(one(export.pk, f"files/{name}/")).status_code == 404
    waiting = snapshots.prepare(what="comparisons", project=project, format="ranked", filters=filters())
    response = engineer.get(one(waiting.pk, "files/train.jsonl/"))
    assert response.status_code == 404
    assert "is waiting" in response.json()["detail"]
    name = next(iter(export.manifest["files"]))
    default_storage.delete(f"{export.location}/{name}")
    response = engineer.get(one(export.pk, f"files/{name}/"))
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")


class RemoteFile:
    """What the storage in S3 opens: a file that would be read into memory, and the object behind it."""

    def __init__(self, data: bytes):
        self.data, self.obj = data, self

    def get(self, Range: str):  # noqa: N803 (boto3's name)
        begin, end = Range.removeprefix("bytes=").split("-")
        self.asked = self.data[int(begin) : int(end) + 1]
        return {"Body": self}

    def iter_chunks(self, size: int):
        yield self.asked

    def close(self) -> None:
        pass


@downloads
def test_a_file_in_s3_is_passed_on_in_ranges(engineer, project, file, monkeypatch):
    address, data = file
    monkeypatch.setattr(stored, "opened", lambda export, name: RemoteFile(data))
    assert body(engineer.get(address)) == data
    assert body(engineer.get(address, HTTP_RANGE="bytes=2-5")) == data[2:6]


# Who may ----------------------------------------------------------------------------------------------


def addresses(export) -> list[tuple[str, str]]:
    return [
        ("get", LIST),
        ("post", LIST),
        ("get", one(export.pk)),
        ("post", one(export.pk, "stop/")),
        ("post", one(export.pk, "go-on/")),
        ("get", one(export.pk, "files/README.md/")),
    ]


@pytest.mark.parametrize("role", ["trainer", "reviewer"])
def test_others_of_the_project_get_403(api, project, role):
    export = done(project)
    client = api(factory.person(project, role=role))
    for method, address in addresses(export):
        response = getattr(client, method)(address, RANKED if method == "post" else None)
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")


def test_strangers_get_404(api, project):
    export = done(project)
    client = api(factory.person(factory.project(), role="admin"))
    for method, address in addresses(export):
        response = getattr(client, method)(address, RANKED if method == "post" else None)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_nobody_gets_401(client, project):
    export = done(project)
    for method, address in addresses(export):
        assert getattr(client, method)(address).status_code == 401


def test_names_addresses_and_secrets_are_not_told(engineer, project):
    export = done(project, created_by=factory.person(project, role="engineer", email="asker@example.org"))
    text = engineer.get(one(export.pk)).content.decode() + engineer.get(LIST).content.decode()
    for word in ("@example.org", project.secret):
        assert word not in text
