"""The tests for drift equal SciPy's, keep their stated rate of false alarms, find what is planted, and refuse nonsense."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import laplace
from scipy.special import rel_entr
from scipy.stats import binom, fisher_exact, ks_2samp

from dlcourse.data import eval_transform
from dlcourse.deployment import ModelCard, Predictor
from dlcourse.deployment.drift import Reference, counts_p_value, detect_drift, holm, ks_p_value, ks_statistic, psi
from dlcourse.deployment.observing import Observation, image_statistics, observe
from dlcourse.deployment.predictor import Prediction
from dlcourse.models import simple_cnn

CLASSES = ("boot", "coat", "shirt")
samples = st.one_of(
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1e9]), min_size=1, max_size=30),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
)
counts = st.lists(st.integers(0, 50), min_size=2, max_size=6)


def draw(rng, size, *, shift=0.0, shares=(0.5, 0.3, 0.2), grain=0.01):
    """Observations of two correlated statistics with ties, and a class."""
    index = rng.choice(3, size, p=shares)
    first = rng.normal(shift, 1, size)
    second = first + rng.normal(0, 0.5, size)
    return [
        Observation(int(i), {"confidence": round(a / grain) * grain, "brightness": round(float(b), 1), "colour": 0.0})
        for i, a, b in zip(index, first.tolist(), second, strict=True)
    ]


def sample(*args, **options):
    return Reference.from_observations(CLASSES, draw(*args, **options))


@given(samples, samples)
def test_the_statistic_is_scipys_with_any_ties(first, second):
    assert ks_statistic(np.array(first), np.array(second)) == pytest.approx(ks_2samp(first, second).statistic)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 5), (20, 20), (200, 600), (37, 411)])
def test_the_p_value_is_scipys_exact_one(n, m):
    rng = np.random.default_rng(n)
    for shift in (0, 0.1, 0.3, 1):
        first, second = rng.normal(size=n), rng.normal(shift, size=m)
        exact = ks_2samp(first, second, method="exact")
        for sizes in ((n, m), (m, n)):
            assert ks_p_value(exact.statistic, *sizes) == pytest.approx(exact.pvalue, abs=1e-9)


def test_the_p_value_counts_the_arrangements_of_a_tiny_case():
    places = list(itertools.combinations(range(7), 3))
    distances = [
        ks_statistic(np.array(first), np.array([i for i in range(7) if i not in first])) for first in places
    ]
    for distance in set(distances):
        as_far = sum(other >= distance - 1e-12 for other in distances)
        assert ks_p_value(distance, 3, 4) == pytest.approx(as_far / len(places))


def test_the_p_value_survives_large_samples_and_the_two_ends():
    assert ks_p_value(0.0, 50, 70) == 1
    assert 0 <= ks_p_value(1.0, 500, 700) < 1e-12
    assert ks_p_value(0.05, 2000, 3000) == pytest.approx(ks_2samp_asymptotic(0.05, 2000, 3000), rel=0.05)


def ks_2samp_asymptotic(distance, n, m):
    lam = distance * math.sqrt(n * m / (n + m))
    return 2 * sum((-1) ** (k - 1) * math.exp(-2 * k**2 * lam**2) for k in range(1, 50))


def test_two_classes_are_as_surprising_as_fishers_exact_test_says():
    for first, second in (((60, 40), (15, 25)), ((30, 2), (20, 12)), ((50, 50), (25, 25))):
        exact = fisher_exact([first, second]).pvalue
        assert counts_p_value(np.array(first), np.array(second), resamples=40_000) == pytest.approx(exact, abs=0.03)


def test_counts_in_one_class_or_equal_in_share_are_no_surprise():
    assert counts_p_value(np.array([90, 0, 0]), np.array([30, 0, 0])) == 1
    assert counts_p_value(np.array([90, 30, 0]), np.array([30, 10, 0])) > 0.9
    assert counts_p_value(np.array([90, 30, 0]), np.array([10, 10, 20])) < 0.001


def test_the_p_value_of_counts_is_uniform_at_most():
    rng = np.random.default_rng(0)
    shares = np.array([0.6, 0.3, 0.07, 0.02, 0.01])
    p_values = np.array(
        [counts_p_value(rng.multinomial(150, shares), rng.multinomial(50, shares), resamples=499) for _ in range(400)]
    )
    for level in (0.05, 0.2, 0.5):
        assert (p_values <= level).sum() <= binom.ppf(0.999, 400, level)


def test_many_classes_take_little_time_and_rare_ones_do_no_harm():
    rng = np.random.default_rng(0)
    many = rng.multinomial(1000, np.ones(1000) / 1000), rng.multinomial(200, np.ones(1000) / 1000)
    assert counts_p_value(*many, resamples=999) > 0.01


@given(counts, st.randoms(use_true_random=False))
def test_psi_is_the_symmetric_divergence_and_zero_for_equal_shares(reference, random):
    live = [random.randint(0, 50) for _ in reference]
    p, q = ((np.array(c) + 0.5) / (np.array(c) + 0.5).sum() for c in (reference, live))
    assert psi(np.array(reference), np.array(live)) == pytest.approx(rel_entr(p, q).sum() + rel_entr(q, p).sum())
    assert psi(np.array(reference), np.array(reference)) == 0


def test_psi_of_an_empty_bin_is_finite():
    assert 0 < psi(np.array([100, 0, 0]), np.array([0, 100, 0])) < 20


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_the_plain_value_and_bonferronis_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    for p, a in zip(p_values, adjusted, strict=True):
        assert p <= a <= min(1, len(p_values) * p)
    assert [adjusted[i] for i in np.argsort(p_values, kind="stable")] == sorted(adjusted)


def test_false_alarms_stay_under_the_stated_rate():
    """With correlated statistics, ties, a constant one, and a reference as finite as the window."""
    rng = np.random.default_rng(0)
    for rate in (0.05, 0.2):
        alarms = sum(
            detect_drift(sample(rng, 120), sample(rng, 60), false_alarm_rate=rate).alarm for _ in range(300)
        )
        assert alarms <= binom.ppf(0.999, 300, rate)
        assert alarms >= 1 if rate == 0.2 else True  # not silent by construction


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"shift": 0.7}, {"confidence", "brightness"}),
        ({"shares": (0.2, 0.3, 0.5)}, {"classes"}),
        ({"grain": 1.5}, {"confidence"}),
    ],
)
def test_planted_drift_is_found_and_named(change, named):
    rng = np.random.default_rng(0)
    for _ in range(20):
        report = detect_drift(sample(rng, 300), sample(rng, 200, **change))
        assert report.alarm
        assert named <= set(report.drifted)
        assert "colour" not in report.drifted


def test_a_report_says_what_changed():
    rng = np.random.default_rng(0)
    reference = sample(rng, 300)
    report = detect_drift(reference, sample(rng, 200, shares=(0.05, 0.3, 0.65)))
    assert str(report).startswith("drift in 200 answers: classes ")
    assert "→" in str(report)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["alarm"] is True
    quiet = detect_drift(reference, sample(rng, 200))
    assert str(quiet) == "no drift in 200 answers"
    assert [f.p_value for f in quiet.findings] == sorted(f.p_value for f in quiet.findings)


def test_the_same_windows_get_the_same_report():
    rng = np.random.default_rng(0)
    reference, live = sample(rng, 100), sample(rng, 50)
    assert detect_drift(reference, live) == detect_drift(reference, live)


def test_statistics_that_only_one_side_has_are_left_out():
    rng = np.random.default_rng(0)
    bare = [Observation(each.index, {"confidence": each.values["confidence"]}) for each in draw(rng, 60)]
    report = detect_drift(sample(rng, 100), Reference.from_observations(CLASSES, bare))
    assert {finding.name for finding in report.findings} == {"classes", "confidence"}


def test_values_that_are_not_finite_are_left_out():
    seen = draw(np.random.default_rng(0), 40)
    for each in seen[:5]:
        each.values["confidence"] = math.nan
    for each in seen[:30]:
        each.values["brightness"] = math.inf
    reference = Reference.from_observations(CLASSES, seen)
    assert len(reference) == 40
    assert len(reference.values["confidence"]) == 35
    assert "brightness" not in reference.values


def test_what_cannot_be_tested_is_refused():
    rng = np.random.default_rng(0)
    reference = sample(rng, 50)
    with pytest.raises(ValueError, match="at least 20"):
        sample(rng, 19)
    with pytest.raises(ValueError, match="the live answers have the classes"):
        detect_drift(reference, Reference.from_observations(("a", "b", "c"), draw(rng, 50)))
    for rate in (0.0, -1, 0.9, math.nan):
        with pytest.raises(ValueError, match="false_alarm_rate="):
            detect_drift(reference, reference, false_alarm_rate=rate)


def test_a_reference_travels_as_json():
    reference = sample(np.random.default_rng(0), 200)
    read = Reference.from_json(reference.to_json())
    assert read.classes == reference.classes
    assert np.array_equal(read.counts, reference.counts)
    assert all(np.array_equal(read.values[name], reference.values[name]) for name in reference.values)
    assert read.values.keys() == reference.values.keys()
    assert not detect_drift(reference, read).alarm


def broken(**parts):
    values = {"confidence": [0.5] * 30}
    return json.dumps({"format": 1, "classes": ["a", "b"], "counts": [20, 10], "values": values} | parts)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the reference cannot be read"),
        ("[1, 2]", "the reference cannot be read"),
        ("{}", "'format' is missing"),
        (broken(format=99), "its format is 99"),
        (broken(counts=[20]), "counts must be 2 whole numbers"),
        (broken(counts=[40, -10]), "counts must be"),
        (broken(counts=[20.5, 9.5]), "counts must be"),
        (broken(counts=[1, 2]), "at least 20 in all"),
        (broken(values={"confidence": [math.nan] * 30}), "must be finite numbers"),
        (broken(values={"confidence": [0.5] * 31}), "20 to 30 of them"),
        (broken(values={"confidence": [[0.5] * 30]}), "must be finite numbers"),
        (broken(values={"confidence": ["high"] * 30}), "the reference cannot be read"),
        (broken(values=[1]), "the reference cannot be read"),
        ("[" * 100_000, "the reference cannot be read"),
    ],
)
def test_a_file_that_is_no_reference_is_refused_in_words(text, says):
    with pytest.raises(ValueError, match=says):
        Reference.from_json(text)


def test_a_reference_of_a_predictor_holds_what_its_answers_show():
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (70, 20, 24, 3), dtype=np.uint8))
    predictor = Predictor.of(simple_cnn(num_classes=3), ModelCard(CLASSES, eval_transform(32)))
    reference = Reference.of(predictor, pictures)
    predictions = predictor.predict(pictures)
    assert reference.counts.tolist() == [sum(p.index == k for p in predictions) for k in range(3)]
    expected = sorted(p.confidence for p in predictions)
    np.testing.assert_allclose(reference.values["confidence"], expected, rtol=1e-3)
    assert set(reference.values) == {"confidence", *image_statistics(predictor.prepare(pictures[0]))}
    assert len(Reference.of(predictor, pictures, limit=30)) == 30


def test_image_statistics_are_what_their_names_say():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(3, 32, 32)).astype(np.float32)
    grey = image.mean(0)
    found = image_statistics(image)
    inner = laplace(grey.astype(np.float64))[1:-1, 1:-1]
    assert found["brightness"] == pytest.approx(grey.mean(), abs=1e-6)
    assert found["contrast"] == pytest.approx(grey.std(), rel=1e-5)
    assert found["sharpness"] == pytest.approx(inner.var(), rel=1e-4)
    assert found["noise"] == pytest.approx(np.median(np.abs(inner)), rel=0.02)
    assert (grey < found["darkest"]).mean() == pytest.approx(0.01, abs=0.005)
    assert (grey > found["brightest"]).mean() == pytest.approx(0.01, abs=0.005)
    assert found["colour"] == pytest.approx(np.ptp(image.mean((1, 2))), abs=1e-6)
    assert image_statistics(image + np.array([1, 0, 0])[:, None, None])["colour"] > 0.9


@pytest.mark.parametrize("size", [2, 3, 31, 64, 65, 224])
def test_every_size_of_image_has_finite_statistics(size):
    image = np.random.default_rng(0).random((3, size, size)).astype(np.float32)
    assert all(map(math.isfinite, image_statistics(image).values()))
    flat = image_statistics(np.full((3, size, size), 0.25, np.float32))
    assert flat["brightness"] == flat["darkest"] == flat["brightest"] == 0.25
    assert flat["contrast"] == flat["sharpness"] == flat["noise"] == flat["colour"] == 0


def test_an_observation_is_the_same_on_either_side_of_a_file():
    """Rounded alike, the answer of another processor is no other value."""
    image = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    probabilities = np.array([0.2, 0.7, 0.1])
    seen = observe(Prediction(CLASSES, probabilities), image)
    nearly = observe(Prediction(CLASSES, probabilities * (1 + 1e-9)), image + 1e-9)
    assert seen == nearly
    assert seen.index == 1
    assert seen.values["confidence"] == 0.7
