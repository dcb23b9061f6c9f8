"""Simulated trainers and a reward model of several heads: what is chosen from pools teaches it more than chance."""

import pytest

from annotate.quality import uncertainty

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.slow

FEATURES, K, HEADS, POOL, BEFORE, MORE = 24, 4, 4, 4, 60, 60
COMMON = 3
PAIRS = [(better, worse) for better in range(K) for worse in range(better + 1, K)]


def contexts(chance, count: int):
    """The features of K answers to each; in some contexts answers differ more than in others, and in all they have
    much in common, of which no ranking tells."""
    apart = np.exp(chance.normal(0, 0.7, (count, 1, 1)))
    common = chance.normal(0, COMMON, (count, 1, FEATURES))
    return (common + chance.normal(0, 1, (count, K, FEATURES)) * apart) / np.sqrt(FEATURES)


def ranked(chance, answers, taste):
    """The answers from best to worst, as people with this taste and some whim order them."""
    order = np.argsort(-(answers @ taste + chance.gumbel(size=answers.shape[:2])), axis=1)
    return np.take_along_axis(answers, order[:, :, None], 1)


def heads(chance, rankings):
    """Heads that learnt from these rankings, each weighted as if drawn with replacement: (HEADS, FEATURES)."""
    differences = np.concatenate([rankings[:, better] - rankings[:, worse] for better, worse in PAIRS])
    return np.stack([fitted(differences, chance.poisson(1.0, len(rankings))) for _ in range(HEADS)])


def fitted(differences, weights):
    """Logistic regression by Newton's method, with a little pull to 0."""
    weights, head = np.tile(weights, len(PAIRS)) / 3, np.zeros(FEATURES)
    for _ in range(12):
        surprise = 1 / (1 + np.exp(differences @ head))
        slope = differences.T @ (weights * surprise) - head
        bend = (differences * (weights * surprise * (1 - surprise))[:, None]).T @ differences + np.eye(FEATURES)
        head = head + np.linalg.solve(bend, slope)
    return head


def chosen(made, pools):
    """Of each pool (pools, POOL, K, FEATURES) the comparison with the highest figure."""
    rewards = (pools @ made.T).tolist()
    figures = [[uncertainty.of_rewards(one) for one in pool] for pool in rewards]
    return np.stack([pool[np.argmax(of_pool)] for pool, of_pool in zip(pools, figures, strict=True)])


def accuracy(seed: int, *, uncertain: int) -> float:
    """On new contexts, after so many of MORE rankings were of chosen comparisons."""
    chance = np.random.default_rng(seed)
    taste = chance.normal(0, 2, FEATURES)
    before = ranked(chance, contexts(chance, BEFORE), taste)
    made = heads(chance, before)
    more = [ranked(chance, contexts(chance, MORE - uncertain), taste)]
    if uncertain:
        pools = contexts(chance, uncertain * POOL).reshape(uncertain, POOL, K, FEATURES)
        more.append(ranked(chance, chosen(made, pools), taste))
    learnt = heads(chance, np.concatenate([before, *more])).mean(0)
    unseen = contexts(np.random.default_rng(1000 + seed), 1000)
    true, told = unseen @ taste, unseen @ learnt
    return np.mean([(true[:, one] > true[:, other]) == (told[:, one] > told[:, other]) for one, other in PAIRS])


def test_as_many_rankings_teach_more_where_half_are_of_chosen_comparisons():
    gains = np.array([accuracy(seed, uncertain=MORE // 2) - accuracy(seed, uncertain=0) for seed in range(24)])
    assert gains.mean() > 4 * gains.std() / np.sqrt(len(gains)) > 0
