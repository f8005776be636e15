"""Decoding: formats, modes, orientation, ways to fit, and JPEGs that libjpeg scales."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cnnsweep.data.image_decoding import BadImageError, Decoding, any_size
from cnnsweep.data.image_decoding import decode as decode_with


def decode(raw: bytes, size: tuple[int, int], color: str, resize: str, most: float = 180) -> np.ndarray:
    return decode_with(raw, Decoding(size, color, resize, most))


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("a.jpg", {"colour": (200, 100, 50), "quality": 95}, (200, 100, 50)),
        ("a.JPEG", {"colour": (10, 20, 30, 40), "mode": "CMYK", "quality": 95, "format": "jpeg"}, (206, 198, 190)),
        ("a.png", {"colour": 77, "mode": "L"}, (77, 77, 77)),
        ("a.png", {"colour": 77 * 256, "mode": "I;16"}, (77, 77, 77)),
        ("a.png", {"colour": 1, "mode": "1"}, (255, 255, 255)),
        ("a.png", {"colour": (200, 100, 50, 0), "mode": "RGBA"}, (255, 255, 255)),
        ("a.png", {"colour": (200, 100, 50, 255), "mode": "RGBA"}, (200, 100, 50)),
        ("a.png", {"colour": (100, 0), "mode": "LA"}, (255, 255, 255)),
        ("a.bmp", {"colour": (200, 100, 50)}, (200, 100, 50)),
    ],
)
def test_every_mode_becomes_colour_and_grey(tmp_path, name, settings, expected):
    settings = {"mode": "RGB", **settings}
    Image.new(settings.pop("mode"), (12, 10), settings.pop("colour")).save(tmp_path / name, **settings)
    raw = (tmp_path / name).read_bytes()
    colour, grey = decode(raw, (6, 7), "rgb", "crop"), decode(raw, (6, 7), "grey", "crop")
    assert (colour.shape, grey.shape, colour.dtype) == ((6, 7, 3), (6, 7, 1), np.uint8)
    np.testing.assert_allclose(colour[3, 3], expected, atol=4)
    np.testing.assert_allclose(grey[3, 3], np.dot(expected, [0.299, 0.587, 0.114]), atol=4)


def test_palettes_and_the_first_frame_of_a_gif(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 10, 10), (10, 250, 10))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[1].quantize(4).save(tmp_path / "a.png")
    for name, colour in (("a.gif", (250, 10, 10)), ("a.png", (10, 250, 10))):
        pixels = decode((tmp_path / name).read_bytes(), (8, 8), "rgb", "crop")
        np.testing.assert_allclose(pixels[4, 4], colour, atol=3)


@pytest.mark.parametrize("size", [(10, 10), (11, 11)])
@pytest.mark.parametrize(("orientation", "white"), [(1, slice(0, 4)), (3, slice(-4, None))])
def test_a_camera_s_orientation_is_applied(tmp_path, size, orientation, white):
    image = Image.new("RGB", (40, 40), "black")
    image.paste((255, 255, 255), (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif)
    upright = decode((tmp_path / "a.jpg").read_bytes(), size, "grey", "crop")[..., 0]
    assert upright[white].min() > 200
    assert upright[::-1][white].max() < 60


TURNED = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("size", [(10, 10), (11, 11)])
@pytest.mark.parametrize("format", ["jpeg", "png", "png, by ImageMagick", "tiff"])
def test_orientation_is_found_wherever_programs_write_it(format, size):
    image, exif, file, text = Image.new("RGB", (40, 40), "black"), Image.Exif(), io.BytesIO(), PngInfo()
    image.paste((255, 255, 255), (0, 0, 40, 20))
    exif[0x0112] = 3
    raw = exif.tobytes()
    if "," in format:
        text.add_text("Raw profile type exif", f"\nexif\n    {len(raw)}\n{raw.hex()}\n", zip=True)
    else:
        text.add_itxt("XML:com.adobe.xmp", TURNED)
    settings = {"jpeg": {"xmp": TURNED.encode()}, "tiff": {"exif": exif}}.get(format, {"pnginfo": text})
    image.save(file, format.partition(",")[0], **settings)
    upright = decode(file.getvalue(), size, "grey", "crop")[..., 0]
    assert upright[-4:].min() > 200
    assert upright[:4].max() < 60


@pytest.mark.parametrize("values", [None, (0.0, 1.0)])
@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_no_pixels(values, strange):
    pixels, file = np.full((8, 8), 0.5, np.float32), io.BytesIO()
    pixels[3, 3] = strange
    Image.fromarray(pixels).save(file, "tiff")
    with pytest.raises(BadImageError, match="holds values that are no numbers"):
        decode_with(file.getvalue(), Decoding((8, 8), "grey", "crop", 180, values))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12", b"Exif\0\0"], ids=["text", "cut", "none"]
)
@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_what_a_camera_says_may_be_broken(exif, format):
    file = io.BytesIO()
    Image.new("RGB", (12, 10), (200, 100, 50)).save(file, format, exif=exif)
    pixels = decode(file.getvalue(), (7, 8), "rgb", "crop")
    np.testing.assert_allclose(pixels[3, 3], (200, 100, 50), atol=4)


@pytest.mark.parametrize(
    ("format", "settings"),
    [("webp", {"save_all": True, "lossless": True}), ("gif", {"save_all": True}), ("png", {"save_all": True})],
)
def test_of_an_animation_the_first_frame_is_taken_and_its_transparency_is_white(format, settings):
    frames, file = [Image.new("RGBA", (8, 8), colour) for colour in ((0, 0, 0, 0), (9, 9, 9, 255))], io.BytesIO()
    frames[0].save(file, format, append_images=frames[1:], **settings)
    assert decode(file.getvalue(), (4, 4), "grey", "crop").min() == 255


@pytest.mark.parametrize(("resize", "left", "top"), [("crop", 255, 255), ("pad", 0, 255), ("stretch", 255, 255)])
def test_ways_to_fit_a_tall_image(tmp_path, resize, left, top):
    """White in the middle half of its height, black above and below."""
    image = Image.new("L", (20, 40), 0)
    image.paste(255, (0, 10, 20, 30))
    image.save(tmp_path / "a.png")
    fitted = decode((tmp_path / "a.png").read_bytes(), (20, 20), "grey", resize)[..., 0]
    assert fitted[10, 0] == left
    assert fitted[1, 10] == (top if resize == "crop" else 0)
    assert fitted[10, 10] == 255


# Scales of a JPEG


def jpeg(height: int, width: int, **settings: Any) -> bytes:
    """Like a photograph: detail at every scale, the finer the fainter, and of about the same hue."""
    random, image, file = np.random.default_rng(0), np.zeros((height, width)), io.BytesIO()
    for cells in (4, 8, 16, 32, 64, 128, 256):
        noise = Image.fromarray(random.integers(0, 256, (cells, cells), np.uint8))
        image += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) / cells**0.5
    colours = (image[..., np.newaxis] / image.max() * (250, 200, 150)).astype(np.uint8)
    Image.fromarray(colours).save(file, "jpeg", **{"quality": 92, **settings})
    return file.getvalue()


def resized(raw: bytes, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    with Image.open(io.BytesIO(raw)) as image:
        return np.asarray(image.resize(size[::-1], method))


def by_pillow(monkeypatch: pytest.MonkeyPatch, *what: Any) -> np.ndarray | str:
    """What comes of it, or the error's text, where Pillow alone decodes."""
    with monkeypatch.context() as patch:
        patch.setattr("cnnsweep.data.image_decoding._decode_jpeg", lambda *_: None)
        return outcome(*what)


def outcome(*what: Any) -> np.ndarray | str:
    try:
        return decode(*what)
    except BadImageError as error:
        return str(error)


@pytest.mark.parametrize("eighths", [2, 4, 5, 7])
def test_a_jpeg_that_needs_no_resizing_is_nearer_to_the_ideal_than_resizing_is(eighths):
    raw, size = jpeg(256, 384), (32 * eighths, 48 * eighths)
    ideal, smooth = (resized(raw, size, Image.Resampling[name]).astype(float) for name in ("LANCZOS", "BILINEAR"))
    ours = decode(raw, size, "rgb", "stretch")
    assert np.abs(ours - ideal).mean() < np.abs(smooth - ideal).mean()
    middle = size[1] // 2 - size[0] // 2
    cropped = decode(raw, (size[0], size[0]), "rgb", "crop")
    np.testing.assert_array_equal(cropped, ours[:, middle : middle + size[0]])
    padded = decode(raw, (size[1], size[1]), "rgb", "pad")
    np.testing.assert_array_equal(padded[(size[1] - size[0]) // 2 :][: size[0]], ours)


@pytest.mark.parametrize("eighths", [2, 3, 4])
def test_stripes_finer_than_the_result_become_grey(tmp_path, eighths):
    image = np.zeros((256, 256), np.uint8)
    image[:, ::2] = 255
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=95)
    found = decode((tmp_path / "a.jpg").read_bytes(), (32 * eighths, 32 * eighths), "grey", "crop")
    assert 90 < found.min() <= found.max() < 165


@pytest.mark.parametrize(("resize", "size"), [("crop", (468, 468)), ("pad", (500, 500)), ("stretch", (500, 468))])
@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"keep_rgb": True}])
def test_at_full_size_the_pixels_are_pillow_s(monkeypatch, resize, size, settings):
    raw = jpeg(500, 468, **settings)
    for color in ("rgb", "grey"):
        what = (raw, size, color, resize)
        np.testing.assert_array_equal(decode(*what), by_pillow(monkeypatch, *what))


def test_a_broken_jpeg_has_pillow_s_error(monkeypatch):
    raw = jpeg(64, 64)
    texts = set()
    for end in (2, 3, 20, 400, len(raw) // 2, len(raw) - 30, len(raw) - 2, len(raw)):
        for tail in (b"", b"\xff\xd9", b"more"):
            what = (raw[:end] + tail, (56, 56), "rgb", "crop")
            ours, pillow = outcome(*what), by_pillow(monkeypatch, *what)
            assert isinstance(ours, str) == isinstance(pillow, str)
            if isinstance(ours, str):
                assert ours == pillow
                texts.add(ours)
    assert "is no image (JPEG, PNG, BMP, GIF, TIFF, WEBP or PPM)" in texts
    assert any("truncated" in text for text in texts)


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff"])
def test_only_the_setting_limits_the_size_of_an_image(monkeypatch, format):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own, which any_size lifts
    file = io.BytesIO()
    Image.new("L", (64, 50)).save(file, format)
    with any_size():
        with pytest.raises(
            BadImageError, match=r"has 0\.0 megapixels \(64×50\), more than data\.max_megapixels=0\.003"
        ):
            decode(file.getvalue(), (50, 50), "rgb", "crop", most=0.003)
        assert decode(file.getvalue(), (50, 50), "rgb", "crop", most=0.0032).shape == (50, 50, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000
