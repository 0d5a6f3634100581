"""Provenance: pixels stay, readers find the record, hashes are those of the files."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from PIL import Image

from dynamicface.errors import DynamicFaceError
from dynamicface.io.pictures import read_image, write_image
from dynamicface.io.provenance import Provenance, embed_record, hash_graph, record_provenance, source_file, source_pixels
from dynamicface.weights import registry


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand(1, 17, 23, 3, generator=torch.Generator().manual_seed(0))


def term(xmp: str) -> str:
    return xmp.split("<Iptc4xmpExt:DigitalSourceType>")[1].split("<")[0]


@pytest.mark.parametrize(("name", "bits"), [("a.png", 8), ("a.png", 16), ("a.jpg", 8)])
def test_the_record_is_in_the_picture_and_the_pixels_stay(tmp_path, picture, name, bits):
    path = tmp_path / name
    write_image(path, picture, bits)
    before = read_image(path)
    record = Provenance("swap", (source_file("plate", path),), consent='Ann & Bob, <"release 7">, 顔')
    sidecar = record_provenance(record, [path])
    assert torch.equal(read_image(path), before)
    with Image.open(path) as image:
        image.load()
        xmp = image.info["xmp"].decode() if name.endswith("jpg") else image.info["XML:com.adobe.xmp"]
    assert term(xmp) == "http://cv.iptc.org/newscodes/digitalsourcetype/compositeSynthetic"
    document = json.loads(sidecar.read_text())
    assert document["consent"] == record.consent and document["action"] == "swap" and sidecar.name == f"{name}.provenance.json"
    assert document["results"] == [{"name": name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}]
    assert document["models"]["head"] == registry()["head"].sha256


def test_the_xmp_is_well_formed_and_holds_the_record(picture, tmp_path):
    from xml.etree import ElementTree

    write_image(tmp_path / "a.png", picture)
    record = Provenance("edit", generated=True, settings={"smile": 0.8}, consent="<&>")
    (tmp_path / "b.png").write_bytes(embed_record((tmp_path / "a.png").read_bytes(), record))
    with Image.open(tmp_path / "b.png") as image:
        root = ElementTree.fromstring(image.info["XML:com.adobe.xmp"].encode())
    values = {element.tag.split("}")[1]: element.text for element in root.iter()}
    assert json.loads(values["Provenance"]) == json.loads(json.dumps(record.document()))
    assert values["DigitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")


def test_other_formats_have_the_sidecar_only(tmp_path, picture):
    write_image(tmp_path / "a.tif", picture)
    before = (tmp_path / "a.tif").read_bytes()
    assert record_provenance(Provenance("edit"), [tmp_path / "a.tif"]).is_file()
    assert (tmp_path / "a.tif").read_bytes() == before
    with pytest.raises(DynamicFaceError, match="neither PNG nor JPEG"):
        embed_record(before, Provenance("edit"))


def test_hashes_follow_the_content(picture):
    assert source_pixels("plate", picture) == source_pixels("plate", picture.clone())
    other = picture.clone()
    other[0, 0, 0, 0] = torch.nextafter(other[0, 0, 0, 0], torch.tensor(2.0))
    assert source_pixels("plate", picture) != source_pixels("plate", other)
    assert source_pixels("plate", picture) != source_pixels("plate", picture.reshape(1, 23, 17, 3))
    assert hash_graph({"a": 1, "b": [2]}) == hash_graph({"b": [2], "a": 1}) != hash_graph({"a": 1, "b": [3]})


def test_a_record_too_long_for_jpeg_is_a_sentence(tmp_path, picture):
    write_image(tmp_path / "a.jpg", picture)
    with pytest.raises(DynamicFaceError, match="Save as PNG"):
        embed_record((tmp_path / "a.jpg").read_bytes(), Provenance("edit", consent="x" * 70_000))
