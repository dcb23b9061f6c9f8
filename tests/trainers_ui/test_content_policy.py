"""The strict content policy: what it says, and that no page needs more than it allows."""

import re
from pathlib import Path

import pytest
from django.urls import get_resolver, reverse

import trainers_ui
from tests import factory

FOLDER = Path(trainers_ui.__file__).parent
TEMPLATES = sorted((FOLDER / "templates").rglob("*.html"))
SCRIPTS = sorted((FOLDER / "static").rglob("*.js"))

# A script without src, a style element, a style attribute, an attribute that is a script.
INLINE = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle\s*=|\son[a-z]+\s*=|javascript:|hx-on", re.IGNORECASE)


def test_the_policy(browser, trainer):
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in browser(trainer).get("/").headers["Content-Security-Policy"].split(";")
    )

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"


@pytest.mark.parametrize(
    "name", ["<script>x</script>", '<p style="a">', "<a onclick='b'>", "<style>", "href=javascript:x"]
)
def test_the_search_finds_what_is_inline(name):
    assert INLINE.search(name)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: str(path.relative_to(FOLDER / "templates")))
def test_no_template_has_inline_code(template):
    assert INLINE.findall(template.read_text()) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_code_of_text(script):
    source = script.read_text()

    assert not re.search(
        r"\beval\(|new Function|setAttribute\(.style|\.cssText|document\.write|set(Timeout|Interval)\(['\"`]", source
    )


def test_the_pages_as_they_are_sent(browser, project, trainer, reviewer, ranking):
    chat = factory.held_chat(factory.project(), user := factory.trainer())
    factory.turn(chat)
    chat.project.memberships.create(user=user)
    pages = [
        (trainer, "/"),
        (trainer, reverse("work", args=[ranking.pk])),
        (user, reverse("work", args=[chat.pk])),
        (reviewer, reverse("review_comparison", args=[ranking.comparison_id])),
        (None, "/accounts/login/"),
    ]
    for who, url in pages:
        response = browser(who).get(url)
        assert response.status_code == 200, url
        assert INLINE.findall(response.content.decode()) == [], url


def test_every_address_is_behind_the_sign_in(browser, db):
    from trainers_ui.urls import urlpatterns

    open_to_all = {"sign_in_link", "icon"}
    client = browser()
    assert get_resolver()
    for pattern in urlpatterns:
        if pattern.name in open_to_all:
            continue
        kinds = pattern.pattern.converters
        url = reverse(pattern.name, kwargs={name: 1 if name == "pk" else "bread" for name in kinds})
        answers = {client.get(url).status_code, client.post(url).status_code}
        assert answers <= {302, 401, 405}, url
        assert answers & {302, 401}, url
