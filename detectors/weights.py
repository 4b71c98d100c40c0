"""Where a detector's first weights come from: nowhere, the library's download, a local file, or DeepfakeBench.

    weights: none        random initialisation
    weights: imagenet    what the backbone's library publishes, by its own address, hash and cache folder
    weights: PATH        a file of the library (with or without its 1000-class layer), or the detector's own state_dict; safetensors
                         or what torch.save wrote, whatever its name
    weights: dfb:PATH    a checkpoint that DeepfakeBench publishes for its detector of the same name

Every way is strict: each tensor of the file has a place, each place gets its tensor, and what is left out on either side is
declared by the detector's class (or, of a timm file, by timm's own function) and reported, key by key, in the detector's attribute
`loaded`. Batch counters alone may be absent undeclared. Nothing but tensors is ever unpickled.

A detector takes DeepfakeBench's checkpoints if its class says by which keys, in one attribute::

    class Xception(BackboneDetector):
        # "backbone.block1.rep.0..." is the same on both sides and needs no word.
        dfb = KeyMap(
            {"backbone.last_linear.": "head."},
            drop=("backbone.adjust_channel.",),  # built by DeepfakeBench, used by none of its losses
        )

and if its constructor ends in `load_weights(self, weights, ...)`. Where the plain name is the paper's network and DeepfakeBench's
is another one, the plain class says `dfb = "dfb-meso4"`: the name of the detector that does take the file.
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from optimizers.registry import RegistryError

log = logging.getLogger(__name__)

PUBLISHED = ("none", "imagenet", "pretrained")
"""Settings `weights` that name no file of the user's."""

DFB = "dfb:"
"""Goes before the path of a checkpoint of DeepfakeBench."""

State = dict[str, Tensor]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class KeyMap:
    """Where the tensors of another project's checkpoint belong in a detector.

    Attributes:
        rename: how a key begins in the file -> how it begins here. The longest beginning that fits is exchanged; a key that none
            fits keeps its name. A whole key is its own beginning.
        drop: beginnings of keys that the file holds and this detector has no use for.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()

    def apply(self, state: Mapping[str, Tensor]) -> tuple[State, list[str]]:
        """The tensors under the keys that they have here, and the keys of the file that were dropped.

        `module.`, which torch's data parallelism puts in front of every key, is taken off.

        Raises:
            ValueError: two keys of the file would get one name.
        """
        if all(key.startswith("module.") for key in state):
            state = {key.removeprefix("module."): value for key, value in state.items()}
        beginnings = sorted(self.rename, key=len, reverse=True)
        mapped: State = {}
        dropped = []
        for key, value in state.items():
            if key.startswith(self.drop):
                dropped.append(key)
                continue
            old = next((beginning for beginning in beginnings if key.startswith(beginning)), "")
            new = self.rename.get(old, "") + key[len(old) :]
            if new in mapped:
                raise ValueError(f"two of its keys become '{new}', the second is '{key}'")
            mapped[new] = value
        return mapped, dropped


@dataclass(frozen=True)
class ImageNet:
    """The weights that a library publishes for a backbone.

    Attributes:
        url: the library's own file. Its name ends in the first digits of its SHA-256, which the file is checked against. Empty
            where none is published: local files are read by the rest all the same.
        head: the keys of the 1000-class layer in that file, which are dropped. All of them need not be there.
        fresh: keys of the backbone that are dropped too and keep their random initialisation.
        convert: called with the rest of the file's tensors and the backbone, gives them in the shapes of this backbone (position
            embeddings of another image size, say). A key that it leaves out is reported as dropped.
    """

    url: str
    head: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    convert: Callable[[State, nn.Module], State] | None = None

    @property
    def file(self) -> Path:
        """Where torch's cache keeps the file (TORCH_HOME moves it)."""
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(self.url).path).name

    def fetch(self, name: str) -> Path:
        """The file, downloaded if it is not in the cache; checked against its hash either way.

        Args:
            name: of the detector, for the sentence.

        Raises:
            RegistryError: the download fails; the sentence says which file to put into which folder. Or the file that is there is
                another one than its name says.
        """
        file = self.file
        found = re.search(r"-([0-9a-f]{8,})\.", file.name)
        digest = found.group(1) if found else ""
        if file.is_file():
            if not _sha256(file).startswith(digest):
                raise RegistryError(
                    f"{file} is not the file of that name, whose SHA-256 begins with {digest}: it is damaged or another one; put "
                    f"{self.url} there, or delete it to have it downloaded"
                )
            return file
        log.info("downloading %s to %s", self.url, file)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # Written beside the target and moved when its hash fits: a second process never sees half a file.
            torch.hub.download_url_to_file(self.url, str(file), hash_prefix=digest or None, progress=False)
        except (OSError, RuntimeError) as error:
            raise RegistryError(
                f"the ImageNet weights of {name} could not be downloaded ({error}): put {file.name} from {self.url} "
                f"into {file.parent}, or pass weights: PATH with the file's place"
            ) from error
        return file


@dataclass(frozen=True)
class Loaded:
    """What became of a file's tensors.

    Attributes:
        file: that was read.
        sha256: of its bytes, 64 hexadecimal digits.
        tensors: how many of the detector's tensors it filled.
        dropped: keys of the file that the detector's class has no use for, as the file names them.
        fresh: keys of the detector's state_dict that nothing in the file filled and that keep their initial values, those of the
            layer to two classes among them where the file is of the backbone alone.
    """

    file: Path
    sha256: str
    tensors: int
    dropped: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        left = f"; dropped {len(self.dropped)} of the file ({_some(self.dropped)})" if self.dropped else ""
        kept = f"; not in the file {len(self.fresh)} ({_some(self.fresh)})" if self.fresh else ""
        return f"{self.file}: {self.tensors} tensors loaded{left}{kept}"


def load_weights(detector: nn.Module, weights: str | Path, imagenet: ImageNet | None = None) -> Loaded | None:
    """Fill a freshly built detector; the report is also its attribute `loaded`, and logged.

    Args:
        detector: its attribute `backbone`, where it has one, carries the library's own keys; its class's `dfb` is described above.
        weights: "none" keeps the random initialisation. "imagenet" takes the library's weights from its cache, or downloads
            them there. "dfb:PATH" is a checkpoint of DeepfakeBench. Anything else is the path of a state_dict file (safetensors
            or what torch.save wrote, whatever its name): either of the backbone, with the library's keys and with or without its
            1000-class layer, or of the whole detector, as `detector.state_dict()` writes it.
        imagenet: what the library publishes; None where there are no ImageNet weights.

    Returns:
        The report; None for "none".

    Raises:
        RegistryError: no such file, no such weights, a download that fails, a file that is no plain state_dict, or one
            whose keys and shapes are not exactly the detector's, or that holds integers where floating-point numbers belong, an
            Inf or a NaN (they are named).
    """
    name = type(detector).__name__
    if not isinstance(weights, str | Path) or str(weights) == "":
        raise RegistryError(
            f"{name}: weights is {weights!r}, but it must be 'none', 'imagenet', 'dfb:PATH' or the path of a state_dict file"
        )
    if str(weights) == "none":
        return None
    if str(weights).startswith(DFB):
        loaded = _load_dfb(detector, name, str(weights).removeprefix(DFB))
    else:
        if str(weights) == "imagenet":
            if imagenet is None or not imagenet.url:
                raise RegistryError(f"{name} has no ImageNet weights; use weights: none, or the path of a state_dict file")
            path = imagenet.fetch(name)
        else:
            path = _path(weights)
        loaded = _load_file(detector, path, imagenet)
    detector.loaded = loaded  # type: ignore[assignment]  # a Detector declares it; this room's base imports this module
    log.info("%s", loaded)
    return loaded


def _load_dfb(detector: nn.Module, name: str, path: str) -> Loaded:
    keys: KeyMap | str | None = getattr(type(detector), "dfb", None)
    if isinstance(keys, str):
        raise RegistryError(f"{name} is the paper's network and DeepfakeBench's is another one: its checkpoints belong to '{keys}'")
    if keys is None:
        raise RegistryError(
            f"{name} has no counterpart in DeepfakeBench whose checkpoints it could take; use weights: PATH or none"
        )
    if not path:
        raise RegistryError(f"{name}: weights is 'dfb:' and nothing behind it; give the checkpoint's path, dfb:PATH")
    file = _path(path)
    state = read_state(file)
    try:
        mapped, dropped = keys.apply(state)
    except ValueError as error:
        raise RegistryError(f"weights file {file} does not fit {name}: {error}") from error
    return _fill(detector, "", mapped, file, dropped)


def _load_file(detector: nn.Module, path: Path, imagenet: ImageNet | None) -> Loaded:
    state = read_state(path)
    backbone = getattr(detector, "backbone", detector)
    # A library's file may hold a `head` of its own, so one key that fits does not make it the whole detector's.
    if backbone is detector or any(key.startswith("backbone.") for key in state):
        return _fill(detector, "", state, path)
    if imagenet is None:
        return _fill(detector, "backbone", state, path)
    dropped = [key for key in state if key in (*imagenet.head, *imagenet.fresh)]
    state = {key: value for key, value in state.items() if key not in dropped}
    if imagenet.convert is not None:
        try:
            converted = imagenet.convert(dict(state), backbone)
        except (
            Exception
        ) as error:  # a converter meets another network's file wherever that differs; what differs is told by its keys
            problems = _misfits(backbone.state_dict(), state, imagenet.fresh)
            why = f"of its keys {problems}" if problems else f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise RegistryError(f"weights file {path} does not fit {type(detector).__name__}; {why}") from error
        dropped += _thrown_away(imagenet.convert, backbone, state, converted)
        state = converted
    return _fill(detector, "backbone", state, path, dropped, imagenet.fresh)


def _thrown_away(convert: Callable[[State, nn.Module], State], backbone: nn.Module, state: State, converted: State) -> list[str]:
    """The keys of a file without which its converter fills as many places: it has no use for them."""

    def without(keys: list[str]) -> bool:
        try:
            return convert({key: value for key, value in state.items() if key not in keys}, backbone).keys() == converted.keys()
        except Exception:  # a converter may fail in any way where a key is missing that it needs
            return False

    def among(keys: list[str]) -> list[str]:
        if not keys or without(keys):
            return keys
        half = len(keys) // 2
        return among(keys[:half]) + among(keys[half:]) if half else []

    # A tensor that came out in the same memory, or under its own name, has its place: a converter is asked again about few.
    taken = {value.data_ptr() for value in converted.values()}
    return among([key for key, value in state.items() if key not in converted and value.data_ptr() not in taken])


def local_file(weights: str | Path) -> Path | None:
    """The user's own file that a setting `weights` names; None where it names none, or what a library publishes.

    Raises:
        RegistryError: it lies in the home of a user whom the system does not know.
    """
    named = str(weights)
    return None if named in PUBLISHED else _path(named.removeprefix(DFB))


def with_file(weights: str | Path, file: Path) -> str:
    """The setting `weights` with its file elsewhere, read in the same way."""
    return f"{DFB if str(weights).startswith(DFB) else ''}{file}"


def _path(weights: str | Path) -> Path:
    try:
        return Path(weights).expanduser()
    except RuntimeError as error:
        raise RegistryError(
            f"weights file {weights}: there is no user '{Path(weights).parts[0][1:]}'; give the whole path"
        ) from error


def read_state(path: Path) -> State:
    """The state_dict that a file holds, on the CPU. Nothing but tensors is unpickled, so no file can run code.

    Raises:
        RegistryError: the file is missing, unreadable or damaged, or holds something else than a dict of dense tensors.
    """
    try:
        there = path.is_file()
    except OSError as error:  # a folder that is not this user's, a name that is too long
        raise RegistryError(f"weights file {path} cannot be looked for ({error.strerror}); give another path") from error
    if not there:
        what = "is a folder" if path.is_dir() else "does not exist"
        raise RegistryError(f"weights file {path} {what}; give the path of a state_dict file, 'none' or 'imagenet'")
    try:
        torn = _torn(path)
        state: Any = None if torn else _read(path)
    except PermissionError as error:
        raise RegistryError(f"weights file {path} may not be read by this user; change its permissions") from error
    except Exception as error:  # a foreign file may fail anywhere in zip, pickle or torch; whatever it is, the cure is the same
        raise RegistryError(
            f"weights file {path} is no plain state_dict ({type(error).__name__}: it is damaged, or holds Python objects "
            "that could run code and are refused); save it with torch.save(model.state_dict(), path)"
        ) from error
    if torn:
        raise RegistryError(
            f"weights file {path} is damaged: the checksum of its part '{torn}' is wrong; copy it here again, or, where it was "
            "saved without checksums, save it with them"
        )
    if not isinstance(state, Mapping) or not state:
        raise RegistryError(f"weights file {path} holds a {type(state).__name__} where a state_dict of tensors belongs")
    foreign = [str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if foreign:
        raise RegistryError(f"weights file {path} is no state_dict: its {_some(foreign)} is no tensor; save the state_dict alone")
    odd = [f"{key}: {_kind(value)}" for key, value in state.items() if not _is_plain(value)]
    if odd:
        raise RegistryError(
            f"weights file {path} holds tensors that are no plain numbers ({_some(odd)}); save dense ones of "
            "float16, bfloat16, float32 or float64"
        )
    return dict(state)


def _torn(path: Path) -> str | None:
    """The first part of a zip, which is what torch.save writes, that has another checksum than it says: torch passes over it."""
    if _is_safetensors(path) or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as parts:
        return parts.testzip()


def _read(path: Path) -> Any:
    if _is_safetensors(path):
        from safetensors.torch import load_file

        return load_file(path)
    with path.open("rb") as file, warnings.catch_warnings():  # opened here: torch.load goes by a path's ending
        warnings.simplefilter("ignore")  # about tensors and pickles that are then refused
        return torch.load(file, map_location="cpu", weights_only=True)


def _is_safetensors(path: Path) -> bool:
    """Whatever its name: the length of a header in eight bytes, little end first, and the header, a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8


def _is_plain(value: Tensor) -> bool:
    return value.layout is torch.strided and value.dtype in (*FLOATS, *INTEGERS, torch.bool)


def _kind(value: Tensor) -> str:
    """How a tensor's numbers are kept, e.g. "int8" or "sparse_coo"."""
    return str(value.dtype if value.layout is torch.strided else value.layout).removeprefix("torch.")


def _fill(
    detector: nn.Module, part: str, state: State, path: Path, dropped: Iterable[str] = (), fresh: tuple[str, ...] = ()
) -> Loaded:
    """Put every tensor into its place in the submodule `part`, or refuse the file; `fresh` are places that may stay as they are."""
    target = detector.get_submodule(part)
    own = target.state_dict()
    if problems := _misfits(own, state, fresh):
        raise RegistryError(f"weights file {path} does not fit {type(detector).__name__}; of its keys {problems}")
    state = {key: value.reshape(own[key].shape) for key, value in state.items()}
    target.load_state_dict(state, strict=False)  # what it would leave out in silence has been looked at above, key by key
    filled = {f"{part}.{key}" if part else key for key in state}
    kept = tuple(key for key in detector.state_dict() if key not in filled)
    return Loaded(path, _sha256(path), len(state), tuple(dropped), kept)


def _misfits(own: State, state: State, fresh: tuple[str, ...]) -> str:
    """What of a file's tensors does not fit the places `own`, some of each by their names; empty where all do."""
    # Files from before 2018 have no batch counters; nothing but a cumulative average, which no backbone here uses, reads them.
    missing = [key for key in own if key not in state and key not in fresh and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    reshaped, retyped, broken = [], [], []
    for key in (key for key in state if key in own):
        value, place = state[key], own[key]
        # Xception's first public files hold a 1 x 1 convolution as a matrix.
        if place.shape not in (value.shape, (*value.shape, 1, 1)):
            reshaped.append(f"{key}: {tuple(value.shape)} in the file, {tuple(place.shape)} here")
        if not _same_kind(value, place):
            retyped.append(f"{key}: {_kind(value)} in the file, {_kind(place)} here")
        elif place.is_floating_point() and not value.to(place.dtype).isfinite().all():
            broken.append(key)  # also a float64 that is beyond what float32 can say
    found = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped, "of another type": retyped}
    return ", ".join(f"{len(keys)} {what} ({_some(keys)})" for what, keys in {**found, "not finite": broken}.items() if keys)


def _same_kind(value: Tensor, place: Tensor) -> bool:
    """Whether `value` may be copied to `place`: numbers of one kind, floating or whole, of whatever precision."""
    return next((value.dtype in kind for kind in (FLOATS, INTEGERS) if place.dtype in kind), value.dtype == place.dtype)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _some(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
