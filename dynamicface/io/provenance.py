"""Where a picture or clip comes from: a record beside it (JSON) and inside it (XMP with IPTC's digital source type; PNG, JPEG, MP4, MOV).

The record names the sources by hash, the models by hash, the settings or the workflow, and what the artist wrote about consent.
DigitalSourceType (IPTC NewsCodes, read by C2PA viewers, search engines and archives):
- compositeWithTrainedAlgorithmicMedia where a trained generator made pixels;
- compositeSynthetic where plate and model render were composited, as the prior path does.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from xml.sax.saxutils import escape

from torch import Tensor

from ..errors import DynamicFaceError
from ..weights import registry
from .documents import write_json

SCHEMA = "dynamicface.provenance.1"
_TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_PNG = b"XML:com.adobe.xmp"
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_CLIPS = (".mp4", ".m4v", ".mov")
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # Adobe's name of the box that holds XMP in ISO media files
_JPEG_LIMIT = 65_500  # bytes of one application segment
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:dynamicface="https://github.com/dynamicface/dynamicface/ns/1.0/">
<Iptc4xmpExt:DigitalSourceType>{term}</Iptc4xmpExt:DigitalSourceType>
<xmp:CreatorTool>{software}</xmp:CreatorTool>
<dynamicface:Provenance>{record}</dynamicface:Provenance>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


@dataclass(frozen=True)
class Source:
    """A picture or clip that went in."""

    role: str  # plate, identity ..
    sha256: str
    name: str = ""  # file name, without its folder


@dataclass(frozen=True)
class Provenance:
    """How a result was made."""

    action: str  # edit, swap ..
    sources: tuple[Source, ...] = ()
    generated: bool = False  # a trained generator made pixels
    settings: Mapping[str, object] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=lambda: shipped_models())  # name -> sha256
    graph_sha256: str | None = None  # of the workflow as canonical JSON
    consent: str = ""  # in the artist's words: who agreed to what, where the release is kept
    software: str = "DynamicFace"
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    @property
    def digital_source_type(self) -> str:
        """The IPTC term as an address."""
        return _TERMS + ("compositeWithTrainedAlgorithmicMedia" if self.generated else "compositeSynthetic")

    def document(self) -> dict:
        """The record as JSON values."""
        return {"schema": SCHEMA, "digital_source_type": self.digital_source_type} | asdict(self)


def shipped_models() -> dict[str, str]:
    """Name and sha256 of every weight file of the package."""
    return {row.id: row.sha256 for row in registry().values()}


def source_file(role: str, path: str | Path) -> Source:
    """A file by the hash of its bytes."""
    path = Path(path)
    return Source(role, _sha256(path), path.name)


def source_pixels(role: str, pictures: Tensor) -> Source:
    """Frames (F, H, W, C) by the hash of their shape and float32 values, where no file is known."""
    digest = hashlib.sha256(repr(tuple(pictures.shape)).encode())
    for frame in pictures:
        digest.update(frame.detach().float().cpu().contiguous().numpy())
    return Source(role, digest.hexdigest())


def hash_graph(graph: object) -> str:
    """sha256 of JSON values written with sorted keys and without spaces."""
    return hashlib.sha256(json.dumps(graph, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()


def record_provenance(provenance: Provenance, paths: Sequence[str | Path], sign: Callable[[Path], None] | None = None) -> Path:
    """Write the record into each PNG, JPEG, MP4 or MOV, and one sidecar for all beside the first: `first file.provenance.json`.

    sign: called with each file once the record is in it. The sidecar holds the files' hashes as they are then. Returns it.
    Raises DynamicFaceError where a picture is no longer one.
    """
    paths = [Path(path) for path in paths]
    for path in paths:
        if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
            path.write_bytes(embed_record(path.read_bytes(), provenance, path))
        elif path.suffix.lower() in _CLIPS:
            box = b"uuid" + _XMP_BOX + _packet(provenance)
            with path.open("ab") as file:  # a box at the end: what is in the file stays where it is
                file.write(struct.pack(">I", len(box) + 4) + box)
        if sign is not None:
            sign(path)
    results = [{"name": path.name, "sha256": _sha256(path)} for path in paths]
    sidecar = paths[0].with_name(f"{paths[0].name}.provenance.json")
    write_json(sidecar, provenance.document() | {"results": results})
    return sidecar


def embed_record(content: bytes, provenance: Provenance, name: str | Path = "The picture") -> bytes:
    """A PNG or JPEG file with the record as XMP; its pixels are not touched. Raises DynamicFaceError for other content."""
    packet = _packet(provenance)
    if content.startswith(_PNG):
        end = 8 + 12 + struct.unpack(">I", content[8:12])[0]  # behind the header chunk
        text = b"iTXt" + _XMP_PNG + b"\0\0\0\0\0" + packet
        return content[:end] + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)) + content[end:]
    if content.startswith(_JPEG):
        if len(packet) > _JPEG_LIMIT:
            raise DynamicFaceError(f"The record for {name} is {len(packet):,} bytes; a JPEG holds {_JPEG_LIMIT:,}. Save as PNG.")
        return _JPEG + b"\xff\xe1" + struct.pack(">H", len(_XMP_JPEG) + len(packet) + 2) + _XMP_JPEG + packet + content[2:]
    raise DynamicFaceError(f"{name} is neither PNG nor JPEG; its provenance can only lie beside it.")


def _packet(provenance: Provenance) -> bytes:
    """The record as XMP."""
    record = json.dumps(provenance.document(), ensure_ascii=False)
    return _XMP.format(term=provenance.digital_source_type, software=escape(provenance.software), record=escape(record)).encode()


def _sha256(path: Path) -> str:
    """Of a file of any length."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
