"""People: invited by a link, with a role, to a project."""

from django.conf import settings
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.urls import reverse
from sesame.utils import get_query_string

from annotate.errors import Invalid
from annotate.models import Membership, Project, Role, User


@transaction.atomic
def invite(*, email: str, role: str, project: Project | None = None, name: str = "") -> User:
    """The user with this address, made where there is none, with the role and as a member of the project.

    Raises Invalid for a bad address, an address or a name that is too long, or an unknown role.
    """
    email = email.strip().lower()
    for what, text, most in (
        ("An e-mail address", email, User._meta.get_field("email").max_length),
        ("A name", name, User._meta.get_field("name").max_length),
    ):
        if len(text) > most:
            raise Invalid(f"{what} may have {most} characters; this one has {len(text):,}.")
    try:
        f"{email}{name}".encode()
    except UnicodeEncodeError:
        raise Invalid("The address or the name is not UTF-8.") from None
    try:
        validate_email(email)
    except ValidationError:
        raise Invalid(f"{email or 'An empty text'} is no e-mail address.") from None
    if role not in Role.values:
        raise Invalid(f"There is no role {role}. Roles: {', '.join(Role.values)}.")
    user = User.objects.filter(email=email).first() or User.objects.create_user(email, name=name)
    give_role(user=user, role=role)
    if project is not None:
        Membership.objects.get_or_create(project=project, user=user)
    return user


@transaction.atomic
def give_role(*, user: User, role: str) -> None:
    """Put a person into the group of a role. Admins may enter the admin site and change the record there."""
    group, made = Group.objects.get_or_create(name=Role(role).value)
    if role == Role.ADMIN:
        if made or not group.permissions.exists():
            group.permissions.set(Permission.objects.filter(content_type__app_label__in=["annotate", "authtoken"]))
        if not user.is_staff:
            user.is_staff = True
            user.save(update_fields=["is_staff"])
    user.groups.add(group)


@transaction.atomic
def take_role(*, user: User, role: str) -> None:
    """Take a person out of the group of a role. Who is no admin may not enter the admin site any more."""
    user.groups.remove(Group.objects.get(name=Role(role).value))
    if role == Role.ADMIN and user.is_staff and not user.is_superuser:
        user.is_staff = False
        user.save(update_fields=["is_staff"])


def sign_in_link(user: User) -> str:
    """A link that opens a page whose button signs this person in, for as long as SESAME_MAX_AGE says."""
    return f"{settings.SITE_URL}{reverse('sign_in_link')}{get_query_string(user)}"
