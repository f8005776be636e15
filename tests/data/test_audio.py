"""Sounds from a folder: what becomes of them, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import data_sets
import numpy as np
import pytest

from cnnsweep.data import storage
from cnnsweep.data.arrays import Dataset
from cnnsweep.data.audio_decoding import AudioDecoding, BadAudioError
from cnnsweep.data.loading import load
from cnnsweep.errors import UserError
from cnnsweep.export.predict import Labels, read_inputs

soundfile = pytest.importorskip("soundfile")
TONE = np.sin(np.arange(800) / 5).astype(np.float32)


def folder(root: Path, speakers: int = 4) -> Path:
    """Two classes with a file of each speaker."""
    for number, name in enumerate(("high", "low")):
        (root / name).mkdir(parents=True)
        for speaker in range(speakers):
            soundfile.write(root / name / f"s{speaker}_0.wav", TONE * (0.5 + 0.1 * number + 0.05 * speaker), 8000)
    return root


def sounds(root: Path, **changes: object) -> Dataset:
    base = {"dir": str(root), "test": 0.25, "validation": 0.25, "rate": 8000, "seconds": 0.1, "class_depth": None}
    base |= {"skip_bad": False, "cache": str(root.parent / "cache")}
    return load(data_sets.config("cnnsweep.data.audio_folder.load", **{**base, **changes}), 0)


def test_files_become_waveforms_which_are_kept(tmp_path):
    root = folder(tmp_path / "sounds")
    data = sounds(root)
    assert (data.kind, data.input_shape, data.class_names) == ("signal", (800, 1), ("high", "low"))
    assert (len(data.x_train), len(data.x_val), len(data.x_test)) == (4, 2, 2)
    np.testing.assert_allclose(np.abs(data.x_train).max(), TONE.max() * 0.75, atol=0.11)
    whole = next((tmp_path / "cache").rglob("train.npy"))
    written = whole.stat().st_mtime_ns
    assert sounds(root).digest == data.digest
    assert whole.stat().st_mtime_ns == written
    storage.save(data, tmp_path / "saved")
    assert storage.open_saved(tmp_path / "saved").decoding == AudioDecoding(8000, 800)


def test_another_rate_stereo_and_another_length(tmp_path):
    decoding = AudioDecoding(4000, 500)
    soundfile.write(tmp_path / "stereo.wav", np.stack([TONE, TONE], axis=1), 8000)
    soundfile.write(tmp_path / "mono.flac", TONE, 8000)
    stereo, mono = (decoding.read(tmp_path / name)[:, 0] for name in ("stereo.wav", "mono.flac"))
    np.testing.assert_allclose(stereo, mono, atol=1e-3)
    np.testing.assert_allclose(stereo[50:350], TONE[100:700:2], atol=0.02)
    assert not stereo[400:].any()  # 800 samples at half the rate, then silence
    assert decoding.decode((tmp_path / "mono.flac").read_bytes()).shape == (500, 1)


def written(format: str) -> bytes:
    """800 samples of 16 bits."""
    soundfile.write(file := io.BytesIO(), TONE, 8000, format=format, subtype="PCM_16")
    return file.getvalue()


@pytest.mark.parametrize("rate", [4000, 8000, 16000])
def test_a_sound_that_begins_within_what_is_kept_is_used(tmp_path, rate):
    wave = np.concatenate([np.zeros(799, np.float32), TONE[1:]])
    soundfile.write(tmp_path / "late.wav", wave, 8000)
    assert AudioDecoding(rate, rate // 10).read(tmp_path / "late.wav").any()
    soundfile.write(tmp_path / "later.wav", np.concatenate([[0], wave]), 8000)
    with pytest.raises(BadAudioError, match=r"is silent in its first 0\.1 s"):
        AudioDecoding(rate, rate // 10).read(tmp_path / "later.wav")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no sound", "is no audio file"), (np.zeros(80, np.float32), "is silent(?! in)"), (TONE[:0], "has no samples"),
     (np.stack([TONE, -TONE], axis=1), r"has channels that cancel each other: their mean, which is used, is silent"),
     (np.concatenate([np.zeros(800, np.float32), TONE]), r"is silent in its first 0\.1 s, which are used"),
     (np.full(80, np.nan, np.float32), "holds values that are no numbers"),
     (written("wav")[:-800], "is cut off: 50% of its samples are missing"),
     (written("aiff")[:-400], "is cut off: 25% of its samples are missing")],
    ids=["text", "silent", "empty", "opposite channels", "begins silent", "not a number", "cut WAV", "cut AIFF"],
)  # fmt: skip
def test_bad_files_are_named_or_skipped_and_counted(tmp_path, content, message):
    root = folder(tmp_path / "sounds")
    bad = root / "low" / "bad.wav"
    if isinstance(content, bytes):
        bad.write_bytes(content)
    else:
        soundfile.write(bad, content, 8000, subtype="FLOAT")
    with pytest.raises(BadAudioError, match=message):
        AudioDecoding(8000, 800).read(bad)
    with pytest.raises(UserError, match=rf"low/bad.wav: {message}"):
        sounds(root)
    assert "(1 unusable entry skipped)" in sounds(root, skip_bad=True).source


def test_a_speaker_stays_in_one_split(tmp_path):
    """Each speaker has a file in each class, so all classes have as many files in each split."""
    data = sounds(folder(tmp_path / "sounds"), group="s[0-9]+")
    for split in data_sets.SPLITS:
        high, low = data_sets.counts(data, split)
        assert high == low > 0
    with pytest.raises(UserError, match=r"data.group: 'patient' is not found in 8 names"):
        sounds(tmp_path / "sounds", group="patient")


def test_predict_decodes_as_training_did(tmp_path):
    root = folder(tmp_path / "sounds")
    labels = Labels("classification", ("high", "low"), 1.0, AudioDecoding(8000, 800))
    found = read_inputs([root / "low" / "s0_0.wav"], labels)
    np.testing.assert_array_equal(found[0], labels.decoding.read(root / "low" / "s0_0.wav"))
    with pytest.raises(UserError, match=r"there is no audio file .*did you mean 's0_0.wav'"):
        read_inputs([root / "low" / "s00.wav"], labels)
