"""The backbones one by one: what their papers fix, and what PIM and exact RoGA do to them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from efficientnet_pytorch import EfficientNet
from torch import nn

from detectors import DETECTORS
from detectors.base import Batch, Detector, Prediction
from detectors.contract import faces
from optimizers.registry import RegistryError

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]
BUILT_IN = sorted(
    [
        *("convnext_base", "convnext_tiny", "efficientnet_b0", "efficientnet_b4", "dfb-efficientnet_b4"),
        *("resnet10", "resnet18", "resnet34", "resnet50", "vit_b_16", "xception"),
        *("meso4", "mesoinception4", "dfb-meso4", "dfb-mesoinception4"),
    ]
)


def without_storage(name, **settings):
    """The detector on the meta device: its shapes, but none of its numbers."""
    with torch.device("meta"):
        return DETECTORS.build(name, **settings)


# ---- what is built


@pytest.mark.parametrize("name", DETECTORS.builtin())
def test_the_docstring_counts_the_parameters(name):
    said = re.search(r"Parameters(?: at \d+ px)?: ([\d,]+\d)", DETECTORS.get(name).__doc__)
    assert int(said.group(1).replace(",", "")) == sum(p.numel() for p in without_storage(name).parameters())


@pytest.mark.parametrize("size", [33, 64])
def test_efficientnet_pads_as_its_library_does(size):
    """Of a square of odd or even side; where opposite sides get the same, without a copy of the padded image."""
    ours = DETECTORS.build("efficientnet_b0", size=size).backbone.double().eval()
    library = EfficientNet.from_name("efficientnet-b0", include_top=False, image_size=size).double().eval()
    library.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(ours(images), library(images), rtol=1e-12, atol=1e-12)
    copied = {n for n, m in ours.named_modules() if isinstance(m, nn.ZeroPad2d)}
    assert copied < {n for n, m in library.named_modules() if isinstance(m, nn.ZeroPad2d)}
    for name in copied:
        left, right, top, bottom = ours.get_submodule(name).padding
        assert (left, top) != (right, bottom)


@pytest.mark.parametrize("name", BUILT_IN)
def test_default_size_and_normalization(name):
    detector = without_storage(name)
    assert detector.size == {"resnet10": 96, "vit_b_16": 224}.get(name, 256)
    assert (detector.mean, detector.std) == ((0.5,) * 3, (0.5,) * 3)


def test_imagenet_normalization():
    detector = without_storage("resnet18", normalization="imagenet")
    white = detector.normalize(torch.ones(1, 3, 1, 1, dtype=torch.float64)).flatten()
    assert white.tolist() == pytest.approx([(1 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)])


@pytest.mark.parametrize("normalization", ["imagenet", "half"])
def test_normalization_is_the_same_to_the_bit_in_any_layout_and_batch(normalization):
    detector = without_storage("resnet18", normalization=normalization)
    images = torch.rand(3, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (detector.mean, detector.std))
    for layout in (torch.contiguous_format, torch.channels_last):
        given = images.clone(memory_format=layout).requires_grad_()
        found = detector.normalize(given)
        assert torch.equal(found, (images - mean) / std)
        assert found.is_contiguous(memory_format=layout)
        assert torch.equal(detector.normalize(given[1:2]), found[1:2])
        found.sum().backward()
        assert torch.equal(given.grad, (1 / std).expand_as(images))


def test_meso4_is_the_papers():
    meso = without_storage("meso4")
    # The paper counts 27,977 parameters with one output; the second one adds its 16 weights and its bias.
    assert sum(p.numel() for p in meso.parameters()) == 27_977 + 17
    norms = [m for m in meso.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [n.num_features for n in norms] == [8, 8, 16, 16]
    assert without_storage("meso4", size=96).fc1.in_features == 16 * 3 * 3
    meso = DETECTORS.build("meso4", size=64)
    with pytest.raises(RegistryError, match="built for faces of 64 px and is given 96 x 32"):
        meso(torch.zeros(1, 3, 32, 96))


def test_convnext_is_pushed_where_the_pim_paper_says():
    detector = without_storage("convnext_base")
    first_stage = detector.backbone.features[1]
    assert detector.shallow == tuple(f"backbone.features.1.{i}" for i in range(3))
    assert len(first_stage) == 3
    assert first_stage[0].layer_scale.shape == (128, 1, 1)


@pytest.mark.parametrize("name", BUILT_IN)
def test_shallow_modules_share_the_first_resolution(name):
    # Our choice elsewhere: the first stage. All its modules see the same resolution, at least an eighth of the input's.
    detector = DETECTORS.build(name, size=64).eval() if name != "convnext_base" else without_storage(name, size=64).eval()
    sides = []
    for module in detector.shallow:
        detector.get_submodule(module).register_forward_hook(lambda _, __, output: sides.append(output.shape[2:]))
    detector(torch.zeros(1, 3, 64, 64, device=next(detector.parameters()).device))
    assert len(sides) == len(detector.shallow)
    assert len(set(sides)) == 1
    assert min(sides[0]) >= (4 if name == "vit_b_16" else 8)  # a transformer has one resolution, a sixteenth


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("meso4", {"size": 100}, "divisible by 32"),
        ("resnet18", {"size": 16}, "at least 32"),
        ("efficientnet_b4", {"size": 256.0}, "whole number of pixels"),
        ("resnet10", {"size": True}, "whole number of pixels"),
        ("resnet10", {"width": 0}, "channels"),
        ("xception", {"normalization": "imagnet"}, "did you mean 'imagenet'"),
        ("efficientnet_b4", {"dropout": 1.0}, "dropout is 1.0"),
        ("efficientnet_b4", {"drop_connect": -0.1}, "drop_connect is -0.1"),
        ("convnext_base", {"stochastic_depth": 2}, "stochastic_depth is 2"),
        ("resnet18", {"weights": None}, "weights is None"),
        ("resnet18", {"weight": "none"}, "did you mean 'weights'"),
        ("meso4", {"weights": "imagenet"}, "has no ImageNet weights"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(name, settings, said):
    with pytest.raises(RegistryError, match=re.escape(said)):
        DETECTORS.build(name, **settings)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -0.1, pytest.param(10**400, id="1e400"), True, "1"])
def test_weights_of_losses_and_margins_are_finite_numbers(value):
    for name in DETECTORS.builtin():
        for key, default in DETECTORS.settings(name).items():
            if isinstance(default, float):
                with (
                    torch.device("meta"),
                    pytest.raises(RegistryError, match=f"{key} is .*, but it must be a (finite number|probability)"),
                ):
                    DETECTORS.build(name, **{key: value})


def test_listing_imports_nothing():
    code = "import sys, detectors; assert detectors.DETECTORS.names(); assert not {'torch', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_building_is_silent_and_needs_no_network(tmp_path):
    # A fresh process, with nothing yet compiled of what comes after torch: that is when the libraries warn.
    code = f"""
import socket, sys, warnings
import torch, torchvision
def refuse(*args, **kwargs):
    raise AssertionError("the network was touched")
socket.socket = socket.create_connection = socket.getaddrinfo = refuse
warnings.simplefilter("error")
sys.pycache_prefix = {str(tmp_path)!r}
from detectors import DETECTORS
with torch.device("meta"):
    for name in DETECTORS.names():
        DETECTORS.build(name)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# ---- under PIM's hooks and exact double backward


def push(detector, shifts):
    """PIM's equations 8 and 9 on every shallow module: its channel statistics moved by the given shifts."""

    def hook(module, inputs, f):
        mean, std = f.mean((2, 3), keepdim=True), (f.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        d_mean, d_std = shifts.setdefault(module, (0.1 * torch.randn_like(mean[:1]), 0.1 * torch.randn_like(std[:1])))
        return (f - mean) / std * (std + d_std) + mean + d_mean

    return [detector.get_submodule(name).register_forward_hook(hook) for name in detector.shallow]


@pytest.mark.parametrize("name", ["meso4", "resnet10", "resnet18"])
def test_hessian_product_with_pushed_features_is_the_finite_difference(name):
    torch.manual_seed(0)
    detector = DETECTORS.build(name, size=32).double().train()
    batch = faces(32)
    batch = Batch(batch.images.double(), batch.labels, batch.domains, batch.videos)
    weights = list(detector.parameters())
    shifts = {}
    push(detector, shifts)

    def gradient(create_graph=False):
        torch.manual_seed(1)  # the same dropout masks
        loss = detector.loss(detector(batch.images), batch)
        return torch.autograd.grad(loss, weights, create_graph=create_graph)

    gradient()  # draws the shifts
    first = gradient(create_graph=True)
    norm = torch.sqrt(sum((g * g).sum() for g in first)).detach()
    direction = [g.detach() / norm for g in first]
    exact = torch.autograd.grad(sum((g * d).sum() for g, d in zip(first, direction, strict=True)), weights)

    step = 1e-7
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            for weight, d in zip(weights, direction, strict=True):
                weight.add_(d, alpha=sign * step)
        sides.append(gradient())
        with torch.no_grad():
            for weight, d in zip(weights, direction, strict=True):
                weight.sub_(d, alpha=sign * step)
    difference = [(up - down) / (2 * step) for up, down in zip(*sides, strict=True)]
    error = torch.sqrt(sum((e - d).square().sum() for e, d in zip(exact, difference, strict=True)))
    size = torch.sqrt(sum(e.square().sum() for e in exact))
    assert size > 0
    assert error < 1e-4 * size


@pytest.mark.parametrize("name", ["meso4", "resnet10", "resnet18"])
def test_gradient_of_a_push_is_the_finite_difference(name):
    torch.manual_seed(0)
    detector = DETECTORS.build(name, size=32).double().train()
    batch = faces(32)
    batch = Batch(batch.images.double(), batch.labels, batch.domains, batch.videos)
    shifts = {}
    push(detector, shifts)

    def loss():
        torch.manual_seed(1)
        return detector.loss(detector(batch.images), batch)

    loss()
    leaves = [shift.requires_grad_() for pair in shifts.values() for shift in pair]
    assert len(leaves) == 2 * len(detector.shallow)
    gradients = torch.autograd.grad(loss(), leaves)
    with torch.no_grad():
        for leaf, gradient in zip(leaves, gradients, strict=True):
            step = 1e-6 * gradient / gradient.norm()
            leaf.add_(step)
            up = loss()
            leaf.sub_(2 * step)
            down = loss()
            leaf.add_(step)
            assert (up - down).item() / 2e-6 == pytest.approx(gradient.norm().item(), rel=1e-4)


# ---- the types


def test_prediction_and_batch():
    batch = faces(4)
    assert len(batch) == 8
    fakes = batch.only(batch.labels == 1)
    assert fakes.labels.tolist() == [1] * 4
    assert fakes.videos.tolist() == [1, 3, 5, 7]
    assert batch.only(torch.tensor([2])).images.shape == (1, 3, 4, 4)
    assert batch.to("meta").images.device.type == "meta"
    prediction = Prediction(torch.tensor([[0.0, 0.0], [0.0, torch.inf], [3.0, -50.0]]), torch.zeros(3, 1))
    assert prediction.fake.isnan().tolist() == [
        False,
        True,
        False,
    ]  # an infinite logit shows; it is not dressed up as a probability
    assert prediction.fake[0] == 0.5


def test_the_default_loss_is_the_mean_cross_entropy():
    batch = faces(4).only(torch.tensor([0, 1]))
    prediction = Prediction(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.zeros(2, 1))
    expected = (-prediction.logits.log_softmax(1)[0, 0] - prediction.logits.log_softmax(1)[1, 1]) / 2
    assert Detector().loss(prediction, batch).item() == pytest.approx(expected.item())
