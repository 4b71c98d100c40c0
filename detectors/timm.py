"""Any backbone of timm (Wightman, "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models)."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from timm.models import _builder as builder
from timm.models import get_deprecated_models
from torch import nn

from detectors.about import About
from detectors.backbone import BackboneDetector, face_size
from detectors.weights import ImageNet, State, log
from optimizers.registry import RegistryError


class TimmBackbone(BackboneDetector):
    """A model of timm behind `backbone`, without its classifier, under the name `timm/<model>` or `timm/<model>.<weights' tag>`.

    Faces of as many px as the model's own configuration says by default (`timm/resnet10t`: 176 px). A network whose input is fixed,
    such as a transformer with position embeddings, is built for `size`, and timm interpolates the embeddings of its file.
    Pooling is the model's own. Normalised by the mean and std of the model's own configuration, CLIP's for CLIP, unless said
    otherwise.

    PIM's insertion point, our choice, is the first module of the network that timm's own table of feature maps names, where its
    output is (N, C, H, W) and a convolution is in it; else the patch embedding, if it is a convolution (see `vit_b_16`); else the
    first such module without a convolution, as VGG's ReLUs are, which end its stages; else there is none, and PIM refuses this
    detector.

    Args:
        size: side of the faces in px; none: the model's own.
        weights: "none"; "pretrained", what timm publishes under the tag (of the default tag, where none is given); "imagenet",
            the same, where the tag says that it is ImageNet's; or the path of a file of timm or of this detector.
        normalization: "own", "half" (mean and std 0.5) or "imagenet".
        dropout: probability that a feature is zeroed in front of the last layer while training.

    Raises:
        RegistryError: a setting that cannot be, a size that the model does not take, or a file that does not fit.
    """

    model: ClassVar[str]

    def __init__(
        self, size: int | None = None, weights: str | Path = "none", normalization: str = "own", dropout: float = 0.0
    ) -> None:
        name, own = type(self).__name__, _configuration(self.model)
        side = face_size(name, own["input_size"][-1] if size is None else size)
        fixed: dict[str, Any] = {"img_size": side} if own.get("fixed_input_size") else {}
        try:
            features, shallow = _probe(self.model, side, fixed)
            backbone = timm.create_model(self.model, pretrained=False, num_classes=0, **fixed)
        except Exception as error:  # a thousand models, each with its own way of saying what it cannot take
            raise RegistryError(f"{name} cannot be built for faces of {side} px ({type(error).__name__}: {error})") from error
        chosen = _chosen_weights(name, weights, own)
        half = "half" if normalization == "own" else normalization
        super().__init__(backbone, features, self.imagenet, side, chosen, half, dropout)
        self.shallow = shallow
        if normalization == "own":
            self.mean, self.std = tuple(own["mean"]), tuple(own["std"])


def family(model: str) -> type[TimmBackbone]:
    """The detector class of one of timm's models.

    Raises:
        RegistryError: timm has no such model, or no such tag of it; the sentence holds the nearest name, or today's.
    """
    architecture, _, tag = model.partition(".")
    if architecture in (renamed := get_deprecated_models()):
        today = f"use 'timm/{renamed[architecture]}'" if renamed[architecture] else "it has no successor there"
        raise RegistryError(f"'{architecture}' is a name that timm no longer gives: {today}")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=1, cutoff=0.5)
        hint = f"did you mean 'timm/{near[0]}'? " if near else ""
        raise RegistryError(f"timm has no model '{architecture}': {hint}`timm.list_models()` names all {len(timm.list_models())}")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        near = difflib.get_close_matches(tag, tags, n=1, cutoff=0.3)
        hint = f"did you mean 'timm/{architecture}.{near[0]}'? " if near else ""
        raise RegistryError(f"timm has no weights '{tag}' of {architecture}: {hint}Known: {', '.join(sorted(tags)) or 'none'}")
    own = _configuration(model)
    hub, url = own.get("hf_hub_id"), own.get("url")
    about = About(
        title=model,
        paper=f"see https://huggingface.co/{hub}" if hub else "see timm's documentation",
        year=None,
        backbone=f"{model}, timm",
        pooling="the model's own",
        insertion="the first stage or the patch embedding, if there is one (our choice)",
    )
    # timm's own functions look at a file's classifier to tell older keys from newer ones, so it is they that get the whole file.
    convert = partial(_converted, architecture)
    published = ImageNet(url or "", head=(), convert=convert)
    if hub:
        file = own.get("hf_hub_filename") or "model.safetensors"
        published = HubFile(f"https://huggingface.co/{hub}/resolve/main/{file}", head=(), convert=convert, hub=hub)
    fields = {"model": model, "about": about, "imagenet": published, "__doc__": TimmBackbone.__doc__, "__module__": __name__}
    return type(f"timm/{model}", (TimmBackbone,), fields)


@dataclass(frozen=True)
class HubFile(ImageNet):
    """A file on the Hugging Face hub, kept in the hub's own cache, whose contents the hub's client checks by their hash.

    Attributes:
        hub: the repository.
    """

    hub: str = ""

    @property
    def file(self) -> Path:
        """Where a file is looked for that was brought here by hand: torch's cache, under a name that says whose it is."""
        name = Path(self.url).name
        return Path(torch.hub.get_dir()) / "checkpoints" / f"{self.hub.replace('/', '--')}{Path(name).suffix}"

    def fetch(self, name: str) -> Path:
        """The file; see `ImageNet.fetch`."""
        if self.file.is_file():
            return self.file
        from huggingface_hub import hf_hub_download

        log.info("looking for %s in the Hugging Face cache, or downloading it", self.url)
        try:
            return Path(hf_hub_download(self.hub, Path(self.url).name))
        except Exception as error:  # the client raises its own, its transport's and the operating system's
            raise RegistryError(
                f"the weights of {name} could not be downloaded ({type(error).__name__}): put {self.url} as {self.file.name} into "
                f"{self.file.parent}, or pass weights: PATH with the file's place"
            ) from error


@cache
def _configuration(model: str) -> dict[str, Any]:
    """Input size, mean and std, classifier and address of the weights, as timm has them."""
    configuration = timm.get_pretrained_cfg(model)
    if configuration is None:
        architecture = model.partition(".")[0]
        raise RegistryError(f"timm has no configuration of {architecture}, so its input size and normalisation are not known")
    return dict(configuration.to_dict())


@cache
def _head(architecture: str) -> frozenset[str]:
    """The keys that a model has with a classifier alone: the classifier's, and those of a norm or a layer that go with it."""
    with torch.device("meta"):
        full, bare = (timm.create_model(architecture, pretrained=False, num_classes=classes).state_dict() for classes in (1000, 0))
    return frozenset(full.keys() - bare.keys())


def _chosen_weights(name: str, weights: str | Path, configuration: dict[str, Any]) -> str | Path:
    """`weights` in the words of `load_weights`."""
    tag = str(configuration.get("tag") or "")
    if str(weights) == "imagenet" and tag and not any(data in tag for data in ("in1k", "in12k", "in21k", "in22k")):
        raise RegistryError(f"the tag '{tag}' of {name} does not say that its weights are ImageNet's: use weights: pretrained")
    return "imagenet" if str(weights) == "pretrained" else weights


def _probe(model: str, size: int, fixed: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Length of the feature vector and PIM's insertion point, of the model without storage."""
    with torch.device("meta"):
        network = timm.create_model(model, pretrained=False, num_classes=0, **fixed).eval()
        seen: dict[str, torch.Size] = {}

        def look(name: str) -> Any:
            return lambda _module, _inputs, output: seen.update({name: getattr(output, "shape", torch.Size())})

        modules = dict(network.named_modules())
        channels = {
            info["module"]: info["num_chs"] for info in getattr(network, "feature_info", ()) if info.get("module") in modules
        }
        embedding = modules.get("patch_embed.proj")
        if isinstance(embedding, nn.Conv2d):
            channels["patch_embed.proj"] = embedding.out_channels
        for name in channels:
            modules[name].register_forward_hook(look(name))
        features = network(torch.zeros(1, 3, size, size)).flatten(1).shape[1]
    maps = [name for name in channels if len(seen.get(name, ())) == 4 and seen[name][1] == channels[name] and seen[name][2] > 1]
    # The table may begin with the activation that ends a stem; the stage behind it goes first.
    convolving = [name for name in maps if any(isinstance(part, nn.Conv2d) for part in modules[name].modules())]
    return features, tuple(f"backbone.{name}" for name in (convolving or maps)[:1])


def _converted(architecture: str, state: State, backbone: nn.Module) -> State:
    """The file's tensors as this network wants them, by timm's own function: position embeddings of another size, older keys.
    Without the classifier, which such a function may have given its name."""
    convert = _filter(architecture)
    if convert is not None:
        try:
            state = convert(state, backbone)
        except TypeError:  # as timm itself does: some of its functions take the tensors alone
            state = convert(state)
    return {key: value for key, value in state.items() if key not in _head(architecture)}


@cache
def _filter(architecture: str) -> Callable[..., State] | None:
    """The function that timm passes a file of this model through, which only its builder knows: the loader that it would call is
    exchanged for one that takes the name down, while a model without storage is built."""
    told: list[Callable[..., State] | None] = [None]

    def take_down(*_: Any, filter_fn: Callable[..., State] | None = None, **__: Any) -> None:
        told.append(filter_fn)

    load, builder.load_pretrained = builder.load_pretrained, take_down
    try:
        with torch.device("meta"):
            timm.create_model(architecture, pretrained=True, num_classes=0)
    finally:
        builder.load_pretrained = load
    return told[-1]
