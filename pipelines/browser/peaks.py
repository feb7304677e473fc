"""The waveform of a recording: how loud each channel is, in up to 12,000 steps of equal length.

Computed from the stored audio in blocks of 256 KiB, so that memory does not depend on the length.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipelines.browser.playable import Playable

STEPS: Final = 12_000
_STEPS_PER_SECOND: Final = 20
_BLOCK: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Peaks:
    """`levels`: a row for each channel, the largest sample of each step from 0 to 255. `step_s`: seconds of a step."""

    levels: NDArray[np.uint8]
    step_s: float

    def document(self) -> dict[str, Any]:
        """Return it as JSON: the levels of each channel as base64."""
        channels = [base64.b64encode(row.tobytes()).decode() for row in self.levels]
        return {"channels": channels, "step_s": self.step_s}


def peaks_of(recording: Playable) -> Peaks | None:
    """Read the whole recording once and return its waveform; None where its codec is not decoded. Raises as
    `Bucket.read_range`.
    """
    if recording.info is None:
        return None
    channels, rate = recording.info.channels, recording.info.sample_rate
    frames = recording.samples // channels
    step = max(1, rate // _STEPS_PER_SECOND, -(-frames // STEPS))
    loudest = np.zeros((channels, -(-frames // step)), dtype=np.int32)
    # Whole steps, as many as a block holds, so that each is looked at once; one step may be longer than a block.
    block = max(1, _BLOCK // (step * channels)) * step
    for first in range(0, frames, block):
        last = min(first + block, frames)
        samples = np.abs(recording.decode(first * channels, last * channels).astype(np.int32)).reshape(-1, channels)
        starts = np.arange(0, last - first, step)
        loudest[:, first // step : first // step + len(starts)] = np.maximum.reduceat(samples, starts, axis=0).T
    return Peaks(np.minimum(loudest >> 7, 255).astype(np.uint8), step / rate)
