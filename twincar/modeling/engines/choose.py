"""Choice of the fastest engine for a network's backbone on this machine.

    engine = choose(backbone, size=208)     # torch in half precision on CUDA and MPS; OpenVINO on CPUs
    output = engine.run(pictures)           # (N, 208, 208, 3) uint8 -> output.features, output.detections
    choose(backbone, 208, engine="openvino:f32"); choose(backbone, 208, engine="torch")
    choose(backbone, 208, engine="openvino:int8", ranges=ranges)    # activation ranges, see `int8.py`
    TWINCAR_ENGINE=torch python app.py      # the same choice through the environment

Only the backbone runs in an engine. The head stays in torch and in single precision: it takes about 1 % of the time,
and Grad-CAM++ and the logits then come from the same layers.

Results are the same for every engine up to rounding; `benchmarks/engine_agreement.py` measures the differences. A
network compiled by OpenVINO is compared with torch before its first use, and cached (`openvino_engine.py`).
"""

import logging
import os
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from twincar.config import TwinCarError
from twincar.modeling.engines import openvino_engine
from twincar.modeling.engines.backbone import Backbone
from twincar.modeling.engines.base import BatchingEngine, Engine, EngineError
from twincar.modeling.engines.int8 import Ranges
from twincar.modeling.engines.torch_engine import PRECISIONS, TorchEngine
from twincar.modeling.networks.architectures import Network

VARIABLE = "TWINCAR_ENGINE"
FORKED = "A forked process cannot use the {} of its parent"
ADVICE = "start processes with the method spawn, or load the model in each of them."


def choose(
    backbone: Backbone,
    size: int,
    device: str | torch.device | None = None,
    engine: str | None = None,
    ranges: Ranges | None = None,
) -> Engine:
    """Create the engine for a backbone.

    Args:
        backbone: The backbone. Its network, including the head, is moved to the engine's device.
        size: Side of its pictures in pixels.
        device: A torch device; by default CUDA, else Apple's MPS, else the CPU.
        engine: "torch" or "openvino", optionally with a precision ("torch:bf16", "openvino:f32", "openvino:int8"); by
            default that of TWINCAR_ENGINE, else torch on a GPU, and on a CPU OpenVINO where it is installed.
        ranges: Activation ranges of the network's convolutions, see `int8.py`; without them int8 is not available.

    Raises:
        EngineError: The requested engine is unknown, not installed or fails. One that was not requested and fails is
            skipped with a warning.
    """
    device = torch.device(device or best_device())
    wanted = engine or os.environ.get(VARIABLE) or ""
    name, _, precision = wanted.partition(":")
    if name not in ("", "torch", "openvino"):
        raise EngineError(f"There is no engine {wanted!r}: choose torch or openvino, or leave it unset.")
    if name == "openvino" and device.type != "cpu":
        raise EngineError(f"OpenVINO runs only on the CPU, not on {device.type}: choose device cpu or leave it unset.")
    if name != "torch" and device.type == "cpu":
        try:
            load = partial(openvino_engine.load, backbone.to(device), size, precision, ranges)
            return BatchingEngine(load(), partial(_reload, load))
        except ImportError as error:
            if name:
                raise EngineError("The engine openvino is not installed: pip install openvino.") from error
        except Exception as error:  # such as a network it cannot convert, or a processor it does not support
            if name:
                raise error if isinstance(error, TwinCarError) else EngineError(f"OpenVINO failed: {error}") from error
            logging.getLogger(__name__).warning("OpenVINO cannot run this network, using torch instead: %s", error)
    precision = precision or ("f32" if device.type == "cpu" else "f16")
    if precision not in PRECISIONS:
        raise EngineError(f"The torch engine has no precision {precision!r}: choose from {', '.join(PRECISIONS)}.")
    return BatchingEngine(TorchEngine(backbone, device, precision), None if device.type == "cpu" else _refuse)


def _reload(load: Callable[..., Engine]) -> Engine:
    """Load an OpenVINO engine in a forked process."""
    try:
        return load(threads=1)
    except Exception as error:  # such as weights that `release_weights` freed
        raise EngineError(f"{FORKED.format('engine')} ({error}): {ADVICE}") from error


def _refuse() -> Engine:
    raise EngineError(f"{FORKED.format('GPU')}: {ADVICE}")


def best_device() -> str:
    """Name of the fastest torch device: cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def limit_threads(engine: Engine) -> None:
    """Limit torch and OpenCV to one thread where the engine has threads of its own.

    For processes that only run inference: little is left for torch and OpenCV, and their spinning thread pools would
    take the engine's cores.
    """
    if engine.name.startswith("openvino"):
        import cv2

        torch.set_num_threads(1)
        cv2.setNumThreads(1)


@torch.no_grad()
def release_weights(engine: Engine, network: Network) -> None:
    """Free torch's weights of the backbone where the engine has its own copy; those of the head stay.

    For processes that only run inference: afterwards `network` can neither run on pictures nor be saved.
    """
    if not engine.name.startswith("openvino"):
        return
    head: set[nn.Module] = set()
    hooks = [part.register_forward_pre_hook(lambda part, _: head.add(part)) for part in network.modules()]
    network.forward_head(torch.zeros(1, network.width, 7, 7))
    for hook in hooks:
        hook.remove()
    for part in network.modules():
        if part not in head and not list(part.children()):
            part.to("meta")
