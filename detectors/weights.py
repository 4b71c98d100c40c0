"""Where a detector's first weights come from: nowhere, the library's ImageNet download, or a local file."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from optimizers.registry import RegistryError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageNet:
    """The ImageNet weights that a library publishes for a backbone.

    Attributes:
        url: the library's own file. Its name ends in the first digits of its SHA-256, which the download is checked against.
        head: the keys of the 1000-class layer in that file, which are dropped.
    """

    url: str
    head: tuple[str, ...]

    @property
    def file(self) -> Path:
        """Where torch's cache keeps the file (TORCH_HOME moves it)."""
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(self.url).path).name


def load_weights(detector: nn.Module, weights: str | Path, imagenet: ImageNet | None = None) -> None:
    """Fill a freshly built detector.

    Args:
        detector: its attribute `backbone`, where it has one, carries the library's own keys.
        weights: "none" keeps the random initialisation. "imagenet" takes the library's weights from torch's cache, or downloads
            them there. Anything else is the path of a state_dict file: either of the backbone, with the library's keys and with or
            without its 1000-class layer, or of the whole detector, as `detector.state_dict()` writes it.
        imagenet: what the library publishes; None where there are no ImageNet weights.

    Raises:
        RegistryError: no such file, no such weights, a download that fails, a file that is no plain state_dict, or one
            whose keys and shapes are not exactly the detector's (they are named).
    """
    name = type(detector).__name__
    if not isinstance(weights, str | Path) or str(weights) == "":
        raise RegistryError(f"{name}: weights is {weights!r}, but it must be 'none', 'imagenet' or the path of a state_dict file")
    if str(weights) == "none":
        return
    if str(weights) == "imagenet":
        if imagenet is None:
            raise RegistryError(f"{name} has no ImageNet weights; use weights: none, or the path of a state_dict file")
        path = _download(name, imagenet)
    else:
        path = Path(weights).expanduser()
    state = read_state(path)
    whole = not state.keys().isdisjoint(detector.state_dict())
    target = detector if whole else getattr(detector, "backbone", detector)
    if imagenet is not None and not whole:
        state = {key: value for key, value in state.items() if key not in imagenet.head}
    _fill(name, target, state, path)


def read_state(path: Path) -> dict[str, Tensor]:
    """The state_dict that a file holds, on the CPU. Nothing but tensors is unpickled, so no file can run code.

    Raises:
        RegistryError: the file is missing, unreadable, or holds something else than a dict of tensors.
    """
    if not path.is_file():
        raise RegistryError(f"weights file {path} does not exist; give the path of a state_dict file, 'none' or 'imagenet'")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file may fail anywhere in zip, pickle or torch; whatever it is, the cure is the same
        raise RegistryError(
            f"weights file {path} is no plain state_dict ({type(error).__name__}: it is damaged, or holds Python objects "
            "that could run code and are refused); save it with torch.save(model.state_dict(), path)"
        ) from error
    if not isinstance(state, Mapping) or not state:
        raise RegistryError(f"weights file {path} holds a {type(state).__name__} where a state_dict of tensors belongs")
    foreign = [str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if foreign:
        raise RegistryError(f"weights file {path} is no state_dict: its {_some(foreign)} is no tensor; save the state_dict alone")
    return dict(state)


def _download(name: str, imagenet: ImageNet) -> Path:
    file = imagenet.file
    if file.is_file():
        return file
    log.info("downloading %s to %s", imagenet.url, file)
    digest = re.search(r"-([0-9a-f]{8,})\.", file.name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Written beside the target and moved when its hash fits: a second process never sees half a file.
        torch.hub.download_url_to_file(imagenet.url, str(file), hash_prefix=digest and digest.group(1), progress=False)
    except (OSError, RuntimeError) as error:
        raise RegistryError(
            f"the ImageNet weights of {name} could not be downloaded ({error}): put {file.name} from {imagenet.url} "
            f"into {file.parent}, or pass weights: PATH with the file's place"
        ) from error
    return file


def _fill(name: str, target: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = target.state_dict()
    for key, value in state.items():
        # Xception's first public files hold a 1 x 1 convolution as a matrix.
        if key in own and own[key].shape == (*value.shape, 1, 1):
            state[key] = value[..., None, None]
    # Files from before 2018 have no batch counters; nothing but a cumulative average, which no backbone here uses, reads them.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    reshaped = [
        f"{key}: {tuple(value.shape)} in the file, {tuple(own[key].shape)} here"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    problems = [
        f"{len(keys)} {what} ({_some(keys)})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if keys
    ]
    if problems:
        raise RegistryError(f"weights file {path} does not fit {name}; of its keys {', '.join(problems)}")
    target.load_state_dict(state, strict=False)


def _some(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
