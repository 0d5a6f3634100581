"""Pictures and priors on disk: what is written is read back, odd files work, broken ones are sentences."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from dynamicface.errors import ImageError, WeightsError
from dynamicface.io.pictures import read_image, write_image
from dynamicface.io.priors import load_prior, save_prior


@pytest.fixture
def picture() -> torch.Tensor:
    """(1, 13, 21, 3) of exact eighths of a byte's range; odd sizes."""
    return torch.randint(0, 256, (1, 13, 21, 3), generator=torch.Generator().manual_seed(0)).float() / 255


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "Ümläut 顔.png", "deep/er/folder/a.png", "UPPER.PNG"])
def test_eight_bits_come_back_exactly(tmp_path, picture, name):
    write_image(tmp_path / name, picture)
    back = read_image(tmp_path / name)
    limit = 0.15 if name.endswith(".webp") else 0.0  # lossy
    assert back.shape == picture.shape and back.dtype == torch.float32 and (back - picture).abs().max() <= limit


def test_sixteen_bits(tmp_path):
    fine = torch.linspace(0, 1, 3 * 64 * 8).view(1, 8, 64, 3)
    write_image(tmp_path / "a.png", fine, bits=16)
    torch.testing.assert_close(read_image(tmp_path / "a.png"), fine, atol=0.6 / 65535, rtol=0)


def test_floating_point_tiff_is_not_clamped(tmp_path, picture):
    wide = picture * 9 - 2
    write_image(tmp_path / "a.tif", wide)
    assert torch.equal(read_image(tmp_path / "a.tif"), wide)


def test_linear_formats_become_display_referred(tmp_path):
    cv2.imwrite(str(tmp_path / "a.hdr"), np.full((4, 5, 3), 4.0, np.float32))
    display = read_image(tmp_path / "a.hdr")
    torch.testing.assert_close(display, torch.full((1, 4, 5, 3), 1.055 * 4 ** (1 / 2.4) - 0.055), atol=0.02, rtol=0)
    write_image(tmp_path / "b.hdr", display)
    np.testing.assert_allclose(cv2.imread(str(tmp_path / "b.hdr"), cv2.IMREAD_UNCHANGED), 4.0, rtol=0.02)


def test_values_beyond_the_range_of_bytes_are_cut_only_when_written(tmp_path):
    write_image(tmp_path / "a.png", torch.tensor([-1.0, 0.5, 3.0]).view(1, 1, 1, 3))
    assert read_image(tmp_path / "a.png").flatten().tolist() == pytest.approx([0.0, 128 / 255, 1.0])


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_grey_alpha_palette_and_bilevel_become_rgb(tmp_path, mode):
    grey = np.tile(np.array([0, 255], np.uint8), (6, 5))
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(tmp_path / "a.png")
    back = read_image(tmp_path / "a.png")
    assert torch.equal(back, torch.from_numpy(grey / 255).float()[None, ..., None].expand(1, 6, 10, 3))


@pytest.mark.parametrize(("orientation", "undo"), [(1, None), (3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90)])
def test_photos_are_turned_upright(tmp_path, orientation, undo):
    """The camera's orientation tag: what the viewer sees is what the tracker gets."""
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:12, :18] = 255
    stored = Image.fromarray(upright)
    stored = stored if undo is None else stored.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", quality=95, exif=exif)
    back = read_image(tmp_path / "a.jpg")
    assert back.shape == (1, 40, 60, 3)
    assert back[0, :8, :14].mean() > 0.9 and back[0, 20:].mean() < 0.05


def encoded(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_cut_off_picture_is_a_sentence(tmp_path, capfd, kind, share):
    content = encoded(kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError, match=r"cut\..* is not a picture this library can read .*, or it is cut off"):
        read_image(path)
    assert capfd.readouterr().err == "", "the codecs say nothing beside"


@pytest.mark.parametrize("content", [b"", b"no picture", bytes(1000)])
def test_other_files_are_a_sentence(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png is not a picture"):
        read_image(path)


def test_missing_files_and_folders_are_sentences(tmp_path):
    for path, sentence in ((tmp_path / "none.png", "There is no file"), (tmp_path, "is a folder; name one picture in it")):
        with pytest.raises(ImageError, match=sentence):
            read_image(path)


def test_a_picture_of_nan_is_a_sentence(tmp_path):
    write_image(tmp_path / "a.tif", torch.full((1, 4, 4, 3), float("nan")))
    with pytest.raises(ImageError, match=r"a\.tif holds NaN or infinite pixels"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a", "a.xyz", "a.safetensors"])
def test_unknown_endings_are_sentences(tmp_path, picture, name):
    with pytest.raises(ImageError, match="is no picture format that can be written here"):
        write_image(tmp_path / name, picture)
    assert not (tmp_path / name).exists()


# --- priors -------------------------------------------------------------------------------------------------------------


def test_a_prior_comes_back(tmp_path, fitted):
    save_prior(fitted, tmp_path / "new" / "a.safetensors")
    back = load_prior(tmp_path / "new" / "a.safetensors")
    for name in ("expression", "gaze", "rotation", "translation", "focal", "illumination", "offset", "confidence"):
        assert torch.equal(getattr(back, name), getattr(fitted, name)), name
    assert torch.equal(back.identity.shape, fitted.identity.shape) and torch.equal(back.identity.embedding, fitted.identity.embedding)
    torch.testing.assert_close(back.identity.albedo, fitted.identity.albedo, atol=1e-3, rtol=1e-3)
    assert back.image_size == fitted.image_size and back.background is None


def test_a_prior_without_texture_comes_back_without(tmp_path, fitted):
    bare = fitted.replace(identity=type(fitted.identity)(fitted.identity.shape))
    save_prior(bare, tmp_path / "a.safetensors")
    identity = load_prior(tmp_path / "a.safetensors").identity
    assert identity.albedo is None and identity.albedo_weight is None and identity.embedding is None


def test_broken_priors_are_sentences(tmp_path, fitted):
    path = tmp_path / "a.safetensors"
    save_prior(fitted, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"cannot be read as a face prior .* Save it again"):
        load_prior(path)
    with pytest.raises(WeightsError, match="cannot be read as a face prior"):
        load_prior(tmp_path / "none.safetensors")
    save_file({"expression": torch.zeros(1, 52)}, path)
    with pytest.raises(WeightsError, match="is no face prior of this version: schema None, expected"):
        load_prior(path)


def test_the_file_says_what_it_is(tmp_path, fitted):
    save_prior(fitted, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"schema": "dynamicface.prior.1", "image_size": "[512, 512]"}
