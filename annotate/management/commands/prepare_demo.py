"""`manage.py prepare_demo`: the demo project, and a sign-in link for each of its people."""

from annotate import demo, people
from annotate.management.refusal import RefusingCommand


class Command(RefusingCommand):
    """Makes the demo project where it is missing and prints three sign-in links, one a line."""

    help = (
        "Makes the demo project where it is missing (guidelines, forty prompts, a policy, an open iteration, "
        "chat slots) and prints sign-in links for a trainer, a reviewer and an admin."
    )
    example = "manage.py prepare_demo"

    def handle(self, *args, **options) -> None:
        for role, user in demo.prepare().people.items():
            self.stdout.write(f"{role.label + ':':<10}{people.sign_in_link(user)}")
