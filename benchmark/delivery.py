"""Faces on their way to the device that computes: sent, and made ready there, while a step runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from detectors.base import Batch

HERE = ("domains", "videos")
"""What of a batch stays on the CPU."""


class Delivery:
    """Makes batches ready on a device, in the order of the calls; `send` may run on a thread of its own.

    On a GPU the copy starts from pinned memory and runs on a stream beside the one that trains, and so does what is done to the
    faces there. Neither the host nor the training stream waits for it before the batch is taken.

    Args:
        device: where the batches go.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._labels: tuple[torch.Tensor, torch.Tensor] | None = None

    def send(self, faces: Sequence[Batch], finish: Callable[[Sequence[Batch]], list[Batch]]) -> Callable[[], list[Batch]]:
        """Put `faces` on the device and `finish` them there; the result gives the batches to the thread that calls it.

        `Batch.domains` and `Batch.videos` stay on the CPU: to split a batch by domains, nothing has to wait for the device, and no
        detector computes with the numbers of videos.
        """
        if self._stream is None:
            ready = finish(faces)
            return lambda: ready
        with torch.cuda.stream(self._stream):
            batches = finish([self._sent(batch) for batch in faces])
            done = self._stream.record_event()
        every = (values for batch in batches for values in vars(batch).values() if values is not None)
        there = {values.untyped_storage().data_ptr(): values for values in every if values.device.type == "cuda"}

        def take() -> list[Batch]:
            training = torch.cuda.current_stream(self.device)
            training.wait_event(done)
            for values in there.values():
                values.record_stream(training)  # or its memory could be given to the next faces while a step still reads it
            return batches

        return take

    def _sent(self, faces: Batch) -> Batch:
        known = {name: values for name, values in vars(faces).items() if name not in HERE and values is not None}
        labels = known.pop("labels")
        if self._labels is None or self._labels[0] is not labels:  # of a balanced order they are one tensor in every step
            self._labels = labels, self._copied(labels)
        return replace(faces, labels=self._labels[1], **{name: self._copied(values) for name, values in known.items()})

    def _copied(self, values: torch.Tensor) -> torch.Tensor:
        return values.pin_memory().to(self.device, non_blocking=True)
