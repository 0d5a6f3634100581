"""Provenance: pixels stay, readers find the record, hashes are those of the files."""

from __future__ import annotations

import hashlib
import json

import av
import pytest
import torch
from PIL import Image

from dynamicface import FacePipeline, cli
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


# --- Content Credentials --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """A certificate chain and private key of a studio that exists for this test only."""
    pytest.importorskip("c2pa", reason="needs c2pa-python")
    x509 = pytest.importorskip("cryptography.x509")
    from datetime import datetime, timedelta, timezone

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Test"), x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def certificate(subject, key, issuer, issuer_key, authority):
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
        )
        usage |= {"digital_signature": not authority, "key_cert_sign": authority, "crl_sign": authority}
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    folder = tmp_path_factory.mktemp("studio")
    (folder / "chain.pem").write_bytes(certificate("Studio", own, "Root", root, False) + certificate("Root", root, "Root", root, True))
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(own.private_bytes(*private))
    return folder


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_signed_picture_keeps_its_pixels_and_its_credentials(tmp_path, picture, studio, name):
    import c2pa

    from dynamicface.io.c2pa import ASSERTION, sign_picture

    path = tmp_path / name
    write_image(path, picture)
    before, record = read_image(path), Provenance("edit", generated=True, consent="hers")
    sign_picture(path, record, studio / "chain.pem", studio / "key.pem")
    assert torch.equal(read_image(path), before) and [file.name for file in tmp_path.iterdir()] == [name]
    with c2pa.Reader(path) as reader:
        store = json.loads(reader.json())
    manifest = store["manifests"][store["active_manifest"]]
    data = {assertion["label"]: assertion["data"] for assertion in manifest["assertions"]}
    assert data[ASSERTION]["consent"] == "hers" and manifest["signature_info"]["issuer"] == "Test"
    assert data["c2pa.actions.v2"]["actions"][0]["digitalSourceType"].endswith("compositeWithTrainedAlgorithmicMedia")
    problems = {status["code"] for status in store.get("validation_status", [])}
    assert problems <= {"signingCredential.untrusted"}, "sound, by a signer nobody trusts"

    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with c2pa.Reader(path) as reader:
        problems = {status["code"] for status in json.loads(reader.json()).get("validation_status", [])}
    assert "assertion.dataHash.mismatch" in problems


def clip_of(path, pictures: torch.Tensor) -> None:
    """A short clip."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for picture in pictures:
            file.mux(stream.encode(av.VideoFrame.from_ndarray((picture.numpy() * 255).astype("uint8"), format="rgb24")))
        file.mux(stream.encode(None))


def decoded(path) -> list:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in file.decode(video=0)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_a_clip_keeps_its_frames_and_holds_its_record_and_credentials(tmp_path, studio, name):
    import c2pa

    from dynamicface.io.c2pa import ASSERTION, sign_picture

    path = tmp_path / name
    clip_of(path, torch.rand(5, 24, 32, 3, generator=torch.Generator().manual_seed(0)))
    before, plain = decoded(path), path.read_bytes()
    record = Provenance("edit", consent="theirs")

    sidecar = record_provenance(record, [path])
    assert decoded(path) == before and path.read_bytes().startswith(plain)
    assert term(path.read_bytes()[len(plain) :].decode(errors="ignore")).endswith("/compositeSynthetic")
    path.write_bytes(plain)
    sidecar = record_provenance(record, [path], lambda file: sign_picture(file, record, studio / "chain.pem", studio / "key.pem"))
    assert decoded(path) == before
    assert json.loads(sidecar.read_text())["results"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

    with c2pa.Reader(path) as reader:
        store = json.loads(reader.json())
    manifest = store["manifests"][store["active_manifest"]]
    data = {assertion["label"]: assertion["data"] for assertion in manifest["assertions"]}
    assert data[ASSERTION]["consent"] == "theirs"
    assert {status["code"] for status in store.get("validation_status", [])} <= {"signingCredential.untrusted"}


def test_unfit_certificates_are_sentences(tmp_path, picture, studio):
    from dynamicface.io.c2pa import sign_picture

    path = tmp_path / "a.png"
    write_image(path, picture)
    before = path.read_bytes()
    for certificate, key in ((studio / "none.pem", studio / "key.pem"), (studio / "key.pem", studio / "chain.pem")):
        with pytest.raises(DynamicFaceError, match="could not be signed"):
            sign_picture(path, Provenance("edit"), certificate, key)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_an_edit_is_signed_on_the_command_line(tmp_path, portrait, pipeline, monkeypatch, studio):
    """The signature holds for the file with its record in it, and the sidecar's hash is the signed file's."""
    import c2pa

    monkeypatch.setattr(FacePipeline, "load", classmethod(lambda cls, device="cpu": pipeline))
    write_image(tmp_path / "plate.png", portrait)
    arguments = ["edit", tmp_path / "plate.png", "--set", "smile=0.5", "--out", tmp_path / "a.png"]
    assert cli.main([str(a) for a in (*arguments, "--c2pa", studio / "chain.pem", studio / "key.pem")]) == 0
    with c2pa.Reader(tmp_path / "a.png") as reader:
        problems = {status["code"] for status in json.loads(reader.json()).get("validation_status", [])}
    assert problems <= {"signingCredential.untrusted"}
    (result,) = json.loads((tmp_path / "a.png.provenance.json").read_text())["results"]
    assert result["sha256"] == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    with Image.open(tmp_path / "a.png") as image:
        assert "DigitalSourceType" in image.info["XML:com.adobe.xmp"]
