# SPDX-License-Identifier: Apache-2.0
"""Proof that an SSH key is at hand: one signature over a challenge of this host.

Pure, and both sides: what is signed, the text that carries a signature, and whether it is one.
What makes a challenge good once and for a time is its token, which the caller makes and knows.
"""

import base64
from collections.abc import Iterable
from typing import Final

from pam_mfa.ssh_keys import SshKey, fingerprint, key_blob
from pam_mfa.ssh_wire import pack_strings
from pam_mfa.sshsig import (
    Proof,
    SignatureError,
    parse_armored,
    parse_public_key,
    verify_armored,
)

TEXT_MAX: Final = 8192  # characters of a signature's text
HASH: Final = "sha512"
BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
END: Final = "-----END SSH SIGNATURE-----"
_PREAMBLE: Final = b"SSHSIG" + (1).to_bytes(4, "big")  # PROTOCOL.sshsig, section 2
_WIDTH: Final = 70  # characters of a line, as ssh-keygen has them
# printf and a Unix shell, another shell's line end, and none.
_LINE_ENDS: Final = ("\n", "\r\n", "")


def namespace_of(host: str) -> str:
    """Return the namespace of signatures that enable a key: they are good for nothing else."""
    return f"pam-mfa-enable@{host}"


def make_challenge(host: str, user: str, key: SshKey, token: str) -> str:
    """Return the line that is signed: it says what the signature will be good for."""
    return f"enable ssh-key {fingerprint(key)} for {user} on {host}, once: {token}"


def format_armored(key: SshKey, namespace: str, signature: bytes) -> str:
    """Return the text of an agent's signature, as ``ssh-keygen -Y sign`` writes one."""
    parts = (key_blob(key), namespace.encode(), b"", HASH.encode(), signature)
    text = base64.b64encode(_PREAMBLE + pack_strings(*parts)).decode("ascii")
    lines = [text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH)]
    return "\n".join((BEGIN, *lines, END, ""))


def verify_possession(key: SshKey, text: str, host: str, challenges: Iterable[str]) -> Proof:
    """Check a signature's text: by this key, touched, for enabling here, over a challenge.

    Args:
        key: the key that is to be enabled; the one in the text must be the same.
        text: as ``ssh-keygen -Y sign`` writes it.
        host: this one.
        challenges: those that are good now.

    Returns:
        What the signature says: a touch at least, if the key lives on a security key.

    Raises:
        SignatureError: it proves nothing; the text says why.
    """
    if len(text) > TEXT_MAX:
        raise SignatureError("the signature is too long")
    if not text.isascii():
        raise SignatureError("it is not the text of an SSH signature")
    armored = parse_armored(text)
    if armored.key != parse_public_key(key_blob(key)):
        raise SignatureError("it was signed by another key")
    namespace = namespace_of(host)
    if armored.namespace != namespace:
        raise SignatureError(f"it was made for another purpose or host than {namespace}")
    for challenge in challenges:
        for end in _LINE_ENDS:
            message = (challenge + end).encode("utf-8", "surrogateescape")
            try:
                proof = verify_armored(armored, namespace, message)
            except SignatureError:
                continue
            if key.is_on_security_key and not proof.is_touched:
                raise SignatureError("nobody touched the security key for it")
            return proof
    raise SignatureError(
        "it is not over a challenge that is good now: that was used, is too old, or is "
        "another user's or key's"
    )
