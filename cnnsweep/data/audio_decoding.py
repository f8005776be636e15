"""Decoding of one audio file to a waveform: needs NumPy, SciPy and soundfile, and nothing of the package.

Training, `predict` and the example of an exported network all decode with it.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

CUT_OFF = 0.01
"""The share of a file that may be missing: some programs count a header among the samples."""


class BadAudioError(ValueError):
    """The file is no audio, is broken or silent; the text says which, without the file's name."""


@dataclass(frozen=True)
class AudioDecoding:
    """Settings of the decoding."""

    dtype: ClassVar[type] = np.float32
    rate: int
    """Samples a second; files of another rate are resampled."""
    samples: int
    """Longer files are cut at their end, shorter ones followed by silence."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(samples, channels)"""
        return self.samples, 1

    @staticmethod
    def of(stored: Mapping[str, Any]) -> AudioDecoding:
        """Settings that were stored as JSON."""
        return AudioDecoding(int(stored["rate"]), int(stored["samples"]))

    def read(self, path: str | Path) -> np.ndarray:
        """Decode a file; see `decode`. Raises BadAudioError, and OSError where the file cannot be read."""
        return self.decode(Path(path).read_bytes())

    def decode(self, raw: bytes) -> np.ndarray:
        """The waveform, -1 to 1: float32 (samples, 1), the mean of all channels. Raises BadAudioError."""
        import soundfile
        from scipy.signal import resample_poly

        try:
            found, rate = soundfile.read(io.BytesIO(raw), dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, ValueError, TypeError) as error:
            raise BadAudioError("is no audio file that can be decoded (WAV, FLAC, OGG …)") from error
        if (share := _missing(raw)) > CUT_OFF:
            raise BadAudioError(f"is cut off: {share:.0%} of its samples are missing")
        wave = found.mean(axis=1)
        if not wave.size:
            raise BadAudioError("has no samples")
        if not np.isfinite(wave).all():
            raise BadAudioError("holds values that are no numbers")
        used = math.ceil(self.samples * rate / self.rate)
        if not wave[:used].any():
            if found[:used].any():
                raise BadAudioError("has channels that cancel each other: their mean, which is used, is silent")
            start = f" in its first {self.samples / self.rate:g} s, which are used" if wave.any() else ""
            raise BadAudioError(f"is silent{start}")
        if rate != self.rate:
            common = math.gcd(rate, self.rate)
            wave = resample_poly(wave, self.rate // common, rate // common)
        waveform = np.zeros((self.samples, 1), np.float32)
        kept = wave[: self.samples]
        waveform[: len(kept), 0] = kept
        return waveform


def _missing(raw: bytes) -> float:
    """The share of the samples promised in the header of a WAV or AIFF file that it lacks, as half a download does."""
    order = {b"RIFF": "<", b"FORM": ">"}.get(raw[:4])
    place = 12
    while order and place + 8 <= len(raw):
        name, size = struct.unpack(f"{order}4sI", raw[place : place + 8])
        if name in (b"data", b"SSND"):
            known = 0 < size < 0x7FFF0000  # programs that write to a pipe put the largest number there
            return max(0.0, 1 - (len(raw) - place - 8) / size) if known else 0.0
        place += 8 + size + size % 2
    return 0.0
