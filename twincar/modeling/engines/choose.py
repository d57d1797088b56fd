"""Chooses the fastest engine for a network's backbone on this machine.

    engine = choose(backbone, size=208)     # on CUDA or MPS torch in half precision; on a CPU OpenVINO, else torch
    output = engine.run(pictures)           # (N, 208, 208, 3) uint8 -> output.features, output.coverage
    choose(backbone, 208, engine="openvino:f32"); choose(backbone, 208, engine="torch")
    choose(backbone, 208, engine="openvino:int8", ranges=ranges)    # activation ranges, see `int8.py`
    TWINCAR_ENGINE=torch python app.py      # the same choice through the environment

Only the backbone runs in an engine. The head stays in torch and in single precision: it takes about 1 % of the time, and
Grad-CAM++ and the logits then come from the same layers.

Answers are the same for every engine up to rounding; `benchmarks/engine_agreement.py` measures the differences. A network that
OpenVINO compiled is compared with torch before its first use, and cached (`openvino_engine.py`).
"""

import logging
import os

import torch
from torch import nn

from twincar.config import TwinCarError
from twincar.modeling.engines import openvino_engine
from twincar.modeling.engines.backbone import Backbone
from twincar.modeling.engines.base import BatchingEngine, Engine, EngineError
from twincar.modeling.engines.int8 import Ranges
from twincar.modeling.engines.torch_engine import PRECISIONS, TorchEngine

VARIABLE = "TWINCAR_ENGINE"


def choose(
    backbone: Backbone,
    size: int,
    device: str | torch.device | None = None,
    engine: str | None = None,
    ranges: Ranges | None = None,
) -> Engine:
    """The engine for `trunk`, which reads `size` pixels. Its network itself, head and all, is moved to the engine's
    device.

    device : a torch device; by default CUDA, else Apple's MPS, else the CPU.
    engine : "torch" or "openvino", with a precision if need be ("torch:bf16", "openvino:f32", "openvino:int8"); by
        default what TWINCAR_ENGINE names, else torch on a GPU, and on a CPU OpenVINO where it is installed.
    ranges : of the network's convolutions, for computing them in 8 bits; without them nothing is.

    Raises EngineError where an engine was asked for that there is not. One that was not asked for and does not work is
    passed over with a warning.
    """
    device = torch.device(device or best_device())
    wanted = engine or os.environ.get(VARIABLE) or ""
    name, _, precision = wanted.partition(":")
    if name not in ("", "torch", "openvino"):
        raise EngineError(f"There is no engine {wanted!r}: choose torch or openvino, or leave it open.")
    if name == "openvino" and device.type != "cpu":
        raise EngineError(f"OpenVINO runs on the CPU here, not on {device.type}: leave the device open or say cpu.")
    if name != "torch" and device.type == "cpu":
        try:
            return BatchingEngine(openvino_engine.load(backbone.to(device), size, precision, ranges))
        except ImportError as error:
            if name:
                raise EngineError("The engine openvino is not installed: pip install openvino.") from error
        except Exception as error:  # a network that it cannot convert, a processor that it does not know
            if name:
                raise error if isinstance(error, TwinCarError) else EngineError(f"OpenVINO failed: {error}") from error
            logging.getLogger(__name__).warning("OpenVINO cannot run this network, so torch does: %s", error)
    precision = precision or ("f32" if device.type == "cpu" else "f16")
    if precision not in PRECISIONS:
        raise EngineError(f"torch has no precision {precision!r} here: choose from {', '.join(PRECISIONS)}.")
    return BatchingEngine(TorchEngine(backbone, device, precision))


def best_device() -> str:
    """torch's name of the fastest device: cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def limit_threads(engine: Engine) -> None:
    """For a process that answers and does not train: torch and OpenCV work in their caller's thread alone, where the
    network has threads of its own. What is left for them is small, and pools that spin would take its cores."""
    if engine.name.startswith("openvino"):
        import cv2

        torch.set_num_threads(1)
        cv2.setNumThreads(1)


@torch.no_grad()
def release_weights(engine: Engine, network: nn.Module) -> None:
    """For a process that answers and does nothing else: where the engine has the weights in a form of its own, torch's
    are given up, but for those of the head. `network` cannot run from pictures any more, nor be saved."""
    if not engine.name.startswith("openvino"):
        return
    of_head: set[nn.Module] = set()
    hooks = [part.register_forward_pre_hook(lambda part, _: of_head.add(part)) for part in network.modules()]
    network.forward_head(torch.zeros(1, network.width, 7, 7))
    for hook in hooks:
        hook.remove()
    for part in network.modules():
        if part not in of_head and not list(part.children()):
            part.to("meta")
