"""Rankings: weak orders, ties allowed, over the candidates of one comparison."""

import re

from django.db import transaction

from annotate import assignments, comparisons
from annotate.errors import Conflict, Invalid
from annotate.models import Assignment, Flag, RankedCandidate, Ranking, User


def parse_order(text: str, letters: dict[str, int]) -> list[list[int]]:
    """The tiers of a typed order, best first: `B A = D C` is `[[B], [A, D], [C]]`.

    `letters` names the candidates. `=` ties with the one before; `>`, `›`, commas and spaces only part. Upper and
    lower case are the same. Raises Invalid for anything else.
    """
    tiers: list[list[int]] = []
    tied = False
    for sign in re.sub(r"[\s>›,]+", "", text.upper()):
        if sign == "=":
            if tied or not tiers:
                raise Invalid("A = stands between two answers that are equally good, as in B A=D C.")
            tied = True
        elif sign not in letters:
            raise Invalid(f"{sign} is none of the answers {', '.join(letters)}.")
        elif tied:
            tiers[-1].append(letters[sign])
            tied = False
        else:
            tiers.append([letters[sign]])
    if tied:
        raise Invalid("The order ends with =. Name the answer that is tied, or take the = away.")
    return tiers


@transaction.atomic
def submit(
    *,
    assignment: Assignment,
    user: User,
    tiers: list[list[int]],
    ratings: dict[int, int] | None = None,
    flags: dict[int, list[str]] | None = None,
    all_bad: bool = False,
    active_seconds: int = 0,
) -> Ranking:
    """Store a trainer's order; the last one that is wanted closes the comparison.

    `tiers` are candidate ids, best first, tied ones together. With `all_bad` and no tiers all are tied. Raises
    Invalid where a candidate is left out, foreign or named twice, or a rating or flag is unknown; Conflict where the
    slot was ended before. Late work is kept, see `assignments.take_place`.
    """
    if assignment.kind != Assignment.Kind.RANK:
        raise Conflict("This task is not a ranking.")
    # Locked before anything is counted, so that of two last submits that come together the second sees the first.
    comparison = comparisons.lock(assignment.comparison_id)
    candidates = list(comparison.candidates.values_list("id", flat=True))
    if all_bad and not tiers:
        tiers = [candidates]
    rank_of = _ranks(tiers, candidates)
    ratings, flags = ratings or {}, flags or {}
    _check_marks(ratings, flags, candidates)
    state = assignments.take_place(assignment=assignment, user=user)
    ranking = Ranking.objects.create(
        comparison=comparison,
        assignment=assignment,
        trainer=user,
        all_bad=all_bad,
        active_seconds=max(active_seconds, 0),
    )
    RankedCandidate.objects.bulk_create(
        RankedCandidate(
            ranking=ranking,
            candidate_id=candidate,
            rank=rank_of[candidate],
            rating=ratings.get(candidate),
            flags=sorted(set(flags.get(candidate, []))),
        )
        for candidate in candidates
    )
    Assignment.objects.filter(pk=assignment.pk).update(active_seconds=max(active_seconds, 0))
    if state == Assignment.State.SUBMITTED:
        comparisons.close_if_ranked(comparison)
    return ranking


def _ranks(tiers: list[list[int]], candidates: list[int]) -> dict[int, int]:
    """Dense ranks by candidate, 0 is best. Raises Invalid unless each candidate stands in exactly one tier."""
    named = [candidate for tier in tiers for candidate in tier]
    if len(named) != len(set(named)):
        raise Invalid("An answer is named twice. Each has one place.")
    if set(named) - set(candidates):
        raise Invalid("The order names an answer that does not belong to this comparison.")
    missing = len(set(candidates) - set(named))
    if missing:
        raise Invalid(f"{missing} of {len(candidates)} answers have no place yet. Order all of them.")
    full = [tier for tier in tiers if tier]
    return {candidate: rank for rank, tier in enumerate(full) for candidate in tier}


def _check_marks(ratings: dict[int, int], flags: dict[int, list[str]], candidates: list[int]) -> None:
    if (set(ratings) | set(flags)) - set(candidates):
        raise Invalid("A rating or a flag names an answer that does not belong to this comparison.")
    if not all(type(rating) is int and 1 <= rating <= 7 for rating in ratings.values()):
        raise Invalid("A rating is a whole number from 1 to 7.")
    unknown = {flag for several in flags.values() for flag in several} - set(Flag.values)
    if unknown:
        raise Invalid(f"There is no flag {', '.join(sorted(map(str, unknown)))}. Flags: {', '.join(Flag.values)}.")


def tiers_of(ranking: Ranking) -> list[list[int]]:
    """The stored order as tiers of candidate ids, best first."""
    tiers: dict[int, list[int]] = {}
    for place in ranking.places.all():
        tiers.setdefault(place.rank, []).append(place.candidate_id)
    return [tiers[rank] for rank in sorted(tiers)]
