"""TwinCar: car make, model and year recognition with confidence and Grad-CAM evidence.

Example:
    from twincar import Predictor

    answer = Predictor.from_pretrained("models/twincar")("photo.jpg")
    print(answer.top(5))
    answer.overlay().save("why.png")
"""

from importlib import import_module
from typing import TYPE_CHECKING

from twincar.telemetry import opt_out

__version__ = "0.2.0"
__all__ = ["PhotoError", "Prediction", "Predictor"]
_PUBLIC = {
    "PhotoError": "twincar.features.photo",
    "Prediction": "twincar.modeling.inference.prediction",
    "Predictor": "twincar.modeling.inference.predictor",
}

if TYPE_CHECKING:
    from twincar.features.photo import PhotoError
    from twincar.modeling.inference.prediction import Prediction
    from twincar.modeling.inference.predictor import Predictor

opt_out()  # before any library is imported that would send usage statistics


def __getattr__(name: str) -> object:
    # Imported on first use: torch takes seconds to import, and `twincar --help` and the data tools do not need it.
    if module := _PUBLIC.get(name):
        return getattr(import_module(module), name)
    raise AttributeError(f"module 'twincar' has no attribute {name!r}")
