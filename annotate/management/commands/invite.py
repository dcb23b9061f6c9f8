"""`manage.py invite`: a person, their role and their membership, and the link that lets them in."""

from django.core.management.base import CommandParser

from annotate import people, projects
from annotate.management.refusal import RefusingCommand
from annotate.models import Role


class Command(RefusingCommand):
    """Prints the sign-in link alone on one line, so that a script can send it."""

    help = (
        "Invites a person: makes their account where there is none, gives them a role and a place in the project, "
        "and prints a link that signs them in. Run it again for a new link."
    )
    example = "manage.py invite ada@example.org --role trainer --project demo --name 'Ada Lovelace'"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email", help="The e-mail address, which is the login name.")
        parser.add_argument("--role", required=True, help=f"One of {', '.join(Role.values)}.")
        parser.add_argument("--project", help="The slug of the project to work on; without it they see none yet.")
        parser.add_argument("--name", default="", help="As shown to reviewers and admins; kept for a new account only.")

    def handle(self, *args, email: str, role: str, project: str | None, name: str, **options) -> None:
        of = projects.project_named(project) if project else None
        self.stdout.write(people.sign_in_link(people.invite(email=email, role=role, project=of, name=name)))
