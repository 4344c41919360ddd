# SPDX-License-Identifier: Apache-2.0
"""A vendor of hardware tokens, who delivers their seeds in a file that Debian's pskctool made.

pskctool makes no seeds: it reads a document (RFC 6030), writes it anew in its own form and signs
it. Owns that document and the vendor's signing key.
"""

import subprocess
from base64 import b64encode
from pathlib import Path

from installed import DataRoot
from otp_device import OtpDevice

NAMESPACE = "urn:ietf:params:xml:ns:keyprov:pskc"
COUNTER = 7  # the first of an event-based token: the vendor has tried it out


class TokenVendor:
    """A vendor with a signing key of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        """Make the key and its certificate."""
        self._folder = folder
        self._key, self._certificate = folder / "vendor.key", folder / "vendor.crt"
        subject = ["-subj", "/CN=vendor-of-tests", "-days", "30", "-nodes"]
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *subject]
        _run(*make, "-keyout", self._key, "-out", self._certificate)

    def deliver(self, root: DataRoot, *tokens: OtpDevice) -> str:
        """Have pskctool make a file of these tokens, and import it; return what is said of it."""
        plain, signed = self._folder / "plain.xml", root.path / "tokens.xml"
        packages = "".join(map(_key_package, tokens))
        plain.write_text(
            f'<KeyContainer Version="1.0" xmlns="{NAMESPACE}">{packages}</KeyContainer>\n'
        )
        key, certificate = self._key, self._certificate
        made = _run("pskctool", "--sign", "--sign-key", key, "--sign-crt", certificate, plain)
        signed.write_text(made)
        assert _run("pskctool", "--verify", "--verify-crt", certificate, signed) == "OK\n"
        return root.command("token", "import", str(signed)).stdout


def _key_package(token: OtpDevice) -> str:
    """Return a token's KeyPackage, its seed in plain."""
    kind, more = "hotp", f"<Counter>{_plain(COUNTER)}</Counter>"
    if token.period:
        kind = "totp"
        more = f"<Time>{_plain(0)}</Time><TimeInterval>{_plain(token.period)}</TimeInterval>"
    secret = _plain(b64encode(token.seed).decode("ascii"))
    response = f'<ResponseFormat Length="{token.digits}" Encoding="DECIMAL"/>'
    return f"""
<KeyPackage>
<DeviceInfo><Manufacturer>Acme</Manufacturer><SerialNo>{token.name}</SerialNo></DeviceInfo>
<Key Id="{token.name}" Algorithm="{NAMESPACE}:{kind}">
<Issuer>Acme</Issuer>
<AlgorithmParameters>{response}</AlgorithmParameters>
<Data><Secret>{secret}</Secret>{more}</Data>
</Key>
</KeyPackage>"""


def _plain(value: object) -> str:
    """Return a value that is not encrypted."""
    return f"<PlainValue>{value}</PlainValue>"


def _run(*argv: str | Path) -> str:
    """Run one of the vendor's programs and return what it printed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout
