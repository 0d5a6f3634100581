"""Content Credentials: sign a picture's or clip's provenance with the studio's own certificate, by the C2PA standard.

Written with c2pa-python (`pip install c2pa-python`), which is imported only here. Without a certificate nothing is signed; a record that is
not signed can be changed by anyone, so the JSON and XMP of `provenance.py` are statements, not proofs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..errors import DynamicFaceError
from .provenance import Provenance

ASSERTION = "org.dynamicface.provenance"


def sign_picture(
    path: str | Path,
    provenance: Provenance,
    certificate: str | Path,
    key: str | Path,
    *,
    algorithm: str = "es256",
    timestamp_url: str | None = None,
) -> None:
    """Sign a picture or an MP4 or MOV clip in place. Do this last: whatever changes the file afterwards breaks the signature.

    certificate: PEM chain, the signer's first; key: its PEM private key; algorithm: as the key, es256, es384, ps256, ed25519 ..
    timestamp_url: a time stamping authority, which is asked over the network; None signs without time stamp and stays offline.
    Raises DynamicFaceError where c2pa-python is missing, a file cannot be read, or certificate, key and algorithm do not fit.
    """
    try:
        import c2pa
    except ImportError as error:
        raise DynamicFaceError("Signing needs the package c2pa-python; install it with `pip install c2pa-python`.") from error
    path = Path(path)
    document = provenance.document()
    actions = [
        {"action": "c2pa.created", "digitalSourceType": provenance.digital_source_type, "softwareAgent": {"name": provenance.software}}
    ]
    manifest = {
        "claim_generator_info": [{"name": provenance.software}],
        "title": path.name,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}, {"label": ASSERTION, "data": document}],
    }
    signed = path.with_name(f".{path.stem}.signed{path.suffix}")
    try:
        chain, secret = Path(certificate).read_bytes(), Path(key).read_bytes()
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, chain, secret, timestamp_url))
        c2pa.Builder(json.dumps(manifest)).sign_file(path, signed, signer)
        os.replace(signed, path)
    except (OSError, ValueError, c2pa.C2paError) as error:
        raise DynamicFaceError(f"{path} could not be signed ({error}). Check certificate chain, private key and algorithm.") from error
    finally:
        signed.unlink(missing_ok=True)
