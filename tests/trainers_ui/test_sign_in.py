"""Signing in by link and by password, and the pages about one's account."""

import re

import pytest
from django.contrib.auth import SESSION_KEY
from django.core import mail

from annotate import people
from tests import factory

PASSWORD = "a long word and another"


@pytest.fixture
def link(trainer) -> str:
    return people.sign_in_link(trainer).partition("8000")[2]


def signed_in(client) -> str | None:
    return client.session.get(SESSION_KEY)


def test_opening_a_link_signs_nobody_in(browser, html, trainer, link):
    client = browser()

    page = html(client.get(link))

    assert trainer.email in page
    assert "autofocus>Sign in</button>" in page
    assert signed_in(client) is None


def test_its_button_does(browser, trainer, link):
    client = browser()
    client.get(link)

    response = client.post(link)

    assert response.headers["Location"] == "/"
    assert signed_in(client) == str(trainer.pk)


def test_looking_does_not_use_a_link_up(browser, settings, trainer):
    settings.SESAME_ONE_TIME = True
    link = people.sign_in_link(trainer).partition("8000")[2]
    browser().get(link)
    browser().get(link)
    client = browser()

    client.post(link)

    assert signed_in(client) == str(trainer.pk)


def test_signing_in_does(browser, html, settings, trainer):
    settings.SESAME_ONE_TIME = True
    link = people.sign_in_link(trainer).partition("8000")[2]
    browser().post(link)
    client = browser()

    response = client.post(link)

    assert response.status_code == 410
    assert "does not work any more" in html(response)
    assert signed_in(client) is None


@pytest.mark.parametrize(
    "link", ["/sign-in/", "/sign-in/?sesame=", "/sign-in/?sesame=nonsense", "/sign-in/?sesame=%00"]
)
def test_a_broken_link(browser, html, db, link):
    for response in (browser().get(link), browser().post(link)):
        assert response.status_code == 410
        assert "Sign in with a password" in html(response)


def test_a_link_for_somebody_else(browser, html, project, link):
    other = factory.trainer(project)

    assert f"You are signed in as {other} now" in html(browser(other).get(link))


def test_a_link_of_a_switched_off_account(browser, trainer, link):
    trainer.is_active = False
    trainer.save()

    assert browser().post(link).status_code == 410


def test_the_link_is_kept_in_no_cache(browser, link):
    assert "no-store" in browser().get(link).headers["Cache-Control"]


def test_by_password(browser, trainer):
    trainer.set_password(PASSWORD)
    trainer.save()
    client = browser()

    response = client.post("/accounts/login/", {"login": trainer.email.upper(), "password": PASSWORD})

    assert response.headers["Location"] == "/"
    assert signed_in(client) == str(trainer.pk)


def test_a_wrong_password(browser, html, trainer):
    response = browser().post("/accounts/login/", {"login": trainer.email, "password": "wrong"})

    page = html(response)
    assert 'class="notice" role="alert"' in page
    assert "Sign in · Bothsides" in page


def test_after_signing_in_one_is_where_one_wanted_to_be(browser, trainer, chat):
    trainer.set_password(PASSWORD)
    trainer.save()
    client = browser()
    wanted = f"/work/{chat.pk}/"

    page = client.get(client.get(wanted).headers["Location"])

    assert f'name="next" value="{wanted}"' in page.content.decode()


def test_too_many_tries(browser, html, settings, db):
    settings.ACCOUNT_RATE_LIMITS = {"login": "2/m/ip"}
    client = browser()
    for _ in range(3):
        response = client.post("/accounts/login/", {"login": "a@example.org", "password": "b"})

    assert response.status_code == 429
    assert "Too many tries" in html(response)


def test_nobody_makes_an_account(browser, html, db):
    assert "Accounts are by invitation" in html(browser().get("/accounts/signup/"))


def test_the_account_page(browser, html, project, trainer):
    page = html(browser(trainer).get("/account/"))

    assert trainer.email in page
    assert "trainer" in page
    assert "Bread" in page
    assert "Set one" in page


def test_setting_and_changing_a_password(browser, html, trainer):
    client = browser(trainer)
    assert "Set a password" in html(client.get("/accounts/password/set/"))

    client.post("/accounts/password/set/", {"password1": PASSWORD, "password2": PASSWORD})
    assert "Change it" in html(client.get("/account/"))
    fields = {"oldpassword": PASSWORD, "password1": PASSWORD + "!", "password2": PASSWORD + "!"}
    assert "Change your password" in html(client.get("/accounts/password/change/"))
    client.post("/accounts/password/change/", fields)

    trainer.refresh_from_db()
    assert trainer.check_password(PASSWORD + "!")
    assert signed_in(client) == str(trainer.pk)


def test_a_password_that_is_too_weak_is_said_where_it_is_typed(browser, html, trainer):
    page = html(browser(trainer).post("/accounts/password/set/", {"password1": "1234", "password2": "1234"}))

    assert '<p class="error" role="alert">' in page


def test_forgotten(browser, html, trainer):
    trainer.set_password(PASSWORD)
    trainer.save()
    client = browser()

    response = client.post("/accounts/password/reset/", {"email": trainer.email}, follow=True)
    assert "Look into your mail" in html(response)
    (link,) = re.findall(r"http://\S+", mail.outbox[0].body)
    path = "/" + link.split("/", 3)[3]
    response = client.get(path, follow=True)
    assert "Set a new password" in html(response)
    action = response.redirect_chain[-1][0]
    done = client.post(action, {"password1": PASSWORD + "?", "password2": PASSWORD + "?"}, follow=True)

    trainer.refresh_from_db()
    assert "Your new password is set" in html(done)
    assert trainer.check_password(PASSWORD + "?")
    assert "does not work any more" in html(browser().get(path, follow=True))


def test_signing_out(browser, html, trainer):
    client = browser(trainer)
    assert "Sign out?" in html(client.get("/accounts/logout/"))
    assert signed_in(client)

    client.post("/accounts/logout/")

    assert signed_in(client) is None


def test_account_signed_out(browser, db):
    assert browser().get("/account/").headers["Location"] == "/accounts/login/?next=/account/"


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["email/", "confirm-email/", "confirm-email/abc/", "login/code/confirm/"])
def test_nobody_changes_their_address_by_themselves(client, page):
    """An invitation finds people by their address, so that whoever took another's would get their role."""
    user = factory.trainer(factory.project())
    client.force_login(user)
    assert client.get(f"/accounts/{page}").status_code == 404
    answer = client.post(f"/accounts/{page}", {"email": "boss@example.org", "action_add": "", "action_primary": ""})
    assert answer.status_code == 404
    before = user.email
    user.refresh_from_db()
    assert user.email == before
