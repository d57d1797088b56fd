"""Opt-out of the usage statistics that libraries send by themselves. Imported first by the package."""

import os
import sys

# Each library reads its variable when it is imported or initialized. A variable that the user has set is kept.
VARIABLES = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime
    "RAY_USAGE_STATS_ENABLED": "0",
}


def opt_out() -> None:
    """Turn off the usage statistics of all libraries that the package imports, for this process and its children."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    # OpenVINO has no such variable, only a file in the user's home. Without this module it uses a stub instead.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
