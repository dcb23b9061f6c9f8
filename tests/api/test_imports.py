"""`/api/v1/projects/{slug}/imports/` and `/api/v1/imports/{id}/` with what can be done to one."""

import errno
import json
from io import BytesIO

import pytest
from django.core.files import locks
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile, UploadedFile
from django.core.management import call_command
from django.utils import timezone

from annotate.api.uploads import ToDisk
from annotate.models import Conversation, Import
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("folders", "rung")]

LIST = "/api/v1/projects/field/imports/"


@pytest.fixture
def project():
    return factory.project(slug="field")


@pytest.fixture
def engineer(api, project):
    """The client of an engineer of the project."""
    return api(factory.person(project, role="engineer"))


def one(pk: int, more: str = "") -> str:
    return f"/api/v1/imports/{pk}/{more}"


def lines(count: int = 1) -> bytes:
    rows = (
        {"messages": [{"role": "user", "content": f"Question {number}"}, {"role": "assistant", "content": "Answer."}]}
        for number in range(count)
    )
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def upload(data: bytes | None = None, name: str = "set.jsonl") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, lines() if data is None else data)


def post(client, **fields):
    return client.post(LIST, fields, format="multipart")


def files_of(folder) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("role", ["engineer", "admin"])
def test_a_file_is_kept_and_a_worker_is_rung_for(api, project, role, rung):
    user = factory.person(project, role=role)
    options = {"format": "messages", "system": "none", "broken": "refuse", "on_error": "skip", "source": "mine"}
    response = post(api(user), file=upload(), **options)
    assert response.status_code == 202
    job = Import.objects.get()
    assert (job.state, job.background, job.created_by, job.source) == ("waiting", True, user, "mine")
    assert rung == [("import", job.pk)]
    with default_storage.open(job.file) as kept:
        assert kept.read() == lines()
    body = response.json()
    assert (body["id"], body["project"], body["state"], body["format"]) == (job.pk, "field", "waiting", "messages")
    assert body["options"] == {"system": "none", "broken": "refuse", "on_error": "skip", "few_shot": "apart"}
    assert body["report"] == {}


def test_what_a_worker_brings_in_is_told_in_the_report(engineer, folders):
    bad = b"no json\n"
    number = post(engineer, file=upload(lines(3) + bad), on_error="skip").json()["id"]
    call_command("import_conversations", go_on=number)
    body = engineer.get(one(number)).json()
    assert (body["state"], body["format"], body["source"], body["share_done"]) == ("done", "messages", "set.jsonl", 1.0)
    assert (body["report"]["conversations"], body["report"]["refused"]) == (3, 1)
    assert body["report"]["refused_lines"][0][0] == 4
    assert Conversation.objects.filter(kind="imported").count() == 3
    assert files_of(folders) == []


def test_a_large_file_goes_to_disk_as_it_comes_and_nothing_of_it_is_left_beside_the_storage(engineer, folders):
    data = lines(50_000)
    assert len(data) > 4 * 2**20
    job = Import.objects.get(pk=post(engineer, file=upload(data)).json()["id"])
    assert default_storage.size(job.file) == len(data)
    assert files_of(folders / "tmp") == []


def test_no_part_of_an_upload_is_kept_in_memory(rf):
    request = rf.post("/", {"file": upload(lines(50_000))})
    handler = ToDisk(request)
    request.upload_handlers = [handler]
    kept = request.FILES["file"]
    assert kept.file is handler.file.file
    assert kept.fileno() > 0
    assert kept.size == len(kept.read())


def test_a_file_that_is_too_large_is_413_and_not_read(engineer, settings, folders):
    settings.UPLOAD_MEGABYTES = 1
    response = post(engineer, file=upload(lines(20_000)))
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert not Import.objects.exists()
    assert files_of(folders) == []


def test_a_full_disk_is_503_and_nothing_is_left(engineer, folders, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    upload = SimpleUploadedFile("chats.jsonl", lines(3))
    said = {"code": "unavailable", "detail": "The file cannot be kept: No space left on device. Nothing was imported."}
    files = []
    with monkeypatch.context() as patch:
        patch.setattr(UploadedFile, "write", lambda self, data: files.append(self.file) or full(), raising=False)
        refused = engineer.post(LIST, {"file": upload}, format="multipart")
    assert (refused.status_code, refused.json()) == (503, said)
    assert [file.closed for file in files] == [True]
    upload.seek(0)
    with monkeypatch.context() as patch:
        # What there was room for lies there already.
        patch.setattr(locks, "unlock", full)
        refused = engineer.post(LIST, {"file": upload}, format="multipart")
    assert (refused.status_code, refused.json()) == (503, said)
    assert not [path for path in folders.rglob("*") if path.is_file()]
    assert not Import.objects.exists()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"format": "csv"}, "There is no format csv"),
        ({"on_error": "ignore"}, "on_error is stop or skip"),
        ({"few_shot": "half"}, "few_shot is apart or whole"),
        ({"broken": "maybe"}, "broken is mend or refuse"),
        ({"source": "x" * 300}, "The source needs a name"),
    ],
)
def test_a_wrong_option_is_422_and_nothing_is_kept(engineer, folders, fields, word):
    response = post(engineer, file=upload(), **fields)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert word in response.json()["detail"]
    assert not Import.objects.exists()
    assert files_of(folders) == []


def test_a_mistyped_option_is_422_and_nothing_is_kept(engineer, folders):
    response = post(engineer, file=upload(), **{"on-error": "skip"})
    assert response.status_code == 422
    assert "There is no field on-error" in response.json()["fields"]["on-error"][0]
    assert not Import.objects.exists()
    assert files_of(folders) == []


def test_without_a_file_it_is_422(engineer):
    for fields in ({}, {"file": "text"}, {"file": upload(b"")}):
        response = post(engineer, **fields)
        assert response.status_code == 422
        assert "file" in response.json()["fields"]


def test_json_is_415_and_what_is_no_form_400(engineer):
    assert engineer.post(LIST, {"file": "x"}, format="json").status_code == 415
    broken = engineer.generic("POST", LIST, b"--x\r\nnothing", content_type="multipart/form-data; boundary=x")
    assert broken.status_code in (400, 422)
    without = engineer.generic("POST", LIST, b"nothing", content_type="multipart/form-data")
    assert (without.status_code, without.json()["code"]) == (400, "parse_error")


def test_a_hostile_name_stays_in_its_folder(engineer, folders):
    file = BytesIO(lines())
    file.name = "../../../etc/<b>pass\x00wd.jsonl.gz"
    job = Import.objects.get(pk=post(engineer, file=file).json()["id"])
    assert job.file.startswith("uploads/")
    assert ".." not in job.file
    assert job.file.endswith(".jsonl.gz")


def test_a_signed_in_browser_needs_its_csrf_token(project, settings):
    from rest_framework.test import APIClient

    client = APIClient(enforce_csrf_checks=True)
    client.force_login(factory.person(project, role="engineer"), backend="sesame.backends.ModelBackend")
    assert post(client, file=upload()).status_code == 403
    token = "a" * 32
    client.cookies["csrftoken"] = token
    sent = client.post(LIST, {"file": upload(lines(50_000))}, format="multipart", HTTP_X_CSRFTOKEN=token)
    assert sent.status_code == 202


def test_pages_hold_everything_once_in_order(engineer, project, django_assert_num_queries):
    made = [Import.objects.create(project=project, source="set", format="hh") for _ in range(5)]
    Import.objects.create(project=factory.project(), source="set", format="hh")
    found, address = [], f"{LIST}?limit=2"
    while address:
        body = engineer.get(address).json()
        found += [row["id"] for row in body["results"]]
        address = body["next"]
    assert found == [job.pk for job in made]
    with django_assert_num_queries(4):
        engineer.get(LIST)
    assert engineer.get(f"{LIST}?limit=0").status_code == 422


def test_one_is_stopped_and_begun_again_as_long_as_its_file_is_there(engineer, rung):
    number = post(engineer, file=upload()).json()["id"]
    assert engineer.post(one(number, "stop/")).json()["state"] == "stopped"
    assert engineer.post(one(number, "stop/")).status_code == 409
    rung.clear()
    assert engineer.post(one(number, "go-on/")).status_code == 202
    assert rung == [("import", number)]
    assert engineer.post(one(number, "go-on/")).status_code == 409
    Import.objects.filter(pk=number).update(state="failed", ended_at=timezone.now(), file="")
    response = engineer.post(one(number, "go-on/"))
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert "bring it in again" in response.json()["detail"]


def addresses(job) -> list[tuple[str, str]]:
    return [
        ("get", LIST),
        ("post", LIST),
        ("get", one(job.pk)),
        ("post", one(job.pk, "stop/")),
        ("post", one(job.pk, "go-on/")),
    ]


@pytest.mark.parametrize(
    ("who", "status", "code"),
    [("trainer", 403, "forbidden"), ("reviewer", 403, "forbidden"), ("stranger", 404, "not_found")],
)
def test_others_are_kept_out_and_what_they_send_is_not(api, project, folders, who, status, code):
    job = Import.objects.create(project=project, source="set", format="hh")
    person = factory.person(role="admin") if who == "stranger" else factory.person(project, role=who)
    client = api(person)
    for method, address in addresses(job):
        response = (
            post(client, file=upload()) if (method, address) == ("post", LIST) else getattr(client, method)(address)
        )
        assert (response.status_code, response.json()["code"]) == (status, code)
    assert files_of(folders) == []


def test_nobody_gets_401(client, project):
    job = Import.objects.create(project=project, source="set", format="hh")
    for method, address in addresses(job):
        assert getattr(client, method)(address).status_code == 401
