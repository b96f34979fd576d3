"""How far the hand-written metrics are from scikit-learn's and SciPy's: the largest difference over random cases.

    python tests/evaluation/metric_references.py [--cases 1000]

Cases have 2 to 20 classes, skewed or even, scores with and without ties, and classes that are never predicted. The tests
run a smaller number of the same cases and hold the largest difference to `BOUND`.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import sklearn.metrics as reference
from scipy.stats import binomtest

from dlcourse.evaluation import (
    accuracy,
    average_precision,
    average_scores,
    confusion_matrix,
    mcnemar,
    precision_recall_curve,
    precision_recall_f1,
    roc_auc,
    roc_curve,
    top_k_accuracy,
)

BOUND = 1e-12
BOUND_OF_P_VALUES = 1e-10  # logarithms of factorials, added up

Case = tuple[np.ndarray, np.ndarray]


def random_case(seed: int) -> Case:
    """Labels (N,) in which each of 2 … 20 classes occurs, and probabilities (N, K), with ties in three of four cases."""
    generator = np.random.default_rng(seed)
    classes = int(generator.integers(2, 21))
    size = int(generator.integers(classes, 300)) + classes
    shares = generator.dirichlet(np.full(classes, (0.2, 1.0, 50.0)[seed % 3]))  # skewed to even
    labels = np.concatenate([np.arange(classes), generator.choice(classes, size - classes, p=shares)])
    generator.shuffle(labels)
    scores = generator.normal(size=(size, classes))
    scores[np.arange(size), labels] += generator.uniform(0, 3)
    if seed % 5 == 0:
        scores[:, generator.integers(classes)] -= 50  # a class that is never predicted
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    if steps := (None, 4, 10, 50)[seed % 4]:  # in steps of 1/4 and so on, what is missing to 1 added to the largest
        probabilities = np.floor(probabilities * steps) / steps
        probabilities[np.arange(size), probabilities.argmax(axis=1)] += 1 - probabilities.sum(axis=1)
    return labels, probabilities


def two_classes(case: Case) -> Case:
    """The first class against the rest."""
    return (case[0] == 0).astype(int), case[1][:, 0]


def without_ties(case: Case) -> Case:
    """Scores moved apart within each row, so that a rank is a rank whoever breaks ties."""
    labels, probabilities = case
    return labels, probabilities + 1e-6 * np.random.default_rng(len(labels)).permuted(
        np.tile(np.arange(probabilities.shape[1]), (len(labels), 1)), axis=1
    )


def far(ours: object, theirs: object) -> float:
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    assert ours.shape == theirs.shape
    finite = np.isfinite(theirs)
    assert np.array_equal(ours[~finite], theirs[~finite])
    return float(np.abs(ours[finite] - theirs[finite]).max())


def matrix_of(case: Case) -> np.ndarray:
    return confusion_matrix(case[0], case[1].argmax(axis=1), case[1].shape[1])


def theirs_averaged(case: Case, average: str | None) -> tuple:
    classes = range(case[1].shape[1])
    return reference.precision_recall_fscore_support(
        case[0], case[1].argmax(axis=1), labels=classes, average=average, zero_division=0
    )[:3]


def compare_averages(average: str) -> Callable[[Case], float]:
    return lambda case: far(average_scores(matrix_of(case), average), theirs_averaged(case, average))


def compare_top_k(case: Case) -> float:
    labels, scores = without_ties(case)
    classes = scores.shape[1]
    if classes == 2:  # scikit-learn takes two columns for several labels
        return far(top_k_accuracy(scores, labels, 1), np.mean(scores.argmax(axis=1) == labels))
    ks = sorted({1, 2, classes - 1})
    theirs = [reference.top_k_accuracy_score(labels, scores, k=k, labels=range(classes)) for k in ks]
    return far([top_k_accuracy(scores, labels, k) for k in ks], theirs)


def compare_roc_curve(case: Case) -> float:
    theirs = reference.roc_curve(*two_classes(case), drop_intermediate=False)
    return max(map(far, roc_curve(*two_classes(case)), theirs))


def compare_pr_curve(case: Case) -> float:
    """Theirs begins with the lowest threshold and has none for the point at recall 0."""
    precision, recall, thresholds = precision_recall_curve(*two_classes(case))
    theirs = reference.precision_recall_curve(*two_classes(case))
    return max(map(far, (precision[::-1], recall[::-1], thresholds[:0:-1]), theirs))


def compare_auc(average: str) -> Callable[[Case], float]:
    def compare(case: Case) -> float:
        labels, probabilities = case
        scores = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
        options = {} if scores.ndim == 1 else {"multi_class": "ovr"}
        return far(
            roc_auc(labels, probabilities, average=average),
            reference.roc_auc_score(labels, scores, average=average, **options),
        )

    return compare


def compare_average_precision(case: Case) -> float:
    labels, probabilities = case
    scores = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
    return far(average_precision(labels, probabilities), reference.average_precision_score(labels, scores))


def compare_mcnemar(case: Case) -> float:
    labels, probabilities = case
    first, second = probabilities.argmax(axis=1), np.roll(probabilities, 1, axis=0).argmax(axis=1)
    result = mcnemar(labels, first, second)
    tossed = result.only_first + result.only_second
    return far(result.p_value, binomtest(result.only_first, tossed, 0.5).pvalue if tossed else 1.0)


def compare_matrix(case: Case) -> float:
    labels, probabilities = case
    classes = range(probabilities.shape[1])
    return far(matrix_of(case), reference.confusion_matrix(labels, probabilities.argmax(axis=1), labels=classes))


METRICS: dict[str, Callable[[Case], float]] = {
    "accuracy": lambda c: far(accuracy(c[1].argmax(1), c[0]), reference.accuracy_score(c[0], c[1].argmax(1))),
    "confusion matrix": compare_matrix,
    "precision, recall, F1 of each class": lambda c: far(precision_recall_f1(matrix_of(c)), theirs_averaged(c, None)),
    "precision, recall, F1, macro": compare_averages("macro"),
    "precision, recall, F1, micro": compare_averages("micro"),
    "precision, recall, F1, weighted": compare_averages("weighted"),
    "top-k accuracy": compare_top_k,
    "ROC curve": compare_roc_curve,
    "AUC, two classes": lambda c: far(roc_auc(*two_classes(c)), reference.roc_auc_score(*two_classes(c))),
    "AUC, one against the rest, macro": compare_auc("macro"),
    "AUC, one against the rest, weighted": compare_auc("weighted"),
    "precision-recall curve": compare_pr_curve,
    "average precision, two classes": lambda c: far(
        average_precision(*two_classes(c)), reference.average_precision_score(*two_classes(c))
    ),
    "average precision, macro": compare_average_precision,
    "McNemar's p-value": compare_mcnemar,
}


def largest_differences(cases: int) -> Iterator[tuple[str, int, float]]:
    """(metric, cases, largest difference) for each metric."""
    made = [random_case(seed) for seed in range(cases)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that are never predicted
        for name, metric in METRICS.items():
            yield name, cases, max(map(metric, made))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    print(f"{'metric':<38}{'cases':>7}{'largest difference':>21}")
    for name, cases, difference in largest_differences(parser.parse_args().cases):
        print(f"{name:<38}{cases:>7,}{difference:>21.1e}")


if __name__ == "__main__":
    main()
