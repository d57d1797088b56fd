"""Every network follows timm's contract: one pass, features, then logits."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from twincar.features.transforms import CLAHE, augmentation
from twincar.modeling.networks import architectures, weights
from twincar.modeling.networks.architectures import COSINE_SCALE
from twincar.modeling.networks.losses import AngularMargin
from twincar.modeling.training.lightning_module import CarClassifier
from twincar.modeling.training.recipes import RECIPES, Recipe

# A torchvision network, and small backbones of timm: a ResNet, an EfficientNet, a ResNeSt, a network with layers
# between pooling and classifier, a transformer with a class token, one with channels-last features, one without groups
# of layers.
BACKBONES = {
    "resnet18": 512,
    "timm/resnet10t": 512,
    "timm/tf_efficientnet_lite0": 1280,
    "timm/resnest14d": 2048,
    "timm/mobilenetv3_small_050": 288,
    "timm/vit_tiny_patch16_224": 192,
    "timm/swin_tiny_patch4_window7_224": 768,
    "timm/poolformer_s12": 512,
}


@pytest.mark.parametrize("name", BACKBONES)
def test_the_contract(name):
    torch.manual_seed(0)
    network = architectures.build(name, 7).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features = network.forward_features(images)
        logits = network.forward_head(features)
        assert torch.equal(network(images), logits)
        finer, again = network.forward_intermediates(images)
    assert torch.equal(again, features)
    if "vit" in name:  # has one stride
        assert torch.equal(finer, features)
    else:
        assert finer.shape[2:] == (4, 6)
    assert features.shape[:2] == (2, BACKBONES[name])
    assert features.ndim == 4 and features.shape[2] < features.shape[3], "rows and columns are not swapped"
    assert logits.shape == (2, 7)
    features.requires_grad_(True)
    network.forward_head(features)[:, 3].sum().backward()
    assert features.grad.abs().sum() > 0, "Grad-CAM++ needs a gradient of the head alone"
    stages = {network.stage(key) for key, _ in network.named_parameters()}
    assert {"conv1", "layer1", "layer4", "fc"} <= stages
    assert stages <= {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "timm/tf_efficientnet_lite0", "resnet18"])
def test_frozen_stages_do_not_change(name):
    recipe = Recipe("half", "", architecture=name, frozen=("conv1", "bn1", "layer1", "layer2"))
    network = architectures.build(num_classes=3, **recipe.network())
    module = CarClassifier(network, recipe, 3)
    free = {network.stage(key) for key, value in network.named_parameters() if value.requires_grad}
    assert free == {"layer3", "layer4", "fc"}
    before = {key: value.clone() for key, value in network.state_dict().items()}
    module.set_modes()
    network(torch.rand(4, 3, 64, 64))
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    moved = {network.stage(key.rsplit(".", 1)[0] + ".weight") for key in moved}  # running statistics belong to a weight
    assert moved <= free


@pytest.mark.parametrize("heads", [1, 4])
def test_bilinear_pooling_is_the_outer_product_of_features(heads):
    torch.manual_seed(2)
    network = architectures.build("resnet18", 5, head="bilinear", attention_heads=heads).eval()
    nn.init.constant_(network.attention.gamma, 0.7)  # at the initial 0 attention is the identity
    features = network.forward_features(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, 512, 2, 2)
    places = network.reduce(features).flatten(2).transpose(1, 2)  # (2, 4, 512)
    pooled = torch.stack([torch.einsum("pi,pj->ij", x, x) / 4 for x in places]).flatten(1)
    pooled = pooled.sign() * (pooled.abs() + 1e-5).sqrt()
    expected = network.fc(pooled / pooled.norm(dim=1, keepdim=True))
    torch.testing.assert_close(network.forward_head(features), expected, atol=1e-4, rtol=1e-3)
    network.forward_head(torch.zeros(1, 512, 2, 2, requires_grad=True)).sum().backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in network.parameters())


def test_attention_mixes_positions_and_starts_as_the_identity():
    torch.manual_seed(3)
    attention = architectures.SelfAttention(16, key_channels=8, heads=2)
    x = torch.randn(2, 16, 3, 3)
    assert torch.equal(attention(x), x)
    nn.init.ones_(attention.gamma)
    q, k, v = (layer(x).flatten(2) for layer in (attention.query, attention.key, attention.value))
    expected = torch.cat(
        [
            v[:, 8 * h : 8 * h + 8]
            @ (q[:, 4 * h : 4 * h + 4].transpose(1, 2) @ k[:, 4 * h : 4 * h + 4] / 2).softmax(2).transpose(1, 2)
            for h in range(2)
        ],
        1,
    )
    torch.testing.assert_close(attention(x), x + expected.unflatten(2, (3, 3)))
    with pytest.raises(ValueError, match="do not divide"):
        architectures.SelfAttention(16, key_channels=8, heads=3)


def test_unknown_names():
    with pytest.raises(ValueError, match="no network 'resnet51'"):
        architectures.build("resnet51", 3)
    with pytest.raises(ValueError, match="timm has no backbone 'resnet51'"):
        architectures.build("timm/resnet51", 3)
    with pytest.raises(ValueError, match="no head"):
        architectures.build("resnet18", 3, head="crown")


def test_start_weights_of_timm_and_of_other_names_in_the_same_order(tmp_path):
    torch.manual_seed(4)
    name = "timm/tf_efficientnet_lite0"
    source = architectures.build(name, 9).backbone.state_dict()
    classifier = {"classifier.weight": torch.zeros(9, 1280), "classifier.bias": torch.zeros(9)}
    save_file(source | classifier, tmp_path / "timm.safetensors")
    renamed = {f"_{number:04}": value for number, value in enumerate((source | classifier).values())}
    torch.save(renamed, tmp_path / "renamed.pth")
    for file in ("timm.safetensors", "renamed.pth"):
        network = architectures.build(name, 3)
        weights.initialize(network, str(tmp_path / file), name)
        assert all(torch.equal(value, source[key]) for key, value in network.backbone.state_dict().items())
    torch.save(dict(list(renamed.items())[5:]), tmp_path / "short.pth")
    with pytest.raises(weights.WeightsError, match="do not fit"):
        weights.initialize(architectures.build(name, 3), str(tmp_path / "short.pth"), name)


def test_a_resnets_weights_start_the_backbone_of_the_bilinear_network(tmp_path):
    source = architectures.build("resnet18", 1000)
    save_file(source.state_dict(), tmp_path / "resnet18.safetensors")
    network = architectures.build("resnet18", 3, head="bilinear")
    weights.initialize(network, str(tmp_path / "resnet18.safetensors"), "resnet18")
    assert torch.equal(network.backbone.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet10t", "timm/tf_efficientnet_lite0", "timm/resnetv2_50"])
def test_start_weights_are_rescaled_for_the_learning_rates(name, tmp_path):
    """The output stays the same; in pre-activation networks nothing changes."""
    torch.manual_seed(0)
    source = architectures.build(name, 3)
    backbone = getattr(source, "backbone", source)
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):  # statistics as after a training
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
    save_file(backbone.state_dict(), tmp_path / "start.safetensors")
    networks = [architectures.build(name, 3).eval() for _ in range(2)]
    for network, rms in zip(networks, (None, 0.2), strict=True):
        weights.initialize(network, str(tmp_path / "start.safetensors"), name, rms)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, features = (network.forward_features(images) for network in networks)
    assert (features - expected).norm() < 0.02 * expected.norm()
    rescaled = [
        float(layer.weight.square().mean().sqrt())
        for layer in networks[1].modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    ]
    assert rescaled == pytest.approx([0.2] * len(rescaled), rel=1e-3) or name == "timm/resnetv2_50"
    assert torch.equal(features, expected) == (name == "timm/resnetv2_50")
    assert not networks[1].training


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 1.5), st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.integers(0, 2))
def test_the_margin_is_added_to_the_angle_of_the_true_class_only(margin, cosines, label):
    logits = COSINE_SCALE * torch.tensor([cosines])
    widened = AngularMargin(margin)(logits, torch.tensor([label]))
    others = [other for other in range(3) if other != label]
    assert torch.equal(widened[0, others], logits[0, others])
    angle = math.acos(max(-1, min(1, cosines[label])))
    if angle + margin <= math.pi - 1e-2:
        assert widened[0, label] == pytest.approx(COSINE_SCALE * math.cos(angle + margin), abs=0.1)
    assert widened[0, label] <= logits[0, label] + 0.1


def test_a_cosine_head_is_bounded_and_trains_with_a_margin():
    torch.manual_seed(5)
    head = architectures.CosineLinear(8, 4)
    features, labels = torch.randn(64, 8), torch.arange(64) % 4
    features += 3 * torch.nn.functional.one_hot(labels, 8)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(AngularMargin(0.3)(head(features), labels), labels).backward()
        optimizer.step()
    logits = head(features)
    assert logits.abs().max() <= COSINE_SCALE + 1e-3
    assert logits.argmax(1).eq(labels).float().mean() > 0.9


def test_clahe_is_opencvs_on_lightness():
    picture = np.random.default_rng(0).integers(60, 120, (64, 64, 3), dtype=np.uint8)
    torch.manual_seed(1)
    ours = CLAHE()(torch.from_numpy(picture).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    torch.manual_seed(1)
    limit = CLAHE().make_params([])["clip_limit"]
    assert 1 <= limit <= 4
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(limit, (8, 8)).apply(lab[..., 0].copy())
    assert (ours == cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)).all()
    assert ours.std() > picture.std(), "it increases the contrast"


def test_coarse_dropout_is_one_black_square():
    recipe = Recipe("hole", "", crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), hole=1.0)
    black = (augmentation(recipe, 224)(torch.full((3, 224, 224), 200, dtype=torch.uint8)) == 0).all(0)
    rows, columns = black.any(1).nonzero(), black.any(0).nonzero()
    assert black.sum() == 32 * 32
    assert rows.max() - rows.min() == columns.max() - columns.min() == 31


def test_facts_of_the_original_systems():
    """As their authors describe them."""
    bilinear = architectures.build(num_classes=196, **RECIPES["bilinear"].network())
    assert bilinear.fc[1].weight.shape == (196, 512 * 512)
    assert bilinear.fc[0].p == 0.6
    assert bilinear.attention.query.out_channels == 256 and bilinear.attention.value.out_channels == 2048
    rates = RECIPES["bilinear"].learning_rates
    rate = {stage: next(rate for prefix, rate in rates if stage.startswith(prefix))
            for stage in ("layer1", "layer2", "layer4", "attention", "reduce", "fc")}  # fmt: skip
    assert rate == {"layer1": 1e-5, "layer2": 1e-4, "layer4": 1e-4, "attention": 1e-4, "reduce": 1e-4, "fc": 1e-3}
    stages = {bilinear.stage(key) for key, _ in bilinear.named_parameters()}
    assert stages == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "attention", "reduce", "fc"}
    report = architectures.build(num_classes=196, **RECIPES["report"].network())
    assert [type(layer).__name__ for layer in report.fc] == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert (report.fc[0].p, report.fc[3].p, report.fc[1].in_features) == (0.3, 0.2, 2048)
    scratch = architectures.build(num_classes=196, **RECIPES["scratch"].network())
    assert 11.2e6 < sum(value.numel() for value in scratch.parameters()) < 11.4e6
    assert scratch.fc[0].p == 0.5
