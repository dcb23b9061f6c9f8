"""People in the admin site: made, given roles and projects, let in by a link."""

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from annotate import access
from annotate.models import User
from tests import factory
from tests.admin_pages import filled

pytestmark = pytest.mark.django_db

LIST = "/admin/annotate/user/"


def page_of(user: User) -> str:
    return reverse("admin:annotate_user_change", args=[user.pk])


def link_of(user: User) -> str:
    return reverse("admin:annotate_user_link", args=[user.pk])


def saved(client, user: User, **changes):
    return client.post(page_of(user), filled(client.get(page_of(user)), **changes), follow=True)


def roles_of(user: User) -> set[str]:
    return access.roles_of(User.objects.get(pk=user.pk))


def test_somebody_new_has_roles_and_projects_and_no_password(admin_client) -> None:
    project = factory.project()
    address = reverse("admin:annotate_user_add")
    sent = filled(
        admin_client.get(address),
        email="Ada@Example.org",
        name="Ada",
        roles=["trainer", "reviewer"],
        **{"memberships-TOTAL_FORMS": 1, "memberships-0-project": project.pk},
    )
    page = admin_client.post(address, sent, follow=True)
    assert page.status_code == 200
    user = User.objects.get(email="ada@example.org")
    assert (user.name, roles_of(user), user.is_staff) == ("Ada", {"trainer", "reviewer"}, False)
    assert not user.has_usable_password()
    assert access.project_for(user, project.slug) == project


def test_an_address_belongs_to_one_person(admin_client) -> None:
    factory.person(email="ada@example.org")
    address = reverse("admin:annotate_user_add")
    page = admin_client.post(address, filled(admin_client.get(address), email="ADA@example.org"))
    assert page.context["errors"]
    assert User.objects.filter(email__iexact="ada@example.org").count() == 1


def test_the_admin_role_opens_and_closes_the_admin_site(admin_client) -> None:
    user = factory.trainer()
    saved(admin_client, user, roles=["trainer", "admin"])
    user.refresh_from_db()
    assert (roles_of(user), user.is_staff) == ({"trainer", "admin"}, True)
    saved(admin_client, user, roles=["engineer"])
    user.refresh_from_db()
    assert (roles_of(user), user.is_staff, user.has_perm("annotate.change_project")) == ({"engineer"}, False, False)


def test_who_leaves_is_made_inactive(admin_client) -> None:
    user = factory.trainer()
    saved(admin_client, user, is_active=None)
    user.refresh_from_db()
    assert user.is_active is False
    assert roles_of(user) == {"trainer"}


def test_a_password_may_be_set(admin_client) -> None:
    user = factory.trainer()
    address = f"{LIST}{user.pk}/password/"
    assert admin_client.get(address).status_code == 200
    words = {"password1": "a long enough one", "password2": "a long enough one", "usable_password": "true"}
    admin_client.post(address, words | {"set-password": "1"})
    user.refresh_from_db()
    assert user.check_password("a long enough one")


def test_the_button_shows_a_link_that_signs_in(admin_client, client, settings) -> None:
    user = factory.trainer()
    page = admin_client.post(link_of(user))
    ((shown, link),) = page.context["links"]
    assert shown == user
    assert link in page.content.decode().replace("&amp;", "&")
    assert "no-store" in page["Cache-Control"]
    assert LogEntry.objects.get().change_message == "Made a sign-in link."
    client.logout()
    client.post(link.removeprefix(settings.SITE_URL))
    assert client.session["_auth_user_id"] == str(user.pk)


def test_the_action_shows_one_link_for_each(admin_client) -> None:
    users = [factory.trainer() for _ in range(3)]
    users[0].is_active = False
    users[0].save()
    chosen = {"action": "make_links", "_selected_action": [user.pk for user in users]}
    page = admin_client.post(LIST, chosen)
    assert [user for user, _ in page.context["links"]] == users[1:]
    nobody = admin_client.post(LIST, chosen | {"_selected_action": [users[0].pk]}, follow=True)
    assert [str(message) for message in nobody.context["messages"]] == ["Nobody active was chosen."]


def test_looking_at_the_address_makes_no_link(admin_client) -> None:
    assert admin_client.get(link_of(factory.trainer())).status_code == 403
    assert not LogEntry.objects.exists()


def test_who_has_every_permission_is_out_of_reach_for_admins(admin_client) -> None:
    root = User.objects.create_superuser("root@example.org")
    before = User.objects.values().get(pk=root.pk)
    assert admin_client.get(page_of(root)).status_code == 200
    assert admin_client.post(page_of(root), {"email": "mine@example.org"}).status_code == 403
    assert admin_client.get(f"{LIST}{root.pk}/password/").status_code == 403
    assert admin_client.post(link_of(root)).status_code == 403
    chosen = {"action": "make_links", "_selected_action": [root.pk]}
    assert admin_client.post(LIST, chosen).status_code == 403
    assert User.objects.values().get(pk=root.pk) == before


def test_an_admin_cannot_give_every_permission(admin_client) -> None:
    user = factory.trainer()
    saved(admin_client, user, name="Ada", is_superuser="on", is_staff="on")
    user.refresh_from_db()
    assert (user.name, user.is_superuser, user.is_staff) == ("Ada", False, False)


def test_a_superuser_can(client) -> None:
    client.force_login(User.objects.create_superuser("root@example.org"), backend="sesame.backends.ModelBackend")
    user = factory.trainer()
    saved(client, user, is_superuser="on")
    user.refresh_from_db()
    assert user.is_superuser


def test_keys_of_superusers_are_hidden_from_admins(admin_client) -> None:
    from rest_framework.authtoken.models import Token

    root = User.objects.create_superuser("root@example.org")
    key = Token.objects.create(user=root).key
    address = f"/admin/authtoken/tokenproxy/{root.pk}/change/"
    assert key not in admin_client.get("/admin/authtoken/tokenproxy/").content.decode()
    assert key not in admin_client.get(address, follow=True).content.decode()


def test_a_token_is_made_for_a_person_and_shown_on_its_page_only(admin_client, client) -> None:
    from rest_framework.authtoken.models import Token

    user = factory.trainer()
    admin_client.post("/admin/authtoken/tokenproxy/add/", {"user": user.pk})
    key = Token.objects.get(user=user).key
    for address in ("/admin/", "/admin/authtoken/tokenproxy/", "/admin/authtoken/tokenproxy/add/"):
        assert key not in admin_client.get(address).content.decode()
    assert [str(entry.object_repr) for entry in LogEntry.objects.all()] == [user.email]
    assert key in admin_client.get(f"/admin/authtoken/tokenproxy/{user.pk}/change/").content.decode()
    client.logout()
    assert client.get("/api/v1/projects/", headers={"authorization": f"Token {key}"}).status_code == 200


def test_a_token_is_taken_away(admin_client, client) -> None:
    from rest_framework.authtoken.models import Token

    user = factory.trainer()
    key = Token.objects.create(user=user).key
    admin_client.post(f"/admin/authtoken/tokenproxy/{user.pk}/delete/", {"post": "yes"})
    assert not Token.objects.exists()
    assert key not in str(list(LogEntry.objects.values()))


def test_there_is_one_sign_in_page(client) -> None:
    assert client.get("/admin/login/").url.startswith("/accounts/login/")
