"""Vectors of sound: statistics of mel-frequency cepstral coefficients."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msmrec.artifacts import InputError
from msmrec.media.files import FileEncoder, ItemFiles


class MfccStatistics(FileEncoder):
    """32 coefficients over time: their means, deviations, and both of their slopes, 128 numbers in this order.

    Sound is made mono, brought to `sample_rate`, cut into overlapping frames (2,048 samples, every 512), from 128 mel
    bands in decibels to 32 cosine coefficients; slopes are local, over 9 frames. These are librosa's definitions and
    defaults. Silence has deviations and slopes of 0.

    A file that ends before its own header says is not read (an Ogg file does not say).

    Args:
        sample_rate: samples a second.
        seconds: how much is read, from the start; trailers are shorter.
    """

    num_coefficients = 32

    def __init__(self, sample_rate: int = 22_050, seconds: float = 300.0) -> None:
        if sample_rate < 1000 or seconds <= 0:
            raise InputError(f"sample_rate ({sample_rate}) must be at least 1000, seconds ({seconds}) positive")
        self.sample_rate, self.seconds = sample_rate, seconds

    @property
    def fingerprint(self) -> str:
        """Sizes."""
        return f"MfccStatistics(sample_rate={self.sample_rate}, seconds={self.seconds}, coefficients=32, format=1)"

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return 4 * self.num_coefficients

    def encode(self, paths: Sequence[Path]) -> np.ndarray:
        """See `FileEncoder.encode`."""
        vectors = np.full((len(paths), self.dim), np.nan, np.float32)
        for i, path in enumerate(paths):
            if (sound := self.read(path)) is not None:
                vectors[i] = self.describe(*sound)
        return vectors

    def read(self, path: Path) -> tuple[np.ndarray, int] | None:
        """(T,) float32 mono samples and how many a second; None when the file is damaged, cut short or empty."""
        soundfile, _ = _libraries()
        try:
            with soundfile.SoundFile(path) as file:
                wanted = min(file.frames, round(self.seconds * file.samplerate))
                samples: np.ndarray = file.read(wanted, dtype="float32", always_2d=True)
                # the length of an MP3 may be an estimate; of a WAV's wrong header only libsndfile's log tells
                cut = len(samples) < 0.98 * wanted or "should be" in file.extra_info
                rate = int(file.samplerate)
        except (RuntimeError, OSError, ValueError):  # soundfile's own errors are RuntimeErrors
            return None
        return None if cut or not len(samples) or not np.isfinite(samples).all() else (samples.mean(1), rate)

    def describe(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """(128,) of (T,) samples, at least one."""
        _, librosa = _libraries()
        if rate != self.sample_rate:
            samples = librosa.resample(samples, orig_sr=rate, target_sr=self.sample_rate)
        samples = np.pad(samples, (0, max(0, 2048 - len(samples))))  # less than a frame: silence after it
        cepstra = librosa.feature.mfcc(y=samples, sr=self.sample_rate, n_mfcc=self.num_coefficients)  # (32, frames)
        slopes = librosa.feature.delta(cepstra, mode="nearest")
        return np.concatenate([cepstra.mean(1), cepstra.std(1), slopes.mean(1), slopes.std(1)])


class ItemAudio(ItemFiles):
    """Vectors from a folder of sound files named by item; several of an item are averaged. See `ItemFiles`.

    Args:
        folder: of .wav, .flac, .ogg or .mp3 files.
        encoder: by default 128 statistics of cepstral coefficients.
    """

    suffixes = (".wav", ".flac", ".ogg", ".mp3")
    unit = "sound"

    def __init__(self, folder: str, encoder: MfccStatistics | None = None) -> None:
        super().__init__(folder, encoder or MfccStatistics())


def _libraries() -> tuple[Any, Any]:
    """soundfile and librosa, imported where they are used: they are extras."""
    try:
        import librosa
        import soundfile
    except (ImportError, OSError) as error:  # OSError: libsndfile itself is missing
        raise InputError(f'sound needs librosa and soundfile ({error}): pip install -e ".[media]"') from None
    return soundfile, librosa
