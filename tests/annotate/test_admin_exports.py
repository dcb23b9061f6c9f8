"""Exports and imports in the admin site: asked for, watched, stopped, gone on with, downloaded; never changed."""

import pytest
from django.core.files.storage import default_storage
from django.urls import reverse
from django.utils import timezone

from annotate import derive
from annotate.admin.export_form import OF, OF_ALL
from annotate.datasets import filters, snapshots
from annotate.models import Export, Import, Role
from tests import factory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("folders", "rung")]

ADD = "/admin/annotate/export/add/"
LIST = "/admin/annotate/export/"


@pytest.fixture
def project():
    return factory.project(slug="field", overlap=1)


def form(project, what: str = "comparisons:ranked", **more) -> dict:
    """What the page sends where nothing but the first fields was filled in."""
    return {"project": project.pk, "what": what, "files_kind": "jsonl", "shard_rows": "100000"} | more


def page_of(job, more: str = "change/") -> str:
    return f"/admin/annotate/{job._meta.model_name}/{job.pk}/{more}"


def asked(project, **fields) -> Export:
    return snapshots.prepare(
        what="comparisons", project=project, format="ranked", filters=filters.parse("comparisons", {}), **fields
    )


def done(project, **fields) -> Export:
    factory.ranking(factory.comparison_about(project, "Hello"))
    return snapshots.go_on(asked(project, **fields))


def said(page) -> list[str]:
    return [str(message) for message in page.context["messages"]]


def test_the_form_has_every_filter_and_every_format(admin_client, project):
    page = admin_client.get(ADD)
    fields = page.context["adminform"].form.fields
    assert set(OF) == set(filters.OF)
    for what, made in filters.OF.items():
        assert {*OF_ALL, *OF[what]} == {one.name for one in made.__dataclass_fields__.values()}
    choices = {value for _, group in fields["what"].choices for value, _ in group}
    assert choices == {f"{what}:{name}" for what, one in snapshots.WHATS.items() for name in one.formats}
    assert all(field.help_text for name, field in fields.items() if name != "project")


def test_one_is_asked_for_with_its_defaults(admin_client, project, rung):
    page = admin_client.post(ADD, form(project), follow=True)
    export = Export.objects.get()
    assert rung == [("export", export.pk)]
    assert (export.state, export.background, export.what, export.format) == ("waiting", True, "comparisons", "ranked")
    assert export.created_by.email.startswith("admin")
    assert export.filters == filters.parse("comparisons", {}).as_json()
    assert page.redirect_chain == [(page_of(export), 302)]
    assert said(page) == ["The export waits for a worker. This page shows how far it is."]


def test_every_filter_is_taken(admin_client, project):
    code = derive.pseudonym(project.secret, 7)
    filled = form(
        project,
        "comparisons:preference",
        files_kind="parquet",
        shard_rows="500",
        iteration="1",
        split="train",
        since="2026-01-31",
        include=["open", "surplus"],
        without=f"{code} {'0' * 16}",
        personal="redact",
        rankings="consensus",
        pairs="adjacent",
        margin="rating",
        origins=["trainer"],
    )
    page = admin_client.post(ADD, filled)
    assert page.status_code == 302, page.context["adminform"].form.errors
    export = Export.objects.get()
    given = {
        "iteration": 1,
        "split": "train",
        "since": "2026-01-31",
        "include": ["open", "surplus"],
        "without": [code, "0" * 16],
        "personal": "redact",
        "rankings": "consensus",
        "pairs": "adjacent",
        "margin": "rating",
        "origins": ["trainer"],
    }
    assert export.filters == filters.parse("comparisons", given).as_json()
    assert (export.files["kind"], export.files["shard_rows"]) == ("parquet", 500)


def test_those_of_demonstrations_are_taken(admin_client, project):
    parent = Export.objects.create(project=project, what="demonstrations", format="messages")
    filled = form(
        project, "demonstrations:messages", sources=["written"], mix=f"export:{parent.pk}:0.5\r\n", mix_seed="7"
    )
    assert admin_client.post(ADD, filled).status_code == 302
    kept = Export.objects.latest("id").filters
    assert (kept["sources"], kept["mix"], kept["mix_seed"]) == (["written"], [f"export:{parent.pk}:0.5"], 7)


@pytest.mark.parametrize(
    ("wrong", "field", "word"),
    [
        ({"iteration": "9"}, "iteration", "no iteration 9"),
        ({"without": "me"}, "without", "is no pseudonym"),
        ({"include": ["unreviewed"]}, "include", "not for comparisons"),
        ({"kinds": ["chat"]}, "kinds", "for conversations"),
        ({"use_case": "chat"}, "use_case", "for prompts"),
        ({"what": "demonstrations:messages", "mix": "/etc/passwd:5"}, "mix", "is a file"),
        ({"what": "demonstrations:messages", "mix": "export:7"}, "mix", "names no weight"),
        (
            {"what": "demonstrations:messages", "review_states": ["approved"], "include": ["returned"]},
            "review_states",
            "leave include",
        ),
        ({"split": "dev"}, "split", "Select a valid choice"),
        ({"what": "people:ranked"}, "what", "Select a valid choice"),
        ({"shard_rows": "0"}, "shard_rows", "greater than or equal to 1"),
        ({"since": "31/1"}, "since", "Enter a valid date"),
        ({"project": ""}, "project", "required"),
    ],
)
def test_what_is_wrong_is_told_at_its_field_and_nothing_is_made(admin_client, project, rung, wrong, field, word):
    page = admin_client.post(ADD, form(project) | wrong)
    assert page.status_code == 200
    assert word in str(page.context["adminform"].form.errors[field])
    assert not Export.objects.filter(background=True).exists()
    assert rung == []


def test_the_list_shows_state_progress_counts_and_digest(admin_client, project):
    export = done(project)
    half = Export.objects.create(
        project=project,
        what="comparisons",
        format="ranked",
        state="running",
        step="Writing",
        done=430,
        total=1000,
        token="0" * 32,
        lease_until=timezone.now() + timezone.timedelta(seconds=60),
    )
    text = admin_client.get(LIST).content.decode()
    assert export.digest[:8] in text
    assert "Writing, 43\N{NO-BREAK SPACE}%" in text
    assert f'data-live="{half.pk}" data-state="running" data-goes-on' in text
    assert f'data-live="{export.pk}" data-state="done">' in text
    assert [row.pk for row in admin_client.get(LIST, {"state__exact": "running"}).context["cl"].result_list] == [
        half.pk
    ]
    assert export in admin_client.get(LIST, {"q": export.digest[:8]}).context["cl"].result_list


def test_a_done_one_shows_what_is_in_it_and_leads_to_its_files_parents_and_children(admin_client, project):
    parent = done(project)
    child = asked(project, parents=[parent])
    text = admin_client.get(page_of(parent)).content.decode()
    assert "<li><b>rankings</b> 1</li>" in text
    assert "rows: 1, rankings: 1, comparisons: 1</li>" in text
    assert page_of(child) in text
    for name in [*parent.manifest["files"], "manifest.json"]:
        assert page_of(parent, f"files/{name}/") in text
    assert page_of(parent) in admin_client.get(page_of(child)).content.decode()
    for step in ("stop", "go-on"):
        assert page_of(parent, f"{step}/") not in text


def test_nothing_of_one_can_be_changed(admin_client, project):
    export = done(project)
    page = admin_client.get(page_of(export))
    assert not page.context["has_change_permission"]
    assert 'name="_save"' not in page.content.decode()
    assert admin_client.post(page_of(export), form(project)).status_code == 403
    assert admin_client.post(page_of(export, "delete/"), {"post": "yes"}).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_a_file_is_downloaded_whole_and_in_part(admin_client, project):
    export = done(project)
    name = next(name for name in export.manifest["files"] if name.endswith(".jsonl"))
    with default_storage.open(f"{export.location}/{name}") as file:
        data = file.read()
    response = admin_client.get(page_of(export, f"files/{name}/"))
    assert b"".join(response) == data
    part = admin_client.get(page_of(export, f"files/{name}/"), HTTP_RANGE="bytes=5-")
    assert (part.status_code, b"".join(part)) == (206, data[5:])
    assert admin_client.get(page_of(export, "files/other.jsonl/")).status_code == 404
    default_storage.delete(f"{export.location}/{name}")
    assert "is not in the storage" in said(admin_client.get(page_of(export, f"files/{name}/"), follow=True))[0]


def test_one_is_stopped_and_gone_on_with_by_buttons(admin_client, project, rung):
    export = asked(project)
    rung.clear()
    assert page_of(export, "stop/") in admin_client.get(page_of(export)).content.decode()
    page = admin_client.post(page_of(export, "stop/"), follow=True)
    assert said(page) == ["It stops; what is written so far is kept."]
    export.refresh_from_db()
    assert export.state == "stopped"
    text = page.content.decode()
    assert page_of(export, "stop/") not in text
    assert page_of(export, "go-on/") in text
    page = admin_client.post(page_of(export, "go-on/"), follow=True)
    assert said(page) == ["A worker goes on with it."]
    assert rung == [("export", export.pk)]
    again = admin_client.post(page_of(export, "go-on/"), follow=True)
    assert "only what failed or was stopped" in said(again)[0]


def test_looking_at_the_address_of_a_button_does_nothing(admin_client, project):
    export = asked(project)
    for step in ("stop", "go-on"):
        assert admin_client.get(page_of(export, f"{step}/")).status_code == 403
    export.refresh_from_db()
    assert export.state == "waiting"


def test_who_may_only_look_sees_no_button_and_asks_for_nothing(client, project):
    from django.contrib.auth.models import Permission

    export = done(project)
    waiting = asked(project)
    user = factory.person(project, role=Role.REVIEWER)
    user.is_staff = True
    user.save()
    user.user_permissions.add(Permission.objects.get(codename="view_export"))
    client.force_login(user, backend="sesame.backends.ModelBackend")
    assert page_of(waiting, "stop/") not in client.get(page_of(waiting)).content.decode()
    assert client.post(page_of(waiting, "stop/")).status_code == 403
    assert client.get(ADD).status_code == 403
    assert client.post(ADD, form(project)).status_code == 403
    user.user_permissions.clear()
    client.force_login(user, backend="sesame.backends.ModelBackend")
    assert client.get(page_of(export, "files/README.md/")).status_code == 403


@pytest.mark.parametrize("role", [Role.TRAINER, Role.REVIEWER, Role.ENGINEER])
def test_others_do_not_get_at_files_and_buttons(client, project, role):
    export = done(project)
    client.force_login(factory.person(project, role=role), backend="sesame.backends.ModelBackend")
    assert client.get(page_of(export, "files/README.md/")).status_code == 302
    for step in ("stop", "go-on"):
        assert client.post(page_of(export, f"{step}/")).status_code == 302


def test_the_numbers_of_what_is_not_there_lead_back(admin_client):
    assert admin_client.get("/admin/annotate/export/99/files/README.md/").status_code == 404
    assert admin_client.post("/admin/annotate/export/99/stop/").status_code == 302


def test_an_import_shows_its_report_with_bad_lines_as_text(admin_client, project):
    job = Import.objects.create(
        project=project,
        source="set.jsonl",
        format="hh",
        state="failed",
        reason="2 bad lines",
        ended_at=timezone.now(),
        options={"on_error": "stop"},
        file="uploads/x/set.jsonl",
        report={
            "conversations": 12,
            "refused": 2_000,
            "refused_lines": [[number, "<b>no JSON</b>"] for number in range(1000)],
            "mends": {"empty turn": 3},
        },
    )
    text = admin_client.get(page_of(job)).content.decode()
    assert "line 7: &lt;b&gt;no JSON&lt;/b&gt;" in text
    assert "and 1,800 more" in text
    assert "empty turn" in text
    listed = admin_client.get(reverse("admin:annotate_import_changelist")).content.decode()
    assert "12 conversations" in listed
    assert "2,000" in listed
    page = admin_client.post(page_of(job, "go-on/"), follow=True)
    assert said(page) == ["A worker goes on with it."]
    assert page_of(job, "stop/") in page.content.decode()
