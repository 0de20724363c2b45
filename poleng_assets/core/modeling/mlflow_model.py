"""The registered model as MLflow runs it: a script, logged as code, so that no pickle is kept.

``mlflow.pyfunc.load_model("models:/poleng@champion").predict(frame)`` takes plain survey codes.
https://mlflow.org/docs/latest/ml/model/models-from-code/
"""

from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc import PythonModel

from poleng_assets.core.modeling.model import Model


class ServedModel(PythonModel):
    """Scores respondents and says whom to contact."""

    def load_context(self, context: Any) -> None:
        """Read the model from the version's artifacts."""
        self.model = Model.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return ``score`` (probability of the positive class) and ``contact`` for each row."""
        score = self.model.score(model_input)
        return pd.DataFrame(
            {"score": score, "contact": self.model.rule.decide(score)}, index=model_input.index
        )


mlflow.models.set_model(ServedModel())
