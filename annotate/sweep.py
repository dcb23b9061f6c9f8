"""The sweep: what time alone changes, and what a crash or a lost bell left behind. Safe to run twice at once."""

import logging

from annotate import assignments, bell, comparisons, families, generation, imports, iterations, jobs, scores, uncertain
from annotate.models import GenerationRequest

logger = logging.getLogger(__name__)


def run() -> dict[str, int]:
    """Let leases run out, settle what is stuck, close rounds, ring for work that waits. What was done, counted."""
    done = {
        "assignments expired": assignments.expire(),
        "requests given back": generation.expire_leases(),
        "requests of policies that are switched off failed": generation.fail_switched_off(),
        "comparisons settled": comparisons.repair(),
        "pools decided": uncertain.choose_ready(),
        "reserved slots opened": assignments.open_reservations(),
        "conversations abandoned": assignments.abandon_old(),
        "iterations closed": iterations.close_finished(),
        "imports and exports ended": jobs.settle() + imports.settle_lost(),
        "uploads removed": imports.forget_uploads(),
        "families found": families.join_few(),
    }
    waiting = GenerationRequest.objects.filter(state=GenerationRequest.State.WAITING, policy__active=True)
    for policy_id in waiting.values_list("policy_id", flat=True).distinct():
        bell.ring_now(policy_id)
    jobs.ring_for_waiting()
    scores.ring_for_missing()
    if any(done.values()):
        logger.info("Sweep: %s", ", ".join(f"{count} {what}" for what, count in done.items() if count))
    return done
