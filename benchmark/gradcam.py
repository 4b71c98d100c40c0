"""Grad-CAM panels: where detectors look, forgery by forgery, a baseline above a method (as RoGA's and PIM's figures show it)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmark.config import ConfigError
from benchmark.data import FaceFrames
from benchmark.opened import Opened
from benchmark.seeding import stream
from detectors.base import Detector
from results.figures.style import Drawing, panels, plain

Array = NDArray[np.float64]


class _Logits(nn.Module):
    """A detector as the library wants a model: images in, logits out."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 2)."""
        logits: Tensor = self.detector(images).logits
        return logits


def last_map(detector: Detector) -> tuple[str, nn.Module]:
    """The last module whose output is a map (N, C, H, W) of more than one place: what Grad-CAM looks at.

    A block counts as called when it is done, so of a residual network this is its last stage and not a convolution in it.

    Raises:
        ConfigError: there is none, as in a transformer without a grid of patches.
    """
    found: list[tuple[str, nn.Module]] = []
    hooks = []
    for name, module in detector.named_modules():
        if name and not isinstance(module, nn.Dropout):

            def look(module: nn.Module, _inputs: object, output: object, name: str = name) -> None:
                if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                    found.append((name, module))

            hooks.append(module.register_forward_hook(look))
    device = next(detector.parameters()).device
    try:
        with torch.no_grad():
            detector(torch.full((1, 3, detector.size, detector.size), 0.5, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ConfigError(f"the detector {type(detector).__name__} has no module that gives a map (N, C, H, W) for Grad-CAM")
    return found[-1]


def activation(detector: Detector, images: Tensor) -> Array:
    """Grad-CAM of the class fake (Selvaraju et al. 2017), (N, H, W) in [0, 1], each face scaled by its own largest value.

    Raises:
        ConfigError: the library is not installed; no module to look at.
    """
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise ConfigError("Grad-CAM needs the package grad-cam; install it with pip install 'deepfake-grid[figures]'") from error
    _, module = last_map(detector)
    # Asking for the gradient by the faces lets it pass through layers that are frozen, too.
    leaves = images.clone().requires_grad_(True)
    with torch.enable_grad(), GradCAM(model=_Logits(detector).eval(), target_layers=[module]) as cam:
        maps = cam(input_tensor=leaves, targets=[ClassifierOutputTarget(1)] * len(images))
    detector.zero_grad(set_to_none=True)
    return np.asarray(maps, np.float64)


def chosen_faces(frames: FaceFrames, seed: int) -> dict[str, int]:
    """Method ("real" first) -> position of one of its faces, by the seed alone."""
    found: dict[str, int] = {}
    rows = frames.rows.reset_index(drop=True)
    methods = rows["method"].astype(str).where(rows["label"] == 1, "real")
    for method in sorted(methods.unique(), key=lambda m: (m != "real", m)):
        positions = np.flatnonzero((methods == method).to_numpy())
        found[method] = int(stream("probe", seed).choice(positions))
    return found


def gradcam(cells: dict[str, Opened], test: str, seed: int = 0) -> Drawing:
    """A column for real faces and each forgery of a test set, a row for the face and each optimizer, with P(fake) beneath.

    Args:
        cells: optimizer -> its cell; all of one detector.
        test: name of the set, which all cells have opened.
        seed: chooses the faces.
    """
    first = next(iter(cells.values()))
    frames = first.tests[test].frames
    faces = chosen_faces(frames, seed)
    positions = np.array(list(faces.values()))
    pixels = frames.pixels(positions)
    figure, axes = panels(
        (1 + len(cells)) * len(faces),
        width=1.12 * len(faces) + 0.5,
        height=1.2,
        across=len(faces),
    )
    rows = [axes[at : at + len(faces)] for at in range(0, len(axes), len(faces))]
    shown = pixels.permute(0, 2, 3, 1).cpu().numpy()
    grey = shown.mean(axis=3)
    for axis, image, method in zip(rows[0], shown, faces, strict=True):
        axis.imshow(image)
        axis.set_title(method, fontsize=7)
    for row, (name, opened) in zip(rows[1:], cells.items(), strict=True):
        detector = opened.restored.detector
        images = pixels.to(next(detector.parameters()).device)
        with torch.no_grad():
            fake = detector(images).fake.float().cpu().numpy()
        for axis, image, heat, score in zip(row, grey, activation(detector, images), fake, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.imshow(heat, cmap="inferno", alpha=0.25 + 0.5 * heat, vmin=0, vmax=1)
            axis.set_xlabel(f"P(fake) {score:.2f}", labelpad=2)
        row[0].set_ylabel(name)
    rows[0][0].set_ylabel("face")
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    where = last_map(first.restored.detector)[0]
    title = f"Grad-CAM of the class fake at {where};\n{first.cell.detector.title}, {test}, seed {first.cell.seed}, last step"
    figure.suptitle(title, fontsize=6.5)
    what = f"Grad-CAM of the class fake, {first.cell.detector.title} on {test}, a column a method, a row an optimizer"
    how = "each map scaled by its own largest value; weights of the last step"
    return Drawing(f"gradcam-{plain(first.cell.detector.title)}-{plain(test)}", figure, f"{what}; {how}")
