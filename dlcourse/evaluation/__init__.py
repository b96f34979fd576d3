"""What a trained model gets right and wrong: predictions, metrics, the mistakes themselves, and where it looked."""

from dlcourse.evaluation.calibration import (
    ReliabilityTable,
    TemperatureScaling,
    expected_calibration_error,
    fit_temperature,
    reliability_table,
)
from dlcourse.evaluation.comparison import (
    Comparison,
    Interval,
    PairedTest,
    bootstrap_interval,
    compare_models,
    mcnemar,
    wilson_interval,
)
from dlcourse.evaluation.curves import average_precision, precision_recall_curve, roc_auc, roc_curve
from dlcourse.evaluation.errors import WrongAnswer, misclassified, worst_mistakes
from dlcourse.evaluation.explain import grad_cam, occlusion
from dlcourse.evaluation.metrics import (
    accuracy,
    average_scores,
    classification_summary,
    confusion_matrix,
    precision_recall_f1,
    top_k_accuracy,
)
from dlcourse.evaluation.predictions import Predictions, predict_all
from dlcourse.evaluation.views import TestTimeAugmentation

__all__ = [
    "Comparison",
    "Interval",
    "PairedTest",
    "Predictions",
    "ReliabilityTable",
    "TemperatureScaling",
    "TestTimeAugmentation",
    "WrongAnswer",
    "accuracy",
    "average_precision",
    "average_scores",
    "bootstrap_interval",
    "classification_summary",
    "compare_models",
    "confusion_matrix",
    "expected_calibration_error",
    "fit_temperature",
    "grad_cam",
    "mcnemar",
    "misclassified",
    "occlusion",
    "precision_recall_curve",
    "precision_recall_f1",
    "predict_all",
    "reliability_table",
    "roc_auc",
    "roc_curve",
    "top_k_accuracy",
    "wilson_interval",
    "worst_mistakes",
]
