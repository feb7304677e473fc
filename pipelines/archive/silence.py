"""Detection of the silent channels of a WAV.

A recording is read only until each channel had sound (20 s of stereo with one silent channel: 0.3 ms; its SHA-256 takes
0.4 ms).
"""

from typing import BinaryIO

import numpy as np

from pipelines.archive.wav import WavInfo

MIN_SECONDS = 5.0
"""Shorter recordings are not judged: a party may well be silent for that long."""

# 32 of 32767 is -60 dBFS: above the hiss of an open line that nobody speaks into, far below any voice.
_LOUDEST_SILENCE = 32
_BLOCK_FRAMES = 1 << 14
_PCM = 0x0001


def silent_channels(stream: BinaryIO, wav: WavInfo) -> tuple[int, ...]:
    """Return the channels, counted from 1, in which no sample is louder than -60 dBFS; none if the audio is shorter
    than `MIN_SECONDS` or not 16-bit PCM. `stream` is seekable; its position afterwards is undefined.
    """
    if wav.format_tag != _PCM or wav.bits_per_sample != 16 or (wav.duration_s or 0.0) < MIN_SECONDS:
        return ()
    sample = np.dtype(">i2" if wav.big_endian else "<i2")
    frame = 2 * wav.channels
    frames = wav.data_bytes // frame
    heard = np.zeros(wav.channels, dtype=bool)
    stream.seek(wav.header_bytes)
    for first in range(0, frames, _BLOCK_FRAMES):
        data = stream.read(min(_BLOCK_FRAMES, frames - first) * frame)
        samples = np.frombuffer(data, dtype=sample).reshape(-1, wav.channels)
        for channel in np.flatnonzero(~heard):
            column = samples[:, channel]  # not abs(): abs(-32768) is -32768 again in 16 bits
            heard[channel] = column.max() > _LOUDEST_SILENCE or column.min() < -_LOUDEST_SILENCE
        if heard.all():
            return ()
    return tuple(int(channel) + 1 for channel in np.flatnonzero(~heard))
