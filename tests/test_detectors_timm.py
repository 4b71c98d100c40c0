"""Any backbone of timm by name, and torchvision's ViT: sizes, weights, and where PIM pushes."""

import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision

from benchmark.objective import BatchObjective
from detectors import DETECTORS
from detectors.base import Batch
from detectors.contract import faces
from optimizers.features import FeatureShift
from optimizers.registry import RegistryError

torch.set_num_threads(1)


def save(path, state):
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("name", "size", "shallow"),
    [
        ("resnet10t", 176, ("backbone.layer1",)),
        ("test_convnext", 160, ("backbone.stages.0",)),
        ("test_vit", 160, ("backbone.patch_embed.proj",)),
        ("test_efficientnet", 160, ("backbone.blocks.0",)),
    ],
)
def test_a_model_of_timm_by_its_name(name, size, shallow):
    detector = DETECTORS.build(f"timm/{name}").eval()
    assert (detector.size, detector.shallow) == (size, shallow)
    shift = FeatureShift(detector, detector.shallow)
    assert list(shift.parts(shift.leaf)) == list(shallow)
    prediction = detector(torch.rand(1, 3, size, size))
    assert prediction.logits.shape == (1, 2)
    assert prediction.features.shape == (1, detector.head.in_features)


def test_pushed_modules_have_their_channels_in_front():
    # Swin's stages give (N, H, W, C): pushing those would push rows of the image.
    with torch.device("meta"):
        detector = DETECTORS.build("timm/swin_tiny_patch4_window7_224")
    assert detector.shallow == ("backbone.patch_embed.proj",)


@pytest.mark.parametrize(("name", "shallow"), [("vgg11", "backbone.features.1"), ("legacy_xception", "backbone.act2")])
def test_the_activation_that_ends_the_first_stage_is_pushed_where_no_module_is_the_stage(name, shallow):
    with torch.device("meta"):
        detector = DETECTORS.build(f"timm/{name}", size=96)
        assert detector.shallow == (shallow,)
        shift = FeatureShift(detector, detector.shallow)
    assert shift.leaf.shape == (2, 64)


# timm's tables name "block.0" of the one and "bn1" of the other.
@pytest.mark.parametrize(
    ("name", "shallow"), [("mvitv2_tiny", ("backbone.patch_embed.proj",)), ("mobilenetv5_base", ("backbone.blocks.0",))]
)
def test_a_table_of_feature_maps_may_name_modules_that_are_not_there(name, shallow):
    with torch.device("meta"):
        assert DETECTORS.build(f"timm/{name}").shallow == shallow


@pytest.mark.parametrize("name", ["hrnet_w18_small", "twins_svt_small"])
def test_a_model_without_channel_statistics_is_refused_by_pim(name):
    with torch.device("meta"):
        detector = DETECTORS.build(f"timm/{name}", size=64)
        features = detector(torch.zeros(1, 3, 64, 64)).features
    assert features.shape == (1, detector.head.in_features)
    assert detector.shallow == ()
    with pytest.raises(RegistryError, match=f"the detector timm/{name} names none"):
        FeatureShift(detector, detector.shallow)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("timm/resnet10x", {}, "timm has no model 'resnet10x': did you mean 'timm/resnet10t'?"),
        ("timm/resnet10t.c4_in1k", {}, "timm has no weights 'c4_in1k' of resnet10t: did you mean 'timm/resnet10t.c3_in1k'?"),
        ("tim/resnet10t", {}, "unknown detector 'tim/resnet10t'"),
        ("timm/resnet10t", {"sise": 64}, "did you mean 'size'?"),
        ("timm/resnet10t", {"size": 8}, "at least 32"),
        ("timm/resnet10t", {"normalization": "owm"}, "no normalization 'owm'"),
        ("timm/vit_base_patch16_clip_224.openai", {"weights": "imagenet", "size": 32}, "the tag 'openai' of"),
        ("timm/convnextv2_atto.fcmae", {"weights": "imagenet"}, "does not say that its weights are ImageNet's: use weights: pretr"),
        ("timm/tf_efficientnet_b0_ap", {}, "a name that timm no longer gives: use 'timm/tf_efficientnet_b0.ap_in1k'"),
        ("timm/ghostnet_050", {"weights": "pretrained"}, "has no ImageNet weights"),
        ("vit_b_16", {"size": 100}, "divisible by 16"),
    ],
)
def test_a_mistake_is_one_sentence(name, settings, said):
    with torch.device("meta"), pytest.raises(RegistryError, match=re.escape(said)):
        DETECTORS.build(name, **settings)


def test_normalisation_is_the_models_own_unless_said_otherwise():
    with torch.device("meta"):
        clip = DETECTORS.build("timm/vit_base_patch16_clip_224.openai", size=32)
        half = DETECTORS.build("timm/resnet10t", normalization="half")
    assert clip.mean == (0.48145466, 0.4578275, 0.40821073)
    assert (half.mean, half.std) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_timm_fills_the_backbone(suffix, tmp_path):
    state = timm.create_model("resnet10t").state_dict()
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    filled = DETECTORS.build("timm/resnet10t", weights=path).backbone.state_dict()
    assert filled.keys() == state.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, state[key]) for key, value in filled.items())


@pytest.mark.parametrize(
    "name",
    # A norm goes with the classifier, or an MLP; there are two classifiers; timm publishes nothing and names no classifier.
    ["efficientvit_m0", "caformer_s18", "repvit_m1", "levit_128s", "ghostnet_050"],
)
def test_all_that_goes_with_the_classifier_is_left_out(name, tmp_path):
    with torch.device("meta"):
        shapes = timm.create_model(name).state_dict()
        bare = timm.create_model(name, num_classes=0).state_dict().keys()
    path = save(tmp_path / "model.pth", {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in shapes.items()})
    loaded = DETECTORS.build(f"timm/{name}", weights=path).loaded
    assert (loaded.tensors, set(loaded.dropped)) == (len(bare), shapes.keys() - bare)
    assert loaded.fresh == ("head.weight", "head.bias")


def test_a_swin_file_of_before_timm_loads_and_one_of_timm(tmp_path):
    name = "swin_tiny_patch4_window7_224"
    with torch.device("meta"):
        shapes = timm.create_model(name).state_dict()
    own = {key: torch.zeros(value.shape) for key, value in shapes.items()}
    older = {
        re.sub(r"layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", key).replace(
            "head.fc.", "head."
        ): value
        for key, value in own.items()
    } | {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64)}
    for state, dropped in (
        (own, {"head.fc.weight", "head.fc.bias"}),
        (older, {"head.weight", "head.bias", "layers.0.blocks.0.attn.relative_position_index"}),
    ):
        loaded = DETECTORS.build(f"timm/{name}", weights=save(tmp_path / "swin.pth", state)).loaded
        assert (loaded.tensors, set(loaded.dropped)) == (len(own) - 2, dropped)


@pytest.mark.parametrize(
    ("theirs", "ours"), [("regnet_y_400mf", "regnety_004"), ("regnet_x_400mf", "regnetx_004_tv"), ("densenet121", "densenet121")]
)
def test_torchvisions_own_file_loads_into_timms_network_of_that_name(theirs, ours, tmp_path):
    network = torchvision.models.get_model(theirs).eval()
    state = network.state_dict()
    if theirs.startswith("densenet"):  # its published file is of 2017: other keys, and no batch counters
        renamed = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", key): value for key, value in state.items()}
        state = {key: value for key, value in renamed.items() if not key.endswith("num_batches_tracked")}
    detector = DETECTORS.build(f"timm/{ours}", size=64, weights=save(tmp_path / "file.pth", state)).eval()
    assert len(detector.loaded.dropped) == 2  # the classifier's

    for head in ("fc", "classifier"):
        if hasattr(network, head):
            setattr(network, head, torch.nn.Identity())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(detector.backbone(images), network(images), atol=1e-5)


def test_a_file_of_before_timm_is_read_by_the_function_that_the_models_builder_names(tmp_path):
    """DeiT III's own files call the layer scales gamma_1 and gamma_2; the function of timm's that reads them is told so."""
    own = timm.create_model("deit3_small_patch16_224", num_classes=0).state_dict()
    state = {re.sub(r"ls(\d)\.gamma", r"gamma_\1", key): torch.rand_like(value) for key, value in own.items()}
    assert any("gamma_1" in key for key in state)
    detector = DETECTORS.build("timm/deit3_small_patch16_224", weights=save(tmp_path / "deit3.pth", state))
    assert torch.equal(detector.backbone.blocks[3].ls2.gamma, state["blocks.3.gamma_2"])
    assert detector.loaded.dropped == ()


def test_a_clip_file_loads_and_its_text_tower_is_reported(tmp_path):
    own = timm.create_model("test_vit", num_classes=0).state_dict()
    renamed = {
        "cls_token": "class_embedding",
        "pos_embed": "positional_embedding",
        "patch_embed.proj": "conv1",
        "norm.": "ln_post.",
        "blocks.": "transformer.resblocks.",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv.": "attn.in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    clip = {}
    for key, value in own.items():
        for ours, theirs in renamed.items():
            key = key.replace(ours, theirs)
        clip[f"visual.{key}"] = value[0, 0] if key == "class_embedding" else value[0] if key == "positional_embedding" else value
    text = {"logit_scale": torch.tensor(1.0), "token_embedding.weight": torch.zeros(10, 512), "ln_final.bias": torch.zeros(512)}
    path = save(tmp_path / "open_clip_pytorch_model.bin", clip | {"visual.proj": torch.rand(64, 512)} | text)
    for size in (160, 64):
        detector = DETECTORS.build("timm/test_vit", size=size, weights=path)
        assert torch.equal(detector.backbone.blocks[1].mlp.fc1.weight, own["blocks.1.mlp.fc1.weight"])
        assert detector.loaded.tensors == len(own)
        assert set(detector.loaded.dropped) == {"visual.proj", *text}


def test_a_damaged_safetensors_file_is_refused(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(RegistryError, match=r"cut\.safetensors is no plain state_dict"):
        DETECTORS.build("timm/resnet10t", weights=tmp_path / "cut.safetensors")


def test_position_embeddings_of_another_size_are_interpolated(tmp_path):
    state = timm.create_model("test_vit").state_dict()
    path = save(tmp_path / "vit.pth", state)
    same = DETECTORS.build("timm/test_vit", weights=path).backbone
    assert torch.equal(same.pos_embed, state["pos_embed"])
    other = DETECTORS.build("timm/test_vit", size=64, weights=path).backbone
    assert other.pos_embed.shape[1] == 1 + (64 // 16) ** 2
    assert torch.equal(other.blocks[1].mlp.fc1.weight, state["blocks.1.mlp.fc1.weight"])


def test_torchvisions_vit_interpolates_the_position_embeddings_of_its_file(tmp_path):
    import torchvision

    with torch.device("meta"):
        shapes = {key: value.shape for key, value in torchvision.models.vit_b_16().state_dict().items()}
    state = {key: torch.rand(shape) for key, shape in shapes.items()}
    path = save(tmp_path / "vit_b_16-c867db91.pth", state)
    filled = DETECTORS.build("vit_b_16", size=64, weights=path).backbone.state_dict()
    assert filled.keys() == state.keys() - {"heads.head.weight", "heads.head.bias"}
    embedding = filled.pop("encoder.pos_embedding")
    assert all(torch.equal(value, state[key]) for key, value in filled.items())
    assert embedding.shape == (1, 1 + (64 // 16) ** 2, 768)
    assert torch.equal(embedding[:, 0], state["encoder.pos_embedding"][:, 0])  # the class token's has no place to move from


@pytest.mark.parametrize("embedding", [torch.zeros(197, 768), torch.zeros(1, 199, 768)])
def test_position_embeddings_that_cannot_be_interpolated_are_named(embedding, tmp_path):
    import torchvision

    with torch.device("meta"):
        shapes = {key: value.shape for key, value in torchvision.models.vit_b_16().state_dict().items()}
    state = {key: torch.zeros(shape) for key, shape in shapes.items()} | {"encoder.pos_embedding": embedding}
    path = save(tmp_path / "vit.pth", state)
    shape = re.escape(str((*embedding.shape,)))
    said = rf"vit\.pth does not fit ViTB16; of its keys 1 of another shape \(encoder.pos_embedding: {shape} in the file"
    with torch.device("meta"), pytest.raises(RegistryError, match=said):
        DETECTORS.build("vit_b_16", size=64, weights=path)


def test_a_file_of_another_network_is_refused_by_the_names_of_its_keys(tmp_path):
    path = save(tmp_path / "resnet.pth", timm.create_model("resnet10t").state_dict())
    for name in ("timm/test_vit", "vit_b_16"):
        with torch.device("meta"), pytest.raises(RegistryError, match=r"does not fit .* missing \(.* unexpected \("):
            DETECTORS.build(name, size=64, weights=path)


def test_without_the_hub_the_sentence_names_file_and_folder_and_a_file_there_is_taken(tmp_path, monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(RegistryError) as error:
        DETECTORS.build("timm/test_vit", weights="imagenet")
    url = "https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors"
    folder = tmp_path / "hub" / "checkpoints"
    assert f"put {url} as timm--test_vit.r160_in1k.safetensors into {folder}" in str(error.value)
    from safetensors.torch import save_file

    state = timm.create_model("test_vit").state_dict()
    folder.mkdir(parents=True)
    save_file(state, folder / "timm--test_vit.r160_in1k.safetensors")
    filled = DETECTORS.build("timm/test_vit", weights="pretrained").backbone
    assert torch.equal(filled.norm.weight, state["norm.weight"])


def test_the_hubs_client_is_asked_for_the_repositorys_file(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    state = timm.create_model("resnet10t").state_dict()

    def download(*wanted):
        asked.append(wanted)
        return str(save(Path(tmp_path) / "model.pth", state))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    DETECTORS.build("timm/resnet10t.c3_in1k", weights="imagenet")
    assert asked == [("timm/resnet10t.c3_in1k", "model.safetensors")]


def test_a_transformer_has_a_hessian():
    """The fast ways to compute attention have no second derivative; `hessian_product` takes the one that has."""
    torch.manual_seed(0)
    detector = DETECTORS.build("timm/test_vit", size=32).double().train()
    batch = faces(32)
    batch = Batch(batch.images.double(), batch.labels, batch.domains, batch.videos)
    objective = BatchObjective(detector, [batch])
    g = objective.gradient()
    direction = 1 / float(g.norm()) * g
    exact = objective.hessian_product(direction)
    step = 1e-6
    difference = 1 / (2 * step) * (objective.gradient(at=step * direction) - objective.gradient(at=-step * direction))
    assert float((exact - difference).norm()) < 1e-5 * float(exact.norm())
