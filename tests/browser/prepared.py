"""A project of a test's own in the running site, so that no test sees what another one does or has left.

`running.manage("shell", …)` calls this in a process beside the site: in the one of the tests, Playwright's sync API
trips Django's guard against asynchronous code.
"""

from collections.abc import Sequence

from django.db import transaction

from annotate import demo, people
from annotate.models import Policy
from tests import factory

REPLY = "The lamp was lit at dusk, and the sea was calm until midnight."
ALTERNATIVES = (
    "There was once a keeper who counted the waves.\n\n- One for the ships\n- One for the gulls",
    "A storm came up. The keeper climbed **all** of the stairs, and the light did not go out.",
    "I can only tell short stories: the tower stood, the sea came and went, and the tower stood.",
)
"""Beside the reply, so that there are always four answers; what a small model writes may be the same twice."""


# Of one piece: the site's worker never sees the requests that are answered here.
@transaction.atomic
def make(
    *, number: int, role: str, chats: int = 0, chatted: Sequence[str] = (), pieces: int = 0, reviewer: bool = False
) -> None:
    """A project of the demo's policy, in which a person of this role is the only member. Prints their sign-in link.

    It has `chats` free chat slots, `pieces` free writing slots and, for each opening in `chatted`, a chat that somebody
    else has finished, whose reply waits with three alternatives to be ranked. With `reviewer` there is a second member,
    whose link comes in the second line.
    """
    project = factory.project(
        slug=f"own-{number}",
        name=f"A test's own, {number}",
        served_by=Policy.objects.get(name=demo.POLICY),
        # Replies are stopped and cut while they stream; suggestions are waited for.
        max_new_tokens=64 if pieces else 160,
    )
    person = factory.person(project, role=role, email=f"own-{number}@example.org")
    author = factory.person(email=f"author-{number}@example.org")
    for _ in range(chats):
        factory.chat_slot(project)
    for _ in range(pieces):
        factory.write_slot(project)
    for opening in chatted:
        factory.comparison_about(project, opening, author, *ALTERNATIVES, reply=REPLY)
    print(people.sign_in_link(person))
    if reviewer:
        print(people.sign_in_link(factory.person(project, role="reviewer", email=f"reviewer-{number}@example.org")))


@transaction.atomic
def ranked(*, number: int) -> None:
    """A project with two rankings that count, of which an admin of the site can make a dataset."""
    project = factory.project(
        slug=f"own-{number}",
        name=f"A test's own, {number}",
        overlap=1,
        served_by=Policy.objects.get(name=demo.POLICY),
    )
    for opening in ("Tell me of a lighthouse.", "Tell me of the sea."):
        factory.ranking(factory.comparison_about(project, opening, None, *ALTERNATIVES, reply=REPLY))
