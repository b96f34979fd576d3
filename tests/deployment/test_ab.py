"""Who gets which version, and what can be said of the difference: intervals that hold, sizes that suffice."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from dlcourse.deployment.ab import assign, compare_versions, difference_interval, sample_size
from dlcourse.evaluation import wilson_interval

USERS = [f"user-{number}" for number in range(4000)]


def test_a_user_always_gets_the_same_version():
    assert [assign(user) for user in USERS[:50]] == [assign(user) for user in USERS[:50]]
    assert (assign("user-1"), assign("user-2"), assign("üser 3")) == ("A", "B", "B")  # on every machine, in every version


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_share_of_b_is_the_one_asked_for(share):
    in_b = sum(assign(user, share) == "B" for user in USERS)
    assert binom.ppf(0.0005, len(USERS), share) <= in_b <= binom.ppf(0.9995, len(USERS), share)


def test_who_was_in_b_stays_there_when_it_grows():
    early = {user for user in USERS if assign(user, 0.1) == "B"}
    assert early < {user for user in USERS if assign(user, 0.4) == "B"}


def test_another_experiment_shuffles_anew():
    first, second = ([assign(user, experiment=name) == "B" for user in USERS] for name in ("heads", "colours"))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_scipys(counts):
    successes, n = counts
    ours, theirs = wilson_interval(successes, n), binomtest(successes, n).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.value in ours
    assert ours.low < ours.high


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),  # Newcombe 1998, table II, method 10
    [
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((2, 7), (6, 7), 0.0582, 0.8062),
        ((0, 29), (5, 56), -0.0381, 0.1926),
    ],
)
def test_the_interval_of_published_examples(a, b, low, high):
    found = difference_interval(*a, *b)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.0001)


@given(*[st.integers(0, 40)] * 2)
def test_the_two_versions_can_be_exchanged(a, b):
    there, back = difference_interval(a, 40, b, 55), difference_interval(b, 55, a, 40)
    assert (there.low, there.value, there.high) == pytest.approx((-back.high, -back.value, -back.low))
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert there.low < there.high


@pytest.mark.parametrize(("p", "q", "n", "m"), [(0.5, 0.5, 40, 60), (0.9, 0.95, 80, 80), (0.02, 0.05, 150, 100), (0.99, 0.99, 60, 60)])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(p, q, n, m):
    """By the exact probabilities of every outcome, not by a draw."""
    weights = np.outer(binom.pmf(np.arange(n + 1), n, p), binom.pmf(np.arange(m + 1), m, q))
    covered = sum(
        weights[a, b]
        for a in range(n + 1)
        for b in range(m + 1)
        if weights[a, b] > 1e-7 and q - p in difference_interval(a, n, b, m)
    )
    assert 0.93 <= covered <= 1


def test_a_verdict_needs_an_interval_without_zero():
    assert compare_versions(800, 1000, 870, 1000).winner == "B"
    assert compare_versions(870, 1000, 800, 1000).winner == "A"
    assert compare_versions(80, 100, 83, 100).winner is None
    assert str(compare_versions(800, 1000, 870, 1000)).startswith("B is better: B − A = +7.0 points (+3.")
    assert str(compare_versions(80, 100, 83, 100)).startswith("not told apart yet: B − A = +3.0 points (-7.")


@pytest.mark.parametrize(("base", "difference"), [(0.8, 0.05), (0.5, -0.1), (0.02, 0.02)])
def test_so_many_requests_find_the_difference_so_often(base, difference):
    n, rng = sample_size(base, difference, power=0.8), np.random.default_rng(0)
    a, b = rng.binomial(n, base, 2000), rng.binomial(n, base + difference, 2000)
    found = np.mean([compare_versions(x, n, y, n).winner is not None for x, y in zip(a.tolist(), b.tolist(), strict=True)])
    assert 0.76 <= found <= 0.84


def test_sample_sizes_of_textbooks():
    assert sample_size(0.5, 0.1) == 388  # Fleiss: 0.5 against 0.6, power 80 %, without the continuity correction
    assert sample_size(0.8, 0.01) > 10 * sample_size(0.8, 0.05)
    assert sample_size(0.5, 0.1, power=0.95) > sample_size(0.5, 0.1)


def test_nonsense_is_refused_in_words():
    for arguments in ((5, 4), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match=r"successes=.* of n="):
            wilson_interval(*arguments)
    for confidence in (0.0, 1.0, 95, math.nan):
        with pytest.raises(ValueError, match="confidence="):
            difference_interval(1, 2, 1, 2, confidence=confidence)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="share="):
            assign("user", share)
    for base, difference in ((0.5, 0.0), (0.9, 0.2), (0.1, -0.2)):
        with pytest.raises(ValueError, match="must be two different shares"):
            sample_size(base, difference)
    with pytest.raises(ValueError, match="power="):
        sample_size(0.5, 0.1, power=80)
