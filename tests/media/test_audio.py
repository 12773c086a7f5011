"""Sound files: the numbers against librosa's own, silence, damage, and files of items."""

import logging
from pathlib import Path

import numpy as np
import pytest

from msmrec.artifacts import InputError
from msmrec.data.prepare import Dataset
from msmrec.media.audio import ItemAudio, MfccStatistics

soundfile = pytest.importorskip("soundfile", reason="sound needs the extra media")
librosa = pytest.importorskip("librosa", reason="sound needs the extra media")

RATE = 22_050


def tone(seconds: float = 1.0, hertz: float = 440.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * hertz * time * (1 + 0.2 * time)) + noise).astype(np.float32)


def test_statistics_are_those_of_librosas_coefficients(tmp_path: Path) -> None:
    sound = tone()
    soundfile.write(tmp_path / "a.wav", np.stack([sound, sound], 1), RATE, subtype="FLOAT")
    (vector,) = MfccStatistics().encode([tmp_path / "a.wav"])
    cepstra = librosa.feature.mfcc(y=sound, sr=RATE, n_mfcc=32)
    slopes = librosa.feature.delta(cepstra, mode="nearest")
    expected = [*cepstra.mean(1), *cepstra.std(1), *slopes.mean(1), *slopes.std(1)]
    assert vector.shape == (128,) == (MfccStatistics().dim,)
    np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-4)


def test_silence_and_very_short_sounds_are_finite(tmp_path: Path) -> None:
    for name, samples in {"silence": np.zeros(RATE), "one": np.ones(1), "short": tone(0.02)}.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
    silence, one, short = MfccStatistics().encode([tmp_path / f"{n}.wav" for n in ("silence", "one", "short")])
    assert np.isfinite([silence, one, short]).all()
    assert np.abs(silence[32:]).max() < 1e-2 and silence[0] < -100  # no deviation, no slope, in decibels
    assert short.any()


def test_rates_formats_and_length(tmp_path: Path) -> None:
    encoder = MfccStatistics(seconds=1.0)
    soundfile.write(tmp_path / "a.wav", tone(1), RATE)
    soundfile.write(tmp_path / "longer.wav", np.concatenate([tone(1), tone(2, 2000)]), RATE)
    soundfile.write(tmp_path / "higher.flac", tone(1, rate=44_100), 44_100)
    soundfile.write(tmp_path / "a.ogg", tone(1), RATE)
    soundfile.write(tmp_path / "a.mp3", tone(1), RATE)
    paths = [tmp_path / name for name in ("a.wav", "longer.wav", "higher.flac", "a.ogg", "a.mp3")]
    vectors = encoder.encode(paths)
    np.testing.assert_array_equal(vectors[0], vectors[1])
    means = vectors[:, 1:12]  # without the loudness, and where the codecs and the resampling cut
    cosine = means @ means[0] / np.linalg.norm(means, axis=1) / np.linalg.norm(means[0])
    assert cosine[2] > 0.95 and cosine.min() > 0.7, cosine
    assert MfccStatistics().fingerprint != encoder.fingerprint


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_files_cut_short_are_not_read(suffix: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / f"a.{suffix}", tone(3), RATE)
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"b.{suffix}").write_bytes(data[: len(data) // 2])
    whole, cut = MfccStatistics().encode([tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"])
    assert np.isfinite(whole).all() and np.isnan(cut).all()


def test_folder_of_sounds(tiny: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "trailers"
    folder.mkdir()
    raw = [str(i) for i in tiny.items["raw_item_id"][:4]]
    soundfile.write(folder / f"{raw[0]}.wav", tone(), RATE)
    soundfile.write(folder / f"{raw[1]}_0.wav", tone(1, 300), RATE)
    soundfile.write(folder / f"{raw[1]}_1.wav", tone(1, 900), RATE)
    soundfile.write(folder / f"{raw[2]}.wav", np.zeros(0), RATE)
    (folder / f"{raw[3]}.mp3").write_bytes(b"no sound at all" * 100)
    vectors, present = ItemAudio("trailers").vectors(tiny, tmp_path, tmp_path / "cache")
    assert present.nonzero()[0].tolist() == [1, 2] and vectors.shape == (tiny.num_items + 1, 128)
    parts = MfccStatistics().encode([folder / f"{raw[1]}_{k}.wav" for k in (0, 1)])
    np.testing.assert_allclose(vectors[2], parts.mean(0), rtol=1e-5)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1 and "2 of 5 files cannot be read" in warnings[0] and f"{raw[3]}.mp3" in warnings[0]

    class Forbidden(MfccStatistics):
        def read(self, path: Path) -> None:
            assert path.stem in raw[2:], "a kept file is read again"

    Forbidden.__name__ = "MfccStatistics"
    again = ItemAudio("trailers", Forbidden()).vectors(tiny, tmp_path, tmp_path / "cache")
    np.testing.assert_array_equal(again.vectors, vectors)


def test_settings_that_are_refused() -> None:
    for options in ({"sample_rate": 0}, {"seconds": 0.0}):
        with pytest.raises(InputError, match="must be"):
            MfccStatistics(**options)
