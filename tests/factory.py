"""Plain builders of what tests need. Every one takes what matters and makes the rest."""

import itertools
import uuid
from datetime import timedelta

from django.utils import timezone

from annotate import (
    assignments,
    conversations,
    demonstrations,
    families,
    generation,
    iterations,
    people,
    projects,
    rankings,
    reviews,
)
from annotate.models import (
    Assignment,
    Candidate,
    Comparison,
    Completion,
    Conversation,
    GenerationRequest,
    Import,
    Iteration,
    Message,
    Policy,
    Project,
    ProjectPolicy,
    RankedCandidate,
    Ranking,
    Role,
    TrainingRun,
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


def shared_project(*weights: int, **fields) -> Project:
    """A project with one policy of each weight, in their order, and an open iteration."""
    made = project(iteration=False, **fields)
    made.policies.clear()
    ProjectPolicy.objects.bulk_create(ProjectPolicy(project=made, policy=policy(), weight=weight) for weight in weights)
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


def sampled(*texts: str, finish_reason: str = "stop", reasoning: str = "") -> list[generation.Sampled]:
    """What an engine would have made."""
    return [
        generation.Sampled(
            index=index,
            text=text,
            finish_reason=finish_reason,
            prompt_tokens=10,
            completion_tokens=len(text.split()),
            reasoning=reasoning,
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


def answer(request: GenerationRequest, *texts: str, finish_reason: str = "stop", reasoning: str = "") -> None:
    """A worker claims the request and completes it; one text each sample, made up where none is given."""
    texts = texts or tuple(f"Answer {next(_numbers)}" for _ in range(request.n))
    claimed(request)
    done = generation.complete(
        request_id=request.pk,
        token=request.claim_token,
        sampled=sampled(*texts, finish_reason=finish_reason, reasoning=reasoning),
        template_hash="0" * 64,
    )
    assert done


def held_chat(project: Project, user: User) -> Assignment:
    """A chat slot that the user holds, its conversation open. Made for them, past the queue."""
    return held(chat_slot(project), user)


def held(slot: Assignment, user: User) -> Assignment:
    """The slot as this user holds it, past the queue; its conversation is open where it has one."""
    from annotate import openings

    lease = timezone.now() + timedelta(minutes=30)
    Assignment.objects.filter(pk=slot.pk).update(
        state=Assignment.State.HELD, trainer=user, seat=1, held_at=timezone.now(), lease_until=lease
    )
    slot.refresh_from_db()
    if slot.kind in (Assignment.Kind.CHAT, Assignment.Kind.WRITE):
        openings.open_for(assignment=slot)
    return slot


def write_slot(project: Project, **fields) -> Assignment:
    """A free writing slot."""
    return Assignment.objects.create(project=project, iteration=current(project), kind=Assignment.Kind.WRITE, **fields)


def held_piece(project: Project, user: User | None = None) -> Assignment:
    """A writing slot that the user holds, with an empty manuscript or the project's next prompt."""
    return held(write_slot(project), user or trainer(project))


TURNS = (("user", "How do I boil an egg?"), ("assistant", "Eight minutes in boiling water."))


def written_turn(role: str, text: str, **fields) -> dict:
    """A turn of a draft as the page keeps it, typed by hand unless told otherwise."""
    taken, pasted = fields.get("taken", 0), fields.get("pasted", 0)
    typed = max(0, len(text) - taken - pasted)
    return {
        "role": role, "text": text, "from": None, "opening": False, "shown": [], "seconds": 5,
        "typed": typed, "pasted": pasted, "taken": taken,
    } | fields  # fmt: skip


def save(slot: Assignment, *turns: dict, **fields) -> int:
    """Save a draft of these turns; its version."""
    draft = {"turns": list(turns), "at": len(turns) - 1} | fields
    slot.refresh_from_db()
    return assignments.save_draft(assignment=slot, user=slot.trainer, draft=draft, version=slot.draft_version)


def suggested(slot: Assignment, *texts: str, role: str = "assistant", before=(), hint: str = "") -> GenerationRequest:
    """Suggestions that were asked for a piece and sampled."""
    request = demonstrations.suggest(
        assignment=slot, user=slot.trainer, role=role, before=list(before), hint=hint, n=len(texts)
    )
    answer(request, *texts)
    return request


def finished_piece(project: Project, user: User | None = None, *turns: dict, slot: Assignment | None = None):
    """A finished written conversation of these turns, a question and its answer where none are given."""
    slot = slot or held_piece(project, user)
    number = next(_numbers)
    turns = turns or tuple(written_turn(role, f"{text} ({number})") for role, text in TURNS)
    version = save(slot, *turns)
    return demonstrations.finish(assignment=slot, user=slot.trainer, version=version)


def review_of(conversation, user: User | None = None, verdict: str = "approved", **more):
    """A reviewer takes the review of a finished piece, past the queue, and gives a verdict."""
    slot = conversation.slots.get(kind=Assignment.Kind.REVIEW, state=Assignment.State.FREE)
    reviewer = user or person(conversation.project, role=Role.REVIEWER)
    if verdict == "returned" and not more:
        more = {"note": "Say how old the egg is."}
    return reviews.submit(assignment=held(slot, reviewer), user=reviewer, verdict=verdict, **more)


def turn(slot: Assignment, text: str = "Hello there", reply: str | None = None, **how: str) -> Message:
    """The trainer says something and the policy answers, as `answer` takes it; the reply."""
    request = conversations.say(assignment=slot, user=slot.trainer, text=text)
    answer(request, reply or f"Reply {next(_numbers)}", **how)
    return slot.conversation.messages.order_by("-position").first()


def finished_chat(project: Project, user: User | None = None, *, turns: int = 1, reasoning: str = ""):
    """A finished conversation of so many turns; its comparison is being sampled."""
    slot = held_chat(project, user or trainer(project))
    for _ in range(turns):
        turn(slot, reasoning=reasoning)
    return conversations.finish(assignment=slot, user=slot.trainer)


def open_comparison(project: Project, user: User | None = None, *, turns: int = 1, reasoning: str = "") -> Comparison:
    """A comparison with its candidates and free slots, of a conversation that `user` held."""
    conversation = finished_chat(project, user, turns=turns, reasoning=reasoning)
    comparison = Comparison.objects.get(message__conversation=conversation)
    for request in comparison.requests.all():
        answer(request, reasoning=reasoning)
    comparison.refresh_from_db()
    return comparison


def comparison_about(
    project: Project, opening: str, user: User | None = None, *answers: str, reply: str | None = None
) -> Comparison:
    """An open comparison of a conversation that began with these words; what is not given is made up."""
    slot = held_chat(project, user or trainer(project))
    turn(slot, opening, reply)
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


def imported_in(project: Project, source: str = "a-file", **fields) -> Import:
    """An import that is done, of which nothing came in yet."""
    now = timezone.now()
    return Import.objects.create(
        **{"project": project, "source": source, "format": "messages", "state": "done", "ended_at": now} | fields
    )


def imported(project: Project, *turns: tuple[str, str], **fields) -> Conversation:
    """An imported conversation of these (role, text), a question and its answer where none are given."""
    number = next(_numbers)
    turns = turns or (("user", f"Imported question {number}"), ("assistant", f"Imported answer {number}"))
    made = {"source_id": f"row-{number}", "digest": f"{number:064}", "finished_at": timezone.now()}
    if "family" not in fields:
        opening = next((text for role, text in turns if role == "user"), turns[0][1])
        made["family"] = families.join(project=project, texts=[opening])[0]
    conversation = Conversation.objects.create(
        project=project,
        kind=Conversation.Kind.IMPORTED,
        state=Conversation.State.FINISHED,
        **{"imported_in": fields.pop("imported_in", None) or imported_in(project)} | made | fields,
    )
    Message.objects.bulk_create(
        Message(
            conversation=conversation,
            position=position,
            role=role,
            text=text,
            source=Message.Source.IMPORTED,
            source_id=f"{conversation.digest[-40:]}-{position}",
        )
        for position, (role, text) in enumerate(turns)
    )
    return conversation


def imported_comparison(project: Project, *tiers: tuple[str, ...], conversation: Conversation | None = None):
    """An imported comparison of these texts, best first; the conversation ends with one of the best ones."""
    tiers = tiers or (("The better answer",), ("The worse answer",))
    conversation = conversation or imported(project, ("user", "Which is better?"), ("assistant", tiers[0][0]))
    message = conversation.messages.order_by("-position").first()
    comparison = Comparison.objects.create(
        project=project,
        imported_in=conversation.imported_in,
        source_id=f"comparison-{next(_numbers)}",
        message=message,
        state=Comparison.State.CLOSED,
        k=sum(map(len, tiers)),
        overlap=1,
        draw_size=1,
        draw_index=0,
        opened_at=timezone.now(),
        closed_at=timezone.now(),
    )
    ranking = Ranking.objects.create(comparison=comparison, kind=Ranking.Kind.IMPORTED)
    for rank, tier in enumerate(tiers):
        for text in tier:
            completion = Completion.objects.create(kind=Completion.Kind.IMPORTED, text=text)
            candidate = Candidate.objects.create(
                comparison=comparison, completion=completion, original=text == message.text
            )
            RankedCandidate.objects.create(ranking=ranking, candidate=candidate, rank=rank)
    return comparison


def reward_run(project: Project, **fields) -> TrainingRun:
    """A run that made a reward model, of which no file is there."""
    number = next(_numbers)
    values = {"kind": "reward", "state": "done", "location": f"reward-{number}", "digest": f"{number:064}"}
    return TrainingRun.objects.create(
        **{"project": project, "base": project.policies.first(), "ended_at": timezone.now()} | values | fields
    )
