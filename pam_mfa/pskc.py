# SPDX-License-Identifier: Apache-2.0
"""Portable Symmetric Key Container (RFC 6030), read by python-pskc over defusedxml.

Owns the RFC's words and the refusal of what is not authenticated: an encrypted seed without a
MAC could be changed into another one (RFC 6030, section 6.1.1).
"""

import io
import itertools
import re
from collections.abc import Iterator
from typing import Any, Final

from pam_mfa.errors import RefusedError
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.secret import Secret
from pam_mfa.tokens import BadEntry, Delivery, Token, find_fault

_PROFILES: Final = {  # RFC 6030, section 10.4, and RFC 6238's registration
    "urn:ietf:params:xml:ns:keyprov:pskc:hotp": True,
    "urn:ietf:params:xml:ns:keyprov:pskc:totp": False,
}
_PACKAGES: Final = ("KeyPackage", "Device")  # the latter in drafts of the RFC
_DEPTH_MAX: Final = 100  # of elements; the RFC's have ten
_PIECE: Final = 500  # packages that are parsed at a time
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
    is_encrypted, count, derived = _has_encrypted_value(data, source), 0, key
    lines = _key_lines(data)
    tokens: list[Token] = []
    bad: list[BadEntry] = []
    seen: set[str] = set()
    for container in _containers(data, source):
        is_encrypted |= bool(container.encryption.is_encrypted)
        if is_encrypted:
            derived = _unlock(container, source, derived, password)
        for entry in container.keys:
            line = lines[count] if count < len(lines) else 0
            count += 1
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
    dialect = f"PSKC (RFC 6030), {form}, {count} key packages"
    return Delivery(dialect, tuple(tokens), tuple(bad))


def _key_lines(data: bytes) -> list[int]:
    """Return the line of each key's package; python-pskc does not tell."""
    plain = _COMMENT.sub(lambda found: b"\n" * found[0].count(b"\n"), data)
    lines = []
    starts = [found.start() for found in _KEY_PACKAGE.finditer(plain)]
    line, before = 1, 0
    for start, end in itertools.pairwise([*starts, len(plain)]):
        line, before = line + plain.count(b"\n", before, start), start
        if _KEY.search(plain, start, end):
            lines.append(line)
    return lines


def _has_encrypted_value(data: bytes, source: str) -> bool:
    """Whether any value is encrypted: then a plain one beside it may be an attacker's."""
    if b"EncryptedValue" not in data and b"KeyPackage" in data:
        return False  # of an encoding in which names stand as they are, and the name is not there
    elements = _elements(data, source)
    return any(_name(element) == "EncryptedValue" for _, element in elements)


def _containers(data: bytes, source: str) -> Iterator[Any]:
    """Go through the document in pieces: python-pskc would hold the whole of it, twice."""
    headers: list[Any] = []
    packages: list[Any] = []
    root, is_first = None, True
    for depth, element in _elements(data, source):
        if depth == 0:
            root = element
        elif depth == 1 and _name(element) not in _PACKAGES:
            headers.append(element)
        elif depth == 1:
            packages.append(element)
            if len(packages) == _PIECE:
                yield _parse_piece(root, [*headers, *packages], source)
                packages, is_first = [], False
    if packages or is_first:
        yield _parse_piece(root, [*headers, *packages], source)


def _elements(data: bytes, source: str) -> Iterator[tuple[int, Any]]:
    """Go through the elements with their depth, the root at its start, the others at their end.

    Raises:
        RefusedError: it is no XML, or declares entities.
    """
    import defusedxml  # noqa: PLC0415 - an import of tokens is rare, and XML is slow to load
    from defusedxml import ElementTree  # noqa: PLC0415

    stack: list[Any] = []
    try:
        for event, element in ElementTree.iterparse(io.BytesIO(data), events=("start", "end")):
            if event == "end":
                stack.pop()
                if stack:
                    yield len(stack), element
            else:
                if not stack:
                    yield 0, element
                stack.append(element)
            if len(stack) > _DEPTH_MAX:
                raise RefusedError(f"{source} is not PSKC: it is nested too deep")
            if event == "end" and len(stack) == 1:
                stack[0].remove(element)  # what was seen is not kept
    except defusedxml.DefusedXmlException as error:
        raise RefusedError(
            f"{source} declares entities, which PSKC has no use for and attacks do",
            hint="Ask the vendor for a file without a document type declaration.",
        ) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise RefusedError(f"{source} is not PSKC: {error}") from error


def _parse_piece(root: Any, parts: list[Any], source: str) -> Any:  # noqa: ANN401 - elements
    from xml.etree.ElementTree import Element, tostring  # noqa: PLC0415 - written, not read

    import pskc  # noqa: PLC0415

    piece = Element(root.tag, root.attrib)
    piece.extend(parts)
    try:
        return pskc.PSKC(io.BytesIO(tostring(piece)))
    except (pskc.exceptions.PSKCError, ValueError, OverflowError) as error:
        raise RefusedError(f"{source} is not PSKC: {error.__context__ or error}") from error


def _name(element: Any) -> str:  # noqa: ANN401
    """Return an element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _unlock(container: Any, source: str, key: Secret | None, password: str | None) -> Secret:  # noqa: ANN401
    """Give a container the key, derived from the password where there is none yet; return it."""
    import pskc  # noqa: PLC0415

    if key is None and password is None:
        raise RefusedError(
            f"the seeds in {source} are encrypted",
            hint="Give the vendor's key with --key - or the password with --password -",
        )
    if key is not None:
        container.encryption.key = key.reveal()
        return key
    try:
        container.encryption.derive_key(password)
    except (pskc.exceptions.PSKCError, ValueError, OverflowError, TypeError) as error:
        raise RefusedError(
            f"no key can be derived from this password for {source}: {error}",
            hint="If the file is encrypted with a pre-shared key, give that with --key -",
        ) from error
    return Secret(container.encryption.key)


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
