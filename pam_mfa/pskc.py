# SPDX-License-Identifier: Apache-2.0
"""Portable Symmetric Key Container (RFC 6030), read by python-pskc over defusedxml.

Owns the RFC's words and the refusal of what is not authenticated: an encrypted seed without a
MAC could be changed into another one (RFC 6030, section 6.1.1).
"""

import io
import re
from typing import Any, Final

from pam_mfa.errors import RefusedError
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.secret import Secret
from pam_mfa.tokens import BadEntry, Delivery, Token, find_fault

_PROFILES: Final = {  # RFC 6030, section 10.4, and RFC 6238's registration
    "urn:ietf:params:xml:ns:keyprov:pskc:hotp": True,
    "urn:ietf:params:xml:ns:keyprov:pskc:totp": False,
}
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_KEY = re.compile(rb"<(?:[\w.-]+:)?Key\b(?!Package)")
_KEY_PACKAGE = re.compile(rb"<(?:[\w.-]+:)?KeyPackage\b")


def parse_pskc(
    data: bytes, source: str, *, key: Secret | None = None, password: str | None = None
) -> Delivery:
    """Read a PSKC document.

    Args:
        data: the file's bytes.
        source: its name, for messages.
        key: the pre-shared key, where seeds are encrypted with one.
        password: the password, where the key is derived from one.

    Raises:
        RefusedError: it is not PSKC, or the key or password is missing or wrong.
    """
    container = _parse_container(data, source)
    is_encrypted = bool(container.encryption.is_encrypted)
    if is_encrypted:
        _unlock(container, source, key, password)
    lines = _key_lines(data)
    tokens: list[Token] = []
    bad: list[BadEntry] = []
    seen: set[str] = set()
    for index, entry in enumerate(container.keys):
        line = lines[index] if index < len(lines) else 0
        result = _parse_key(entry, line, is_encrypted=is_encrypted)
        if isinstance(result, Token) and result.serial_number in seen:
            reason = "its serial number stands in the file already"
            result = BadEntry(line, result.serial_number, reason)
        if isinstance(result, Token):
            seen.add(result.serial_number)
            tokens.append(result)
        else:
            bad.append(result)
    form = "encrypted" if is_encrypted else "plain"
    dialect = f"PSKC (RFC 6030), {form}, {len(container.keys)} key packages"
    return Delivery(dialect, tuple(tokens), tuple(bad))


def _key_lines(data: bytes) -> list[int]:
    """Return the line of each key's package; python-pskc does not tell."""
    plain = _COMMENT.sub(lambda found: b"\n" * found[0].count(b"\n"), data)
    lines = []
    starts = [found.start() for found in _KEY_PACKAGE.finditer(plain)]
    for start, end in zip(starts, [*starts[1:], len(plain)], strict=True):
        if _KEY.search(plain, start, end):
            lines.append(plain.count(b"\n", 0, start) + 1)
    return lines


def _parse_container(data: bytes, source: str) -> Any:  # noqa: ANN401 - python-pskc's own type
    import defusedxml  # noqa: PLC0415 - an import of tokens is rare, and XML is slow to load
    import pskc  # noqa: PLC0415

    try:
        return pskc.PSKC(io.BytesIO(data))
    except (pskc.exceptions.PSKCError, ValueError, OverflowError) as error:
        # python-pskc says "Error parsing XML" of everything; what defusedxml refused is behind it.
        if isinstance(error.__context__, defusedxml.DefusedXmlException):
            raise RefusedError(
                f"{source} declares entities, which PSKC has no use for and attacks do",
                hint="Ask the vendor for a file without a document type declaration.",
            ) from error
        detail = error.__context__ or error
        raise RefusedError(f"{source} is not PSKC: {detail}") from error


def _unlock(container: Any, source: str, key: Secret | None, password: str | None) -> None:  # noqa: ANN401
    import pskc  # noqa: PLC0415

    if password is not None:
        try:
            container.encryption.derive_key(password)
        except (pskc.exceptions.PSKCError, ValueError, OverflowError, TypeError) as error:
            raise RefusedError(
                f"no key can be derived from this password for {source}: {error}",
                hint="If the file is encrypted with a pre-shared key, give that with --key -",
            ) from error
    elif key is not None:
        container.encryption.key = key.reveal()
    else:
        raise RefusedError(
            f"the seeds in {source} are encrypted",
            hint="Give the vendor's key with --key - or the password with --password -",
        )


def _parse_key(entry: Any, line: int, *, is_encrypted: bool) -> Token | BadEntry:  # noqa: ANN401
    import pskc  # noqa: PLC0415

    serial_number = str(entry.serial or "")
    if is_encrypted and not _has_mac(entry):
        return BadEntry(line, serial_number, "its seed is encrypted and carries no MAC")
    try:
        seed, counter = entry.secret, entry.counter
    except (pskc.exceptions.PSKCError, ValueError, OverflowError) as error:
        return BadEntry(line, serial_number, f"it does not decrypt, or its MAC is wrong: {error}")
    if entry.algorithm not in _PROFILES:
        return BadEntry(line, serial_number, f"its algorithm '{entry.algorithm}' is not known")
    suite = (entry.algorithm_suite or "HMAC-SHA1").upper().removeprefix("HMAC-").replace("-", "")
    if suite not in set(Algorithm):
        return BadEntry(line, serial_number, f"its hash '{entry.algorithm_suite}' is not known")
    if entry.response_check or entry.response_encoding not in (None, "DECIMAL") or seed is None:
        reason = "it has no seed, or its codes are not decimal digits without a check digit"
        return BadEntry(line, serial_number, reason)
    period = 0 if _PROFILES[entry.algorithm] else int(entry.time_interval or 30)
    parameters = Parameters(Algorithm(suite), int(entry.response_length or 6), period)
    maker = str(entry.manufacturer or "")
    token = Token(serial_number, maker, parameters, int(counter or 0), Secret(seed), line)
    fault = find_fault(token)
    return BadEntry(line, serial_number, fault) if fault else token


def _has_mac(entry: Any) -> bool:  # noqa: ANN401
    # The descriptor decrypts; the value behind it carries the MAC.
    return bool(getattr(getattr(entry, "_secret", None), "mac_value", None))
