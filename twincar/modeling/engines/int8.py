"""A trunk's convolutions in 8-bit integers: where their inputs lie, and OpenVINO's graph rounded to 256 steps of that.

    ranges = observe(network, batches)     # {"layer1.0.conv2": (0.0, 2.31), ...}; kept in a model's config.json
    round_graph(graph, ranges)             # then OpenVINO computes these convolutions in integers

Post-training quantisation with symmetric weights, a scale a channel, and asymmetric activations, a scale a layer
(Nagel et al., "A White Paper on Neural Network Quantization", arXiv:2106.08295, sections 2 and 3). What reads the
picture, or what the first convolution makes of it, stays as it is: most of the error came from there, and hardly any of
the time goes there. What a residual block adds is not rounded a second time.

By hand, and not by NNCF: the weights stay in the one file that a model has, the ranges are a few kilobytes of text, and
nothing of the flagship's accuracy is lost (`python -m benchmarks.engine_agreement`), where NNCF's defaults cost 0.6 points
(`twincar export --to int8` of revision 4952669).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import openvino

STEPS = 256
EXACT = 2  # inputs that are not rounded, the first ones that convolutions read
OUTLIERS = 0.01  # share of the pictures whose lowest, or highest, values may lie outside
SCOPE = "__module.network."  # what OpenVINO's names of a traced `Trunk` begin with
KINDS = ("Convolution", "GroupConvolution")  # with weights (O, I, h, w), and (G, O, I, h, w)

Ranges = dict[str, tuple[float, float]]


@torch.no_grad()
def observe(network: nn.Module, batches: Iterable[Tensor]) -> Ranges:
    """{name of a convolution: (low, high)} of what goes into it when `network` reads these (N, 3, H, W) batches, but
    for those that stay as they are. Quantiles of a picture's own extremes: one odd picture does not set them.
    """
    seen: dict[str, list[Tensor]] = {}
    first: list[Tensor] = []

    def look_at(name: str):
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if len(first) < EXACT:
                first.append(inputs[0])
            if any(inputs[0] is exact for exact in first):
                return
            values = inputs[0].flatten(1)
            seen.setdefault(name, []).append(torch.stack([values.amin(1), values.amax(1)], 1).cpu())

        return hook

    convolutions = ((name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d))
    hooks = [part.register_forward_pre_hook(look_at(name)) for name, part in convolutions]
    try:
        for images in batches:
            network.forward_features(images)
            first.clear()
    finally:
        for hook in hooks:
            hook.remove()
    ranges = {}
    for name, ends in seen.items():
        low, high = torch.cat(ends).unbind(1)
        bottom, top = min(float(low.quantile(OUTLIERS)), 0.0), max(float(high.quantile(1 - OUTLIERS)), 1e-6)
        ranges[name] = (float(f"{bottom:.5g}"), float(f"{top:.5g}"))
    return ranges


def round_graph(graph: "openvino.Model", ranges: Ranges) -> None:
    """Put a rounding in front of both inputs of every convolution that `ranges` names, in place.

    graph : what `compiled.convert` gave. Raises KeyError for names that are not in it.
    """
    from openvino import opset13

    left = set(ranges)
    for layer in graph.get_ordered_ops():
        name = layer.get_friendly_name().split("/")[0].removeprefix(SCOPE)
        if layer.get_type_name() not in KINDS or name not in left:
            continue
        pictures, weights = (layer.input(index).get_source_output() for index in (0, 1))
        left.discard(name)
        if (values := _constant(weights)) is None:  # made from others each time: nothing to round beforehand
            continue
        low, high = _with_a_step_at_zero(*ranges[name])
        inner = tuple(range(1 if layer.get_type_name() == "Convolution" else 2, values.ndim))
        limit = np.abs(values).max(axis=inner, keepdims=True).clip(1e-8)
        rounded = (
            opset13.fake_quantize(pictures, low, high, low, high, STEPS),
            opset13.fake_quantize(weights, -limit, limit, -limit, limit, STEPS - 1),
        )
        for index, source in enumerate(rounded):
            layer.input(index).replace_source_output(source.output(0))
    if left:
        raise KeyError(f"the graph has no convolutions {sorted(left)[:3]}")
    graph.validate_nodes_and_infer_types()


def _constant(weights: "openvino.Output") -> np.ndarray | None:
    """The numbers of a convolution's weights; None where they are computed."""
    node = weights.get_node()
    while node.get_type_name() in ("Reshape", "Unsqueeze", "Convert"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant":
        return None
    return node.get_data().astype(np.float32).reshape(tuple(weights.get_shape()))


def _with_a_step_at_zero(low: float, high: float) -> tuple[np.float32, np.float32]:
    """The range moved by less than a step, so that 0, which borders are filled with, is one of its steps."""
    step = (high - low) / (STEPS - 1)
    below = round(-low / step)
    return np.float32(-below * step), np.float32((STEPS - 1 - below) * step)
