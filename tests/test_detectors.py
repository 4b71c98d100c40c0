"""The detectors one by one: what their papers fix, where their weights come from, and what PIM and exact RoGA do to them."""

import hashlib
import pickle
import re
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn

from detectors import DETECTORS
from detectors.base import Batch, Detector, Prediction
from detectors.contract import faces
from detectors.weights import ImageNet, load_weights
from optimizers.registry import RegistryError

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]
LIBRARY = {  # detector -> how its library names the network; pretrainedmodels calls its last layer otherwise than its files do
    "convnext_base": "convnext_base",
    "convnext_tiny": "convnext_tiny",
    "efficientnet_b0": "efficientnet-b0",
    "efficientnet_b4": "efficientnet-b4",
    "dfb-efficientnet_b4": "efficientnet-b4",
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "vit_b_16": "vit_b_16",
    "xception": "xception",
}
BUILT_IN = sorted([*LIBRARY, "meso4", "mesoinception4", "dfb-meso4", "dfb-mesoinception4", "resnet10"])


def without_storage(name, **settings):
    """The detector on the meta device: its shapes, but none of its numbers."""
    with torch.device("meta"):
        return DETECTORS.build(name, **settings)


# ---- what is built


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_docstring_counts_the_parameters(name):
    said = re.search(r"Parameters(?: at \d+ px)?: ([\d,]+\d)", DETECTORS.get(name).__doc__)
    assert int(said.group(1).replace(",", "")) == sum(p.numel() for p in without_storage(name).parameters())


@pytest.mark.parametrize("name", BUILT_IN)
def test_default_size_and_normalization(name):
    detector = without_storage(name)
    assert detector.size == {"resnet10": 96, "vit_b_16": 224}.get(name, 256)
    assert (detector.mean, detector.std) == ((0.5,) * 3, (0.5,) * 3)


def test_imagenet_normalization():
    detector = without_storage("resnet18", normalization="imagenet")
    white = detector.normalize(torch.ones(1, 3, 1, 1, dtype=torch.float64)).flatten()
    assert white.tolist() == pytest.approx([(1 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)])


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


# ---- first weights


@pytest.fixture
def library_file(tmp_path):
    """What a library would publish for ResNet-18: its own keys, with a 1000-class layer."""
    state = DETECTORS.build("resnet18").backbone.state_dict()
    state |= {"fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}
    path = tmp_path / "resnet18.pth"
    torch.save(state, path)
    return path, state


def save(tmp_path, state):
    torch.save(state, tmp_path / "state.pth")
    return tmp_path / "state.pth"


def test_a_library_file_fills_the_backbone(library_file):
    path, state = library_file
    filled = DETECTORS.build("resnet18", weights=str(path)).backbone.state_dict()
    assert filled.keys() == state.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, state[key]) for key, value in filled.items())


def test_files_without_batch_counters_load(tmp_path, library_file):
    old = {key: value for key, value in library_file[1].items() if "num_batches" not in key}
    filled = DETECTORS.build("resnet18", weights=save(tmp_path, old))
    assert torch.equal(filled.backbone.layer4[1].bn2.bias, old["layer4.1.bn2.bias"])


@pytest.mark.parametrize("name", ["meso4", "resnet18"])
def test_a_detectors_own_state_loads_whole(tmp_path, name):
    saved = DETECTORS.build(name, size=32)
    loaded = DETECTORS.build(name, size=32, weights=save(tmp_path, saved.state_dict()))
    assert all(torch.equal(value, saved.state_dict()[key]) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize("name", LIBRARY)
def test_the_1000_class_layer_is_the_one_that_is_dropped(name):
    # The library's own network has exactly the backbone's keys and those that `imagenet.head` names.
    cls = DETECTORS.get(name)
    import efficientnet_pytorch
    import pretrainedmodels
    import torchvision

    with torch.device("meta"):
        if name == "xception":
            own = set(pretrainedmodels.xception(pretrained=None).state_dict())
            published = own | {k.replace("last_linear", "fc") for k in own}
        elif "efficientnet" in name:
            published = set(efficientnet_pytorch.EfficientNet.from_name(LIBRARY[name]).state_dict())
        else:
            published = set(getattr(torchvision.models, LIBRARY[name])().state_dict())
    assert published == without_storage(name).backbone.state_dict().keys() | set(cls.imagenet.head)
    assert set(cls.imagenet.head) | set(cls.imagenet.fresh) <= published


class Small(Detector):
    """A net with a separable convolution like Xception's."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)


def test_a_pointwise_convolution_may_be_a_matrix(tmp_path):
    state = Small().backbone.state_dict()
    small = Small()
    load_weights(small, save(tmp_path, state | {"0.weight": state["0.weight"].flatten(1)}))
    assert torch.equal(small.backbone[0].weight, state["0.weight"])


def test_wrong_keys_and_shapes_are_named(tmp_path, library_file):
    state = library_file[1]
    del state["layer1.0.conv1.weight"]
    state |= {"layer9.weight": torch.zeros(1), "conv1.weight": torch.zeros(64, 1, 7, 7)}
    path = save(tmp_path, state)
    with pytest.raises(RegistryError) as error:
        DETECTORS.build("resnet18", weights=path)
    for said in (
        str(path),
        "1 missing (layer1.0.conv1.weight)",
        "1 unexpected (layer9.weight)",
        "1 of another shape (conv1.weight: (64, 1, 7, 7) in the file, (64, 3, 7, 7) here)",
    ):
        assert said in str(error.value)


def test_a_file_of_another_network_names_some_of_its_keys(library_file):
    with pytest.raises(RegistryError, match=r"\d+ missing \(.* and \d+ more\), \d+ unexpected \(.* more\)"):
        DETECTORS.build("xception", weights=library_file[0])


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path):
    torch.save({"conv1.weight": RunsCode(tmp_path / "pwned")}, tmp_path / "evil.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(RunsCode(tmp_path / "pwned")))
    for name in ("evil.pth", "raw.pth"):
        with pytest.raises(RegistryError, match=f"{name} is no plain state_dict"):
            DETECTORS.build("meso4", weights=tmp_path / name)
    assert not (tmp_path / "pwned").exists()


def test_files_that_are_no_state_dict(tmp_path):
    (tmp_path / "text.pth").write_text("not a torch file")
    (tmp_path / "empty.pth").touch()
    torch.save(DETECTORS.build("meso4").state_dict(), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:5000])
    for name in ("text.pth", "empty.pth", "cut.pth"):
        with pytest.raises(RegistryError, match=f"{name} is no plain state_dict"):
            DETECTORS.build("meso4", weights=tmp_path / name)
    with pytest.raises(RegistryError, match=r"missing\.pth does not exist"):
        DETECTORS.build("meso4", weights=tmp_path / "missing.pth")
    with pytest.raises(RegistryError, match="does not exist"):
        DETECTORS.build("meso4", weights=tmp_path)
    with pytest.raises(RegistryError, match="holds a Tensor"):
        DETECTORS.build("meso4", weights=save(tmp_path, torch.zeros(3)))
    with pytest.raises(RegistryError, match="its epoch is no tensor"):
        DETECTORS.build("meso4", weights=save(tmp_path, {"epoch": 3}))


def test_imagenet_takes_the_file_from_torchs_cache(library_file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    cached = DETECTORS.get("resnet18").imagenet.file
    assert cached == tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    library_file[0].rename(cached)
    filled = DETECTORS.build("resnet18", weights="imagenet")
    assert torch.equal(filled.backbone.conv1.weight, library_file[1]["conv1.weight"])


@pytest.mark.parametrize("name", LIBRARY)
def test_without_a_network_the_sentence_names_file_and_folder(name, tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    url = DETECTORS.get(name).imagenet.url
    with pytest.raises(RegistryError) as error:
        without_storage(name, weights="imagenet")
    said = str(error.value)
    assert f"put {url.rpartition('/')[2]} from {url} into {tmp_path / 'hub' / 'checkpoints'}" in said
    assert "or pass weights: PATH" in said
    assert "Name or service not known" in said


def test_a_download_is_checked_against_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    state = Small().backbone.state_dict() | {"fc.weight": torch.zeros(1000, 4)}
    published = save(tmp_path, state)
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    right, wrong = tmp_path / f"small-{digest[:8]}.pth", tmp_path / "small-00000000.pth"
    for copy in (right, wrong):
        copy.write_bytes(published.read_bytes())
    small = Small()
    load_weights(small, "imagenet", ImageNet(right.as_uri(), head=("fc.weight",)))
    assert torch.equal(small.backbone[0].weight, state["0.weight"])
    with pytest.raises(RegistryError, match="invalid hash value"):
        load_weights(small, "imagenet", ImageNet(wrong.as_uri(), head=("fc.weight",)))
    assert not ImageNet(wrong.as_uri(), head=()).file.exists()


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
