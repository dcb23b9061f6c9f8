"""Whether what is said to be so sure is right so often."""

from collections.abc import Iterable

BINS = 10


def of(predictions: Iterable[tuple[float, bool]]) -> dict | None:
    """Predicted chances against what was observed, in ten bins of the same width, and the expected calibration error.

    The error is the mean distance of the two over bins, weighted by what is in each (Naeini, Cooper and Hauskrecht,
    Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015). None where nothing was predicted.
    """
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for chance, so in predictions:
        bins[min(int(chance * BINS), BINS - 1)].append((chance, so))
    total = sum(map(len, bins))
    if not total:
        return None
    found = []
    for number, held in enumerate(bins):
        if held:
            predicted = sum(chance for chance, _ in held) / len(held)
            observed = sum(so for _, so in held) / len(held)
            found.append(
                {
                    "from": number / BINS,
                    "to": (number + 1) / BINS,
                    "predictions": len(held),
                    "predicted": predicted,
                    "observed": observed,
                }
            )
    error = sum(one["predictions"] * abs(one["predicted"] - one["observed"]) for one in found) / total
    return {"error": error, "bins": found}
