"""`manage.py invite`: an account, a role, a membership and a link that signs in."""

import io

import pytest
from django.core.management import CommandError, call_command

from annotate import access
from annotate.models import Membership, Role, User
from tests import factory

pytestmark = pytest.mark.django_db


def invited(*arguments: str) -> str:
    """What the command prints."""
    out = io.StringIO()
    call_command("invite", *arguments, stdout=out)
    return out.getvalue()


def test_the_link_signs_a_new_person_in(client, settings) -> None:
    project = factory.project(slug="field")
    printed = invited("Ada@Example.org", "--role", "trainer", "--project", "field", "--name", "Ada Lovelace")
    user = User.objects.get(email="ada@example.org")
    assert (user.name, access.roles_of(user), user.is_staff) == ("Ada Lovelace", {Role.TRAINER}, False)
    assert access.project_for(user, "field") == project
    assert printed.count("\n") == 1
    link = printed.strip()
    assert link.startswith(f"{settings.SITE_URL}/")
    client.post(link.removeprefix(settings.SITE_URL))
    assert client.session["_auth_user_id"] == str(user.pk)


def test_again_adds_a_role_and_keeps_the_account() -> None:
    factory.project(slug="field")
    invited("ada@example.org", "--role", "trainer", "--project", "field", "--name", "Ada")
    invited("ada@example.org", "--role", "reviewer", "--project", "field", "--name", "Somebody else")
    user = User.objects.get()
    assert (user.name, access.roles_of(user)) == ("Ada", {Role.TRAINER, Role.REVIEWER})
    assert Membership.objects.count() == 1


def test_an_admin_may_enter_the_admin_site(client) -> None:
    invited("ada@example.org", "--role", "admin")
    client.force_login(User.objects.get(), backend="sesame.backends.ModelBackend")
    assert client.get("/admin/").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nobody", "--role", "trainer"], "nobody is no e-mail address."),
        (
            [f"{'a' * 60}@{'b' * 60}.{'c' * 60}.{'d' * 60}.example.org", "--role", "trainer"],
            "An e-mail address may have 254 characters; this one has 255.",
        ),
        (
            ["a@example.org", "--role", "trainer", "--name", "x" * 121],
            "A name may have 120 characters; this one has 121.",
        ),
        (["a@example.org", "--role", "trainer", "--name", "\udcff"], "NAME is not UTF-8"),
        (["a@example.org", "--role", "boss"], "There is no role boss. Roles: trainer, reviewer, admin, engineer."),
        (
            ["a@example.org", "--role", "trainer", "--project", "nowhere"],
            "There is no project nowhere. Projects: field.",
        ),
    ],
)
def test_bad_input_is_refused_and_makes_nobody(arguments: list[str], sentence: str) -> None:
    factory.project(slug="field")
    with pytest.raises(CommandError) as refused:
        invited(*arguments)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not User.objects.exists()
    assert refused.value.returncode == 2
