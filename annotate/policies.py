"""Policies: how they stand, and how one is switched on and off."""

from annotate import generation, streams
from annotate.models import Policy


def state(policy: Policy) -> tuple[str, str]:
    """How replies of a policy stand: `off`, or what its workers say (`streams.policy_state`), and the reason."""
    return ("off", policy.off) if policy.off else streams.policy_state(policy.pk)


def switch_on(*, policy: Policy) -> None:
    """Workers that serve all active policies serve it from the next sweep on."""
    Policy.objects.filter(pk=policy.pk).update(active=True)
    policy.active = True


def switch_off(*, policy: Policy) -> int:
    """Workers finish what they have of it and put it down; what waits for it fails now. How many requests did.

    What is asked of it later, or given back to wait, fails likewise: at once, or with the next sweep.
    """
    Policy.objects.filter(pk=policy.pk).update(active=False)
    policy.active = False
    return generation.fail_switched_off()
