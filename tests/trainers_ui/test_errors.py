"""Pages for what went wrong, in the hand of the others."""

from pathlib import Path

import pytest
from django.conf import settings as configured
from django.template.loader import get_template
from django.test import Client
from django.urls import reverse

from annotate.errors import Unavailable
from tests.trainers_ui.conftest import HTMX, JSON
from trainers_ui.views import home


def test_an_address_that_is_nothing(browser, html, db):
    response = browser().get("/nothing/")

    assert response.status_code == 404
    assert "There is nothing here" in html(response)


@pytest.mark.parametrize("name", ["400", "403", "404", "429", "500", "403_csrf"])
def test_every_page_is_in_the_same_hand(name):
    page = get_template(f"{name}.html").render({})

    assert "trainers_ui/look.css" in page
    assert 'rel="icon"' in page
    assert 'class="card said"' in page
    assert 'href="/"' in page


def test_500_needs_neither_database_nor_collected_files():
    source = Path(get_template("500.html").origin.name).read_text()

    assert "{%" not in source
    assert "{{" not in source
    assert f'href="/{configured.STATIC_URL.strip("/")}/trainers_ui/look.css"' in source


def test_a_fault_of_ours(browser, html, trainer, monkeypatch):
    def broken(user):
        raise RuntimeError("secret")

    monkeypatch.setattr(home.lists, "held", broken)
    client = browser(trainer)
    client.raise_request_exception = False

    response = client.get("/")

    assert response.status_code == 500
    assert "Something broke on our side" in html(response)
    assert "secret" not in html(response)


@pytest.fixture
def away(monkeypatch):
    """A part that pages need does not answer."""

    def unavailable(user):
        raise Unavailable("The model is not available now.")

    monkeypatch.setattr(home.lists, "held", unavailable)


def test_not_available(browser, html, trainer, away):
    response = browser(trainer).get("/")

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert "The model is not available now." in html(response)
    assert "Not available now" in html(response)


def test_scripts_get_the_same_as_json(browser, trainer, away):
    response = browser(trainer).get("/", **JSON)

    assert response.status_code == 503
    assert response.json() == {"error": "The model is not available now.", "code": "unavailable"}


def test_htmx_gets_the_same_as_a_notice(browser, html, trainer, away):
    response = browser(trainer).get("/", **HTMX)

    assert html(response) == '<p class="notice" role="alert">The model is not available now.</p>'


def test_a_page_that_is_too_old(html, trainer, chat):
    client = Client(enforce_csrf_checks=True)
    client.force_login(trainer)
    url = reverse("say", args=[chat.pk])

    assert "Please send that again" in html(client.post(url, {"text": "Hello"}))
    in_place = html(client.post(url, {"text": "Hello"}, **HTMX))
    assert in_place.startswith('<p class="notice" role="alert">This page is too old')
    assert "<html" not in in_place


def test_what_was_typed_is_escaped(browser, html, trainer, ranking):
    response = browser(trainer).post(reverse("submit", args=[ranking.pk]), {"order": "</textarea><script>x"})

    assert "&lt;/textarea&gt;&lt;script&gt;x</textarea>" in html(response)


def test_pages_are_kept_in_no_cache(browser, trainer):
    headers = browser(trainer).get("/").headers

    assert "no-store" in headers["Cache-Control"]
    assert {"HX-Request", "Accept", "Cookie"} <= set(headers["Vary"].split(", "))
