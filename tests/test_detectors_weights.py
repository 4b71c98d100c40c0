"""Where a detector's first weights come from: files that fit, files that do not, the library's download, and no network."""

import hashlib
import pickle
import re
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from detectors import DETECTORS, xception_parts
from detectors.base import Detector
from detectors.weights import ImageNet, load_weights
from optimizers.registry import RegistryError

torch.set_num_threads(1)
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


def without_storage(name, **settings):
    """The detector on the meta device: its shapes, but none of its numbers."""
    with torch.device("meta"):
        return DETECTORS.build(name, **settings)


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


def test_a_detector_keeps_what_was_loaded_and_names_every_key(library_file):
    path, state = library_file
    loaded = DETECTORS.build("resnet18", weights=str(path)).loaded
    assert (loaded.file, loaded.sha256) == (path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert loaded.tensors == len(state) - 2
    assert loaded.dropped == ("fc.weight", "fc.bias")
    assert loaded.fresh == ("head.weight", "head.bias")
    assert DETECTORS.build("resnet18").loaded is None


def test_what_stays_at_its_random_start_is_named_as_the_detector_names_it(tmp_path):
    own = DETECTORS.build("ucf", size=64)
    path = save(tmp_path, own.backbone["forgery"].body.state_dict())
    loaded = DETECTORS.build("ucf", size=64, weights=path).loaded
    body = {key for key in own.state_dict() if key.startswith(("backbone.forgery.body.", "backbone.content.body."))}
    assert loaded.tensors == len(body)
    assert set(loaded.fresh) == own.state_dict().keys() - body
    assert "backbone.forgery.adjust_channel.0.weight" in loaded.fresh


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


@pytest.mark.parametrize("name", ["spsl", "dfb-spsl", "f3net", "dfb-f3net", "srm", "ucf", "vit_b_16", "timm/test_convnext"])
def test_a_file_that_a_converter_cannot_read_is_refused_by_its_keys(name, tmp_path, library_file):
    path = save(tmp_path, {key: value for key, value in library_file[1].items() if key != "conv1.weight"})
    with torch.device("meta"), pytest.raises(RegistryError, match=r"does not fit .*\d+ missing \(.*\d+ unexpected \("):
        DETECTORS.build(name, weights=path, size=64)


def test_a_file_behind_data_parallelism_is_refused_by_its_keys(tmp_path):
    own = DETECTORS.build("spsl", size=64).state_dict()
    path = save(tmp_path, {f"module.{key}": value for key, value in own.items()})
    with pytest.raises(RegistryError, match=r"unexpected \(module\.backbone\.conv1\.weight, "):
        DETECTORS.build("spsl", size=64, weights=path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.to(torch.int8), "1 of another type (conv1.weight: int8 in the file, float32 here)"),
        (lambda value: value > 0, "1 of another type (conv1.weight: bool in the file, float32 here)"),
        (lambda value: torch.full_like(value, 1e300, dtype=torch.float64), "1 not finite (conv1.weight)"),
    ],
)
def test_numbers_that_are_no_weights_are_refused_by_name(change, said, tmp_path, library_file):
    path = save(tmp_path, library_file[1] | {"conv1.weight": change(library_file[1]["conv1.weight"])})
    with pytest.raises(RegistryError, match=re.escape(said)):
        DETECTORS.build("resnet18", weights=path)


@pytest.mark.parametrize("name", ["spsl", "f3net", "dfb-f3net"])
def test_a_converter_makes_no_weights_of_integers(name, tmp_path):
    state = xception_parts.body().state_dict()
    path = save(tmp_path, state | {"conv1.weight": state["conv1.weight"].to(torch.int8)})
    with torch.device("meta"), pytest.raises(RegistryError, match=r"of another type \(\S*conv1.weight: int8 in the file, float32"):
        DETECTORS.build(name, size=64, weights=path)


def test_spsl_names_the_blocks_that_it_has_no_use_for_and_refuses_others(tmp_path):
    state = xception_parts.body().state_dict() | {"fc.weight": torch.zeros(1000, 2048)}
    middle = {key for key in state if re.match(r"block([4-9]|10|11)\.", key)}
    loaded = DETECTORS.build("spsl", size=64, weights=save(tmp_path, state)).loaded
    assert set(loaded.dropped) == middle | {"fc.weight"}
    assert DETECTORS.build("dfb-spsl", size=64, weights=tmp_path / "state.pth").loaded.dropped == ("fc.weight",)
    path = save(tmp_path, state | {"block4.rubbish": torch.zeros(3), "block11.rep.99.weight": torch.zeros(2)})
    with pytest.raises(RegistryError, match=re.escape("of its keys 2 unexpected (block4.rubbish, block11.rep.99.weight)")):
        DETECTORS.build("spsl", size=64, weights=path)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_is_taken(kind, tmp_path, library_file):
    state = {key: value.to(kind) if value.is_floating_point() else value for key, value in library_file[1].items()}
    filled = DETECTORS.build("resnet18", weights=save(tmp_path, state)).backbone
    assert torch.equal(filled.conv1.weight, state["conv1.weight"].float())


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
    with pytest.raises(RegistryError, match=r"weights file \S+ is a folder"):
        DETECTORS.build("meso4", weights=tmp_path)
    with pytest.raises(RegistryError, match="holds a Tensor"):
        DETECTORS.build("meso4", weights=save(tmp_path, torch.zeros(3)))
    with pytest.raises(RegistryError, match="its epoch is no tensor"):
        DETECTORS.build("meso4", weights=save(tmp_path, {"epoch": 3}))


def test_a_flipped_byte_is_told_from_the_weights_that_were_saved(tmp_path):
    saved = DETECTORS.build("meso4", size=32)
    path = save(tmp_path, saved.state_dict())
    content = bytearray(path.read_bytes())
    content[content.index(saved.fc2.weight.detach().numpy().tobytes()[:32]) + 5] ^= 0x7F
    path.write_bytes(content)
    with pytest.raises(RegistryError, match=r"state\.pth is damaged: the checksum of its part 'state/data/\d+' is wrong; copy it"):
        DETECTORS.build("meso4", size=32, weights=path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("way", [torch.save, lambda state, path: save_file(state, path)])
def test_a_files_name_does_not_say_how_it_was_saved(name, way, tmp_path):
    saved = DETECTORS.build("meso4", size=32)
    way(saved.state_dict(), tmp_path / name)
    loaded = DETECTORS.build("meso4", size=32, weights=tmp_path / name)
    assert torch.equal(loaded.fc2.weight, saved.fc2.weight)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("~nosuchuser/x.pth", "~nosuchuser/x.pth: there is no user 'nosuchuser'; give the whole path"),
        ("dfb:~nosuchuser/x.pth", "there is no user 'nosuchuser'"),
        ("x" * 5000, "cannot be looked for (File name too long)"),
    ],
)
def test_a_path_that_cannot_be_is_one_sentence(path, said):
    with pytest.raises(RegistryError, match=re.escape(said)):
        DETECTORS.build("dfb-meso4", weights=path)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda value: value.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda value: value.to(torch.complex64), "complex64"),
        (lambda value: value.to_sparse(), "sparse_coo"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_refused(change, kind, tmp_path):
    state = DETECTORS.build("meso4", size=32).state_dict()
    path = save(tmp_path, state | {"fc2.weight": change(state["fc2.weight"])})
    with pytest.raises(RegistryError, match=rf"holds tensors that are no plain numbers \(fc2.weight: {kind}\); save dense"):
        DETECTORS.build("meso4", size=32, weights=path)


def test_imagenet_takes_the_file_from_torchs_cache(library_file, tmp_path, monkeypatch):
    path, state = library_file
    cls = DETECTORS.get("resnet18")
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    assert cls.imagenet.file == folder / "resnet18-f37072fd.pth"
    # The real file is not here: this one is published under its own hash.
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(cls, "imagenet", ImageNet(f"https://example.org/resnet18-{digest}.pth", cls.imagenet.head))
    folder.mkdir(parents=True)
    cached = path.rename(folder / f"resnet18-{digest}.pth")
    filled = DETECTORS.build("resnet18", weights="imagenet")
    assert torch.equal(filled.backbone.conv1.weight, state["conv1.weight"])
    cached.write_bytes(cached.read_bytes()[:1000])
    with pytest.raises(RegistryError, match=f"{cached.name} is not the file of that name, whose SHA-256 begins with {digest}"):
        DETECTORS.build("resnet18", weights="imagenet")


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
