# SPDX-License-Identifier: Apache-2.0
"""Which models of security key may be enabled: policy's words, with the files that they name.

Reads those files and nothing else; what an attestation proves, ``factors`` judges.
"""

import datetime
import os
from pathlib import Path
from typing import Final

from pam_mfa.errors import BrokenSystemError
from pam_mfa.factors.attestation import Models
from pam_mfa.policy import Fido
from pam_mfa.store.files import read_file

_FILE_MAX: Final = 64 * 1024 * 1024  # bytes; of the FIDO Alliance's, about 10 million
_WRITABLE_BY_OTHERS: Final = 0o022
# Where distributions keep the public roots: Debian and Ubuntu, Fedora and RHEL.
_PUBLIC_ROOTS: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


def load_models(fido: Fido, now: float) -> Models:
    """Read the files that policy names for attestation.

    Args:
        fido: policy's part.
        now: in seconds since the epoch.

    Raises:
        BrokenSystemError: one cannot be used.
    """
    if not (fido.roots or fido.metadata):
        return Models(fido.aaguids)
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - start-up cost
        Encoding,
    )

    from pam_mfa.factors.metadata import (  # noqa: PLC0415
        find_pinned_root,
        load_certificates,
        parse_metadata,
    )

    roots = load_certificates(_read(fido.roots), fido.roots) if fido.roots else []
    ders = tuple(one.public_bytes(Encoding.DER) for one in roots)
    if not fido.metadata:
        return Models(fido.aaguids, ders)
    if fido.metadata_root:
        signer = load_certificates(_read(fido.metadata_root), fido.metadata_root)[0]
    else:
        public = next((one for one in _PUBLIC_ROOTS if Path(one).exists()), _PUBLIC_ROOTS[0])
        pinned = find_pinned_root(load_certificates(_read(public), public))
        if pinned is None:
            raise BrokenSystemError(
                f"{public} has not the root 'GlobalSign Root CA - R3' that signs FIDO metadata",
                hint="Name a file with it in the policy: fido: attestation: metadata_root.",
            )
        signer = pinned
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    metadata = parse_metadata(_read(fido.metadata), fido.metadata, signer, moment)
    return Models(fido.aaguids, ders, metadata)


def _read(path: str) -> bytes:
    """Read a file that only its owner, root or us, can write."""
    try:
        return read_file(
            Path(os.path.realpath(path)),
            owners={0, os.geteuid()},
            forbidden=_WRITABLE_BY_OTHERS,
            size_max=_FILE_MAX,
        )
    except FileNotFoundError as error:
        raise BrokenSystemError(
            f"there is no {path}, which the policy names for attestation",
            hint="Put it there, or take it out of the policy: fido: attestation.",
        ) from error
