"""The guidelines of a project."""

from django.urls import reverse

from annotate import projects
from annotate.models import Project

URL = "/projects/bread/guidelines/"


def test_it_works(browser, html, trainer):
    page = html(browser(trainer).get(URL))

    assert "Be <strong>helpful</strong>, honest and harmless." in page
    assert "version 1" in page


def test_the_newest_version(browser, html, project, trainer):
    projects.set_guidelines(project=project, text="Be *brief*.")

    page = html(browser(trainer).get(URL))

    assert "Be <em>brief</em>." in page
    assert "version 2" in page


def test_a_task_shows_those_of_its_iteration(browser, html, project, trainer, chat):
    projects.set_guidelines(project=project, text="Be *brief*.")

    page = html(browser(trainer).get(reverse("work", args=[chat.pk])))

    assert "Be <strong>helpful</strong>" in page
    assert "brief" not in page


def test_none_yet(browser, html, project, trainer):
    project.iterations.update(guidelines=None)
    project.guideline_versions.all().delete()

    assert "no guidelines yet" in html(browser(trainer).get(URL))


def test_a_stranger(browser, stranger, project):
    assert Project.objects.filter(slug="bread").exists()
    assert browser(stranger).get(URL).status_code == 404


def test_signed_out(browser, project):
    assert browser().get(URL).headers["Location"] == f"/accounts/login/?next={URL}"


def test_keys_are_a_page_too(browser, html, trainer):
    page = html(browser(trainer).get("/keys/"))

    assert "the next best answer" in page
    assert "ask for the reply again" in page
