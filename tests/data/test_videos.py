"""Videos from a folder: files and folders of frames, which frames are taken, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import data_sets
import numpy as np
import pytest
import video_files
from PIL import Image

from cnnsweep.data import storage
from cnnsweep.data.arrays import Dataset
from cnnsweep.data.image_decoding import Decoding
from cnnsweep.data.loading import load
from cnnsweep.data.video_decoding import BadVideoError, VideoDecoding
from cnnsweep.errors import UserError
from cnnsweep.export.predict import Labels, inputs_in, read_inputs

pytest.importorskip("av")
GREY = Decoding((8, 12), "grey", "crop", 180.0)
SETTINGS = {"test": 0.25, "validation": 0.25, "class_depth": None, "skip_bad": False, "max_megapixels": 180}


def folder(root: Path, subjects: int = 4) -> Path:
    """Two classes, each with a video of each subject: half of them are files, half folders of frames."""
    for number, name in enumerate(("dim", "light")):
        for subject in range(subjects):
            pictures = video_files.frames(first=100 * number + subject)
            place = root / name / f"s{subject}_0"
            if subject % 2:
                video_files.write_frames(place, pictures)
            else:
                video_files.write(place.with_suffix(".mkv"), pictures)
    return root


def videos(root: Path, **changes: object) -> Dataset:
    size = {"frames": 3, "fps": None, "image_size": [8, 12], "resize": "crop", "color": "grey"}
    base = {"dir": str(root), "cache": str(root.parent / "cache"), **SETTINGS, **size}
    return load(data_sets.config("cnnsweep.data.video_folder.load", **{**base, **changes}), 0)


def shown(found: np.ndarray) -> list[int]:
    """The numbers of grey frames that `video_files.frames` made."""
    return (found[:, 0, 0, 0] // 10).tolist()


def test_files_and_folders_of_frames_become_videos_which_are_kept(tmp_path):
    root = folder(tmp_path / "videos")
    data = videos(root)
    assert (data.kind, data.input_shape, data.class_names) == ("video", (3, 8, 12, 1), ("dim", "light"))
    assert (len(data.x_train), len(data.x_val), len(data.x_test), data.scale) == (4, 2, 2, 1 / 255)
    assert {tuple(shown(x)) for x, y in zip(data.x_train, data.y_train, strict=True) if y == 0} == {(2, 6, 10)}
    whole = next((tmp_path / "cache").rglob("train.npy"))
    written = whole.stat().st_mtime_ns
    assert videos(root).digest == data.digest
    assert whole.stat().st_mtime_ns == written
    storage.save(data, tmp_path / "saved")
    assert storage.open_saved(tmp_path / "saved").decoding == VideoDecoding(3, None, GREY)
    frame = root / "dim" / "s1_0" / "12.png"
    Image.fromarray(video_files.frames(1)[0]).save(frame)
    assert videos(root).digest != data.digest


def test_frames_of_more_bits_are_scaled_alike(tmp_path):
    for name, low in {"cold": 200, "warm": 3000}.items():
        for number in range(4):
            for place, value in enumerate((low, low + 300, low + 5000)):
                path = tmp_path / "videos" / name / str(number) / f"{place}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 12), value + number, np.uint16)).save(path)
    data = videos(tmp_path / "videos")
    expected = [np.rint(np.add((0, 300, 5000), low) * 255 / 8191) for low in (200, 3000)]
    found = data.x_train.mean(axis=(2, 3, 4))
    np.testing.assert_allclose(found, np.stack(expected)[data.y_train], atol=1)
    assert any("values from 0 to 8,191 become 0 to 255" in note for note in data.notes)
    path = tmp_path / "videos" / "cold" / "0"
    labels = Labels("classification", data.class_names, data.scale, data.decoding)
    np.testing.assert_allclose(read_inputs([path], labels)[0].mean(axis=(1, 2, 3)), expected[0], atol=1)


@pytest.mark.parametrize(
    ("frames", "fps", "expected"),
    [(4, None, [1, 4, 7, 10]), (12, None, [*range(12)]), (4, 5.0, [0, 2, 4, 6]), (4, 20.0, [0, 0, 1, 1])],
    ids=["spread", "all", "each second one", "more than there are"],
)
def test_frames_are_spread_evenly_or_taken_by_time(tmp_path, frames, fps, expected):
    path = video_files.write(tmp_path / "a.mkv", video_files.frames())
    assert shown(VideoDecoding(frames, fps, GREY).read(path)) == expected


def test_a_folders_frames_are_in_the_order_of_their_numbers(tmp_path):
    place = video_files.write_frames(tmp_path / "video", video_files.frames())
    assert shown(VideoDecoding(11, 25.0, GREY).read(place)) == [*range(11)]
    assert shown(VideoDecoding(3, None, GREY).read(place)) == [2, 6, 10]


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.mp4", "mpeg4", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p"), ("a.gif", "gif", "rgb8")],
)
def test_common_formats(tmp_path, name, codec, pixels):
    path = video_files.write(tmp_path / name, video_files.frames(12, 32, 48), codec, pixels)
    found = VideoDecoding(12, None, Decoding((16, 16), "rgb", "stretch", 180.0)).read(path)
    assert (found.shape, found.dtype) == ((12, 16, 16, 3), np.uint8)
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), np.arange(0, 120, 10), atol=20)


def test_frames_are_resized_and_turned_as_a_camera_was_held():
    picture = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 12, axis=1).repeat(12, axis=0))
    decoding = VideoDecoding(1, None, Decoding((6, 6), "grey", "crop", 180.0))
    assert decoding._picture(picture, 0)[0, [0, -1], 0].tolist() == [0, 255]
    assert decoding._picture(picture, 90)[[0, -1], 0, 0].tolist() == [255, 0]  # what was at the right is above


def test_frames_that_a_decoder_leaves_out_do_not_count(tmp_path, monkeypatch):
    path = video_files.write(tmp_path / "a.mkv", video_files.frames())
    monkeypatch.setattr("cnnsweep.data.video_decoding._packet_times", lambda path: np.arange(24) / 10)
    assert shown(VideoDecoding(3, None, GREY).read(path)) == [2, 6, 10]


BAD = {
    "text": (lambda path: path.write_text("no video"), "is no video that can be decoded"),
    "empty": (lambda path: path.write_bytes(b""), "is no video that can be decoded"),
    "playlist": (lambda path: path.write_text("ffconcat version 1.0\nfile s0_0.mkv\n"), "is no video that can be"),
    "broken": (lambda path: path.write_bytes(video_files.write(path, video_files.frames()).read_bytes()[:200]),
               "is no video|has no pictures|has 0 frames"),
    "short": (lambda path: video_files.write(path, video_files.frames(2)), "has 2 frames, fewer than data.frames=3"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_videos_are_named_or_skipped_and_counted(tmp_path, kind):
    root, (make, message) = folder(tmp_path / "videos"), BAD[kind]
    make(root / "light" / "bad.mkv")
    with pytest.raises(UserError, match=rf"light/bad.mkv: ({message})"):
        videos(root)
    assert "(1 unusable entry skipped)" in videos(root, skip_bad=True).source


def test_all_faults_stand_in_one_error(tmp_path):
    root = folder(tmp_path / "videos")
    (root / "dim" / "notes.txt").write_text("no video")
    video_files.write_frames(root / "light" / "short", video_files.frames(1))
    place = video_files.write_frames(root / "light" / "torn", video_files.frames())
    (place / "7.png").write_bytes(b"no image")
    (root / "empty").mkdir()
    with pytest.raises(UserError, match="4 faults") as error:
        videos(root)
    for text in ("class 'empty' is empty", "notes.txt: is no video", "short: has 1 frame, fewer than data.frames=3",
                 "torn: its frame 7.png is no image"):  # fmt: skip
        assert text in str(error.value)


def test_a_video_too_short_for_its_frames_a_second(tmp_path):
    path = video_files.write(tmp_path / "a.mkv", video_files.frames())
    with pytest.raises(BadVideoError, match=r"is 1.2 s long, too short for 8 frames at 5 a second"):
        VideoDecoding(8, 5.0, GREY).read(path)


def test_a_subject_stays_in_one_split_and_the_same_video_in_two_is_told(tmp_path):
    root = folder(tmp_path / "videos")
    data = videos(root, group="s[0-9]+")
    for split in data_sets.SPLITS:
        dim, light = data_sets.counts(data, split)
        assert dim == light > 0
    video_files.write(root / "test" / "dim" / "again.mkv", video_files.frames())
    for split, name in (("train", "dim"), ("train", "light"), ("test", "light")):
        video_files.write(root / split / name / "a.mkv", video_files.frames(first=5 + 9 * len(split + name)))
        video_files.write(root / split / name / "b.mkv", video_files.frames(first=6 + 9 * len(split + name)))
    video_files.write(root / "train" / "dim" / "once.mkv", video_files.frames())
    assert (
        "1 training video is in the test data too (train/dim/once.mkv = test/dim/again.mkv)" in videos(root).describe()
    )


def test_predict_decodes_as_training_did(tmp_path):
    root = folder(tmp_path / "videos")
    labels = Labels("classification", ("dim", "light"), 1 / 255, VideoDecoding(3, None, GREY))
    found = read_inputs([root / "dim" / "s0_0.mkv", root / "dim" / "s1_0"], labels)
    assert [shown(x) for x in found] == [[2, 6, 10]] * 2
    with pytest.raises(UserError, match=r"there is no video .*did you mean 's0_0.mkv'"):
        read_inputs([root / "dim" / "s00.mkv"], labels)
    (root / "notes.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"notes.mp4' is no video"):
        read_inputs([root / "notes.mp4"], labels)


def test_predict_takes_a_folder_of_frames_as_one_video_and_any_other_for_its_videos(tmp_path):
    root, model = folder(tmp_path / "videos", subjects=2), tmp_path / "model"
    model.mkdir()
    (model / "model.keras").touch()
    labels = {"kind": "video", "task": "classification", "classes": ["dim", "light"], "scale": 1 / 255}
    labels |= {"input_shape": [3, 8, 12, 1], "decoding": dataclasses.asdict(VideoDecoding(3, None, GREY))}
    (model / "labels.json").write_text(json.dumps(labels))
    frames, file = str(root / "dim" / "s1_0"), str(root / "dim" / "s0_0.mkv")
    assert inputs_in(model, [frames, str(root / "dim")]) == [frames, file, frames]
