"""Plain builders of what tests need. Every one takes what matters and makes the rest."""

import itertools
import uuid
from datetime import timedelta

from django.utils import timezone

from annotate import conversations, generation, iterations, people, projects, rankings
from annotate.models import (
    Assignment,
    Comparison,
    GenerationRequest,
    Iteration,
    Message,
    Policy,
    Project,
    Ranking,
    Role,
    User,
)

_numbers = itertools.count(1)

GUIDELINES = "Be **helpful**, honest and harmless."


def policy(**fields) -> Policy:
    """A policy whose model need not exist."""
    number = next(_numbers)
    return Policy.objects.create(**{"name": f"policy {number}", "location": f"model-{number}"} | fields)


def project(*, iteration: bool = True, served_by: Policy | None = None, **fields) -> Project:
    """A project with guidelines and a policy, and an open iteration unless told otherwise."""
    number = next(_numbers)
    made = Project.objects.create(**{"slug": f"project-{number}", "name": f"Project {number}"} | fields)
    made.policies.add(served_by or policy())
    projects.set_guidelines(project=made, text=GUIDELINES)
    if iteration:
        iterations.open_next(project=made)
    return made


def current(project: Project) -> Iteration:
    """The open iteration."""
    return project.iterations.get(state=Iteration.State.OPEN)


def person(project: Project | None = None, *, role: str = Role.TRAINER, **fields) -> User:
    """A person with a role, a member of the project where one is given."""
    email = fields.pop("email", f"{role}-{next(_numbers)}@example.org")
    return people.invite(email=email, role=role, project=project, **fields)


def trainer(project: Project | None = None) -> User:
    """A trainer."""
    return person(project, role=Role.TRAINER)


def chat_slot(project: Project, **fields) -> Assignment:
    """A free chat slot."""
    return Assignment.objects.create(project=project, iteration=current(project), kind=Assignment.Kind.CHAT, **fields)


def sampled(*texts: str, finish_reason: str = "stop") -> list[generation.Sampled]:
    """What an engine would have made."""
    return [
        generation.Sampled(
            index=index, text=text, finish_reason=finish_reason, prompt_tokens=10, completion_tokens=len(text.split())
        )
        for index, text in enumerate(texts)
    ]


def claimed(request: GenerationRequest) -> GenerationRequest:
    """The request as a worker holds it."""
    token = uuid.uuid4()
    GenerationRequest.objects.filter(pk=request.pk).update(
        state=GenerationRequest.State.CLAIMED,
        claim_token=token,
        claimed_by="test",
        attempt=request.attempt + 1,
        claimed_at=timezone.now(),
        lease_until=timezone.now() + timedelta(seconds=60),
    )
    request.refresh_from_db()
    return request


def answer(request: GenerationRequest, *texts: str, finish_reason: str = "stop") -> None:
    """A worker claims the request and completes it; one text each sample, made up where none is given."""
    texts = texts or tuple(f"Answer {next(_numbers)}" for _ in range(request.n))
    claimed(request)
    done = generation.complete(
        request_id=request.pk,
        token=request.claim_token,
        sampled=sampled(*texts, finish_reason=finish_reason),
        template_hash="0" * 64,
    )
    assert done


def held_chat(project: Project, user: User) -> Assignment:
    """A chat slot that the user holds, its conversation open. Made for them, past the queue."""
    from annotate import openings

    slot = chat_slot(project)
    lease = timezone.now() + timedelta(minutes=30)
    seat = 1
    Assignment.objects.filter(pk=slot.pk).update(
        state=Assignment.State.HELD, trainer=user, seat=seat, held_at=timezone.now(), lease_until=lease
    )
    slot.refresh_from_db()
    openings.open_for(assignment=slot)
    return slot


def turn(slot: Assignment, text: str = "Hello there", reply: str | None = None, finish_reason: str = "stop") -> Message:
    """The trainer says something and the policy answers; the reply."""
    request = conversations.say(assignment=slot, user=slot.trainer, text=text)
    answer(request, reply or f"Reply {next(_numbers)}", finish_reason=finish_reason)
    return slot.conversation.messages.order_by("-position").first()


def finished_chat(project: Project, user: User | None = None, *, turns: int = 1):
    """A finished conversation of so many turns; its comparison is being sampled."""
    slot = held_chat(project, user or trainer(project))
    for _ in range(turns):
        turn(slot)
    return conversations.finish(assignment=slot, user=slot.trainer)


def open_comparison(project: Project, user: User | None = None, *, turns: int = 1) -> Comparison:
    """A comparison with its candidates and free slots, of a conversation that `user` held."""
    conversation = finished_chat(project, user, turns=turns)
    comparison = Comparison.objects.get(message__conversation=conversation)
    answer(comparison.requests.get())
    comparison.refresh_from_db()
    return comparison


def comparison_about(project: Project, opening: str, user: User | None = None, *answers: str) -> Comparison:
    """An open comparison of a conversation that began with these words; alternatives are made up where not given."""
    slot = held_chat(project, user or trainer(project))
    turn(slot, opening)
    conversation = conversations.finish(assignment=slot, user=slot.trainer)
    comparison = Comparison.objects.get(message__conversation=conversation)
    answer(comparison.requests.get(), *answers)
    comparison.refresh_from_db()
    return comparison


def ranking(comparison: Comparison, order: str = "A B C D", user: User | None = None, **marks) -> Ranking:
    """A trainer takes a slot of this comparison, past the queue, and submits; A is the candidate with the lowest id."""
    slot = comparison.assignments.filter(state=Assignment.State.FREE).order_by("ordinal").first()
    candidates = sorted(comparison.candidates.values_list("id", flat=True))
    Assignment.objects.filter(pk=slot.pk).update(
        state=Assignment.State.HELD,
        trainer=user or trainer(comparison.project),
        seat=1,
        held_at=timezone.now(),
        lease_until=timezone.now() + timedelta(minutes=30),
        shown_order=candidates[::-1],
    )
    slot.refresh_from_db()
    tiers = rankings.parse_order(order, dict(zip("ABCDEFGHI", candidates, strict=False)))
    return rankings.submit(assignment=slot, user=slot.trainer, tiers=tiers, **marks)
