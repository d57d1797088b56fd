"""Post-training quantization: activation ranges of a backbone's convolutions, and their int8 form in OpenVINO.

    ranges = observe(network, batches)     # {"layer1.0.conv2": (0.0, 2.31), ...}; stored in a model's config.json
    quantize_graph(graph, ranges)          # OpenVINO then computes these convolutions in 8-bit integers

Weights are symmetric with a scale per channel, activations asymmetric with a scale per layer (Nagel et al., "A White
Paper on Neural Network Quantization", arXiv:2106.08295, sections 2 and 3). Convolutions that read the picture or the
first convolution's output stay in full precision: they caused most of the error and take little of the time. The sum in
a residual block is not rounded again.

NNCF is not used: with these few lines the weights stay in the model's one file, the ranges are a few kilobytes of text,
and the flagship loses no accuracy (`python -m benchmarks.engine_agreement`), while NNCF's defaults cost 0.6 points
(measured at revision 4952669 with `twincar export --to int8`, which was removed since).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from twincar.modeling.networks.architectures import Network

if TYPE_CHECKING:
    import openvino

LEVELS = 256
UNQUANTIZED = 2  # inputs that stay in full precision, in the order in which convolutions read them
OUTLIERS = 0.01  # fraction of the pictures whose minimum, or maximum, may be outside a range
PREFIX = "__module.network."  # of OpenVINO's layer names in a traced `Backbone`
CONVOLUTIONS = ("Convolution", "GroupConvolution")  # with weights (O, I, h, w), and (G, O, I, h, w)

Ranges = dict[str, tuple[float, float]]


@torch.no_grad()
def observe(network: Network, batches: Iterable[Tensor]) -> Ranges:
    """Measure the range of every convolution's input, except those that stay in full precision.

    A range spans quantiles of the pictures' minima and maxima, so that a single unusual picture does not set it.

    Args:
        network: A network of `architectures.build`.
        batches: (N, 3, H, W) normalized images each.

    Returns:
        {name of the convolution: (low, high)}.
    """
    extremes: dict[str, list[Tensor]] = {}
    first: list[Tensor] = []

    def observer(name: str):
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if len(first) < UNQUANTIZED:
                first.append(inputs[0])
            if any(inputs[0] is excluded for excluded in first):
                return
            values = inputs[0].flatten(1)
            extremes.setdefault(name, []).append(torch.stack([values.amin(1), values.amax(1)], 1).cpu())

        return hook

    convolutions = ((name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d))
    hooks = [part.register_forward_pre_hook(observer(name)) for name, part in convolutions]
    try:
        for images in batches:
            network.forward_features(images)
            first.clear()
    finally:
        for hook in hooks:
            hook.remove()
    ranges = {}
    for name, ends in extremes.items():
        low, high = torch.cat(ends).unbind(1)
        bottom, top = min(float(low.quantile(OUTLIERS)), 0.0), max(float(high.quantile(1 - OUTLIERS)), 1e-6)
        ranges[name] = (float(f"{bottom:.5g}"), float(f"{top:.5g}"))
    return ranges


def quantize_graph(graph: "openvino.Model", ranges: Ranges) -> None:
    """Insert FakeQuantize operations before both inputs of every convolution in `ranges`, in place.

    Args:
        graph: Output of `openvino_engine.convert`.
        ranges: Output of `observe`.

    Raises:
        KeyError: The graph lacks a convolution of `ranges`.
    """
    from openvino import opset13

    left = set(ranges)
    for layer in graph.get_ordered_ops():
        name = layer.get_friendly_name().split("/")[0].removeprefix(PREFIX)
        if layer.get_type_name() not in CONVOLUTIONS or name not in left:
            continue
        pictures, weights = (layer.input(index).get_source_output() for index in (0, 1))
        left.discard(name)
        if (values := _constant(weights)) is None:  # computed in every run, so they cannot be quantized beforehand
            continue
        low, high = _align_to_zero(*ranges[name])
        inner = tuple(range(1 if layer.get_type_name() == "Convolution" else 2, values.ndim))
        limit = np.abs(values).max(axis=inner, keepdims=True).clip(1e-8)
        rounded = (
            opset13.fake_quantize(pictures, low, high, low, high, LEVELS),
            opset13.fake_quantize(weights, -limit, limit, -limit, limit, LEVELS - 1),
        )
        for index, source in enumerate(rounded):
            layer.input(index).replace_source_output(source.output(0))
    if left:
        raise KeyError(f"the graph has no convolutions {sorted(left)[:3]}")
    graph.validate_nodes_and_infer_types()


def _constant(weights: "openvino.Output") -> np.ndarray | None:
    """Values of a convolution's weights; None where they are computed in the graph."""
    node = weights.get_node()
    while node.get_type_name() in ("Reshape", "Unsqueeze", "Convert"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant":
        return None
    return node.get_data().astype(np.float32).reshape(tuple(weights.get_shape()))


def _align_to_zero(low: float, high: float) -> tuple[np.float32, np.float32]:
    """Shift a range by less than a step so that 0, the padding value, is exactly one of its levels."""
    step = (high - low) / (LEVELS - 1)
    below = round(-low / step)
    return np.float32(-below * step), np.float32((LEVELS - 1 - below) * step)
