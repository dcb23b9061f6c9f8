"""The demo project: what a first look needs, made once and then left to the people who use it."""

import json
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction

from annotate import assignments, iterations, people, projects
from annotate.models import Policy, Project, Role, User

CONTENT = Path(__file__).parent
SLUG = "demo"
POLICY = "SmolLM2-135M-Instruct"
CHATS = 20
PIECES = 20
TOPIC = "Anything that somebody might ask an assistant on an ordinary day, and an answer that settles it."
PEOPLE = {
    Role.TRAINER: "trainer@demo.invalid",
    Role.REVIEWER: "reviewer@demo.invalid",
    Role.ADMIN: "admin@demo.invalid",
}


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo project, whether it was made just now, and its people by role."""

    project: Project
    made: bool
    people: dict[Role, User]


@transaction.atomic
def prepare() -> Demo:
    """The demo project with its guidelines, prompts, policy, open iteration and chat slots, and its three people.

    A project that is there already stays as it is; only people who are missing are made again.
    """
    project, made = Project.objects.get_or_create(
        slug=SLUG,
        defaults={
            "name": "Everyday help",
            "authors_rank_own": True,
            "k": 4,
            "overlap": 1,
            "max_new_tokens": 160,
            "topic": TOPIC,
        },
    )
    if made:
        _fill(project)
    demo_people = {
        role: people.invite(email=email, role=role, project=project, name=f"Demo {role.label.lower()}")
        for role, email in PEOPLE.items()
    }
    return Demo(project=project, made=made, people=demo_people)


def openings() -> list[projects.Opening]:
    """The forty opening prompts, in the order in which they are offered."""
    lines = (CONTENT / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        projects.Opening(text=row["text"], use_case=row["use_case"], source="demo", source_id=row["id"])
        for row in map(json.loads, lines)
    ]


def _fill(project: Project) -> None:
    policy, _ = Policy.objects.get_or_create(name=POLICY, defaults={"location": POLICY})
    project.policies.add(policy)
    projects.set_guidelines(project=project, text=(CONTENT / "guidelines.md").read_text(encoding="utf-8"))
    projects.add_prompts(project=project, openings=openings())
    iterations.open_next(project=project)
    assignments.open_slots(project=project, kind="chat", count=CHATS)
    assignments.open_slots(project=project, kind="write", count=PIECES)
