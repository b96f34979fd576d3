"""What a trained model gets right and wrong: predictions, metrics, and the mistakes themselves."""

from dlcourse.evaluation.errors import misclassified
from dlcourse.evaluation.metrics import Predictions, accuracy, classification_summary, confusion_matrix, predict_all
from dlcourse.evaluation.views import TestTimeAugmentation

__all__ = ["Predictions", "TestTimeAugmentation", "accuracy", "classification_summary", "confusion_matrix", "misclassified", "predict_all"]
