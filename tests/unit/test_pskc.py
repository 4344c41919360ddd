# SPDX-License-Identifier: Apache-2.0
"""PSKC documents (RFC 6030): its own figures, python-pskc's writer, and what attackers change."""

import base64
import io
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pskc as python_pskc
import pytest
from doubles import VECTORS

from pam_mfa.errors import RefusedError
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.pskc import parse_pskc
from pam_mfa.secret import Secret
from pam_mfa.tokens import BadEntry, Token

FIGURES = VECTORS / "rfc6030"
SEED = b"12345678901234567890"  # of figures 3, 5, 6 and 7
KEY = Secret(bytes.fromhex("12345678901234567890123456789012"))  # of figure 6
PASSWORD = "qwerty"  # of figure 7
TOTP = "urn:ietf:params:xml:ns:keyprov:pskc:totp"
HOTP = "urn:ietf:params:xml:ns:keyprov:pskc:hotp"
PSKCTOOL = shutil.which("pskctool")
needs_pskctool = pytest.mark.skipif(PSKCTOOL is None, reason="pskctool is not installed")
LAUGHS = (
    b'<!DOCTYPE KeyContainer [<!ENTITY a "ha">'
    + b"".join(
        b'<!ENTITY %c "%s">' % (letter, b"&%c;" % (letter - 1) * 10) for letter in b"bcdefghij"
    )
    + b"]>"
)


def figure(number: int) -> bytes:
    """Return one of the RFC's example documents."""
    return (FIGURES / f"figure{number}.xml").read_bytes()


def changed(number: int, old: bytes, new: bytes) -> bytes:
    """Return a figure with something in it replaced."""
    data = figure(number)
    assert old in data
    return data.replace(old, new)


def write(*keys: dict[str, Any], password: str = "", key: bytes = b"") -> bytes:
    """Return a document as python-pskc writes it, encrypted where a key or password is given."""
    document = python_pskc.PSKC()
    for fields in keys:
        usual = {"algorithm": TOTP, "response_length": 6, "response_encoding": "DECIMAL"}
        document.add_key(**{**usual, "secret": SEED, **fields})
    if password:
        document.encryption.setup_pbkdf2(password, iterations=1000)
    if key:
        document.encryption.setup_preshared_key(key=key, algorithm="aes256-cbc")
    out = io.BytesIO()
    document.write(out)
    return out.getvalue()


def only_token(data: bytes, **secrets: Any) -> Token:  # noqa: ANN401 - key or password
    """Return the one token of a document that has nothing else in it."""
    delivery = parse_pskc(data, "tokens.xml", **secrets)
    assert (len(delivery.tokens), delivery.bad) == (1, ())
    return delivery.tokens[0]


def only_fault(data: bytes, **secrets: Any) -> BadEntry:  # noqa: ANN401 - key or password
    """Return the one bad entry of a document that has nothing else in it."""
    delivery = parse_pskc(data, "tokens.xml", **secrets)
    assert (delivery.tokens, len(delivery.bad)) == ((), 1)
    return delivery.bad[0]


@pytest.mark.parametrize(
    ("number", "secrets", "maker"),
    [
        (3, {}, "Manufacturer"),
        (6, {"key": KEY}, "Manufacturer"),
        (7, {"password": PASSWORD}, "TokenVendorAcme"),
    ],
    ids=["plain", "pre-shared key", "password"],
)
def test_figures(number: int, secrets: dict[str, Any], maker: str) -> None:
    """The RFC's plain and encrypted documents give the same eight-digit HOTP token."""
    token = only_token(figure(number), **secrets)
    expected = Token("987654321", maker, Parameters(Algorithm.SHA1, 8, 0), 0, Secret(SEED))
    assert token._replace(line=0) == expected


def test_figure_without_serial_number() -> None:
    """The RFC's smallest document names no token, so nobody could be given it."""
    assert "serial number" in only_fault(figure(2)).reason


def test_figure_with_pin() -> None:
    """Of the RFC's token with a PIN the key is taken, and the PIN is a bad entry by its line."""
    delivery = parse_pskc(figure(5), "tokens.xml")
    assert [token.serial_number for token in delivery.tokens] == ["987654321"]
    lines = figure(5).split(b"\n")
    assert [lines[entry.line - 1].strip() for entry in delivery.bad] == [b"<KeyPackage>"]
    assert "pskc:pin' is not known" in delivery.bad[0].reason


@needs_pskctool
@pytest.mark.parametrize("number", [2, 3, 5, 6, 7])
def test_figures_are_pskc(number: int) -> None:
    """Each of the RFC's documents is valid by the RFC's schema, says pskctool."""
    command = [str(PSKCTOOL), "--validate", str(FIGURES / f"figure{number}.xml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "OK"


@needs_pskctool
@pytest.mark.parametrize("source", ["the RFC", "python-pskc"])
def test_pskctool_agrees(source: str) -> None:
    """Out of a plain document, pskctool reads the same serial number and secret."""
    written = {"serial": "A-17", "secret": os.urandom(20), "time_interval": 60}
    data = figure(3) if source == "the RFC" else write(written)
    done = subprocess.run(
        [str(PSKCTOOL), "--info", "--strict"], input=data, capture_output=True, check=True,
        timeout=30,
    )  # fmt: skip
    token = only_token(data)
    assert f"SerialNo: {token.serial_number}\n".encode() in done.stdout
    assert b"(base64): " + base64.b64encode(token.seed.reveal()) + b"\n" in done.stdout


@pytest.mark.parametrize("suite", ["", "SHA1", "HMAC-SHA1", "HMAC-SHA256", "SHA-512", "sha256"])
@pytest.mark.parametrize("digits", [6, 7, 8])
@pytest.mark.parametrize("period", [30, 60])
def test_totp_parameters(suite: str, digits: int, period: int) -> None:
    """Hash, digits and period of a time-based token are the document's."""
    fields = {"algorithm_suite": suite or None, "response_length": digits, "time_interval": period}
    token = only_token(write({"serial": "1", **fields}))
    number = "".join(filter(str.isdigit, suite)) or "1"
    assert token.parameters == Parameters(Algorithm(f"SHA{number}"), digits, period)


def test_totp_defaults() -> None:
    """A time-based token of which nothing is said makes six digits by SHA-1 every 30 seconds."""
    token = only_token(write({"serial": "1", "response_length": None, "response_encoding": None}))
    assert token.parameters == Parameters(Algorithm.SHA1, 6, 30)


@pytest.mark.parametrize("counter", [0, 1, 255, 256, 2**40])
def test_hotp_counter(counter: int) -> None:
    """An event-based token starts at the document's counter."""
    token = only_token(write({"serial": "1", "algorithm": HOTP, "counter": counter}))
    assert (token.counter, token.parameters.is_event_based) == (counter, True)


@pytest.mark.parametrize("secrets", [{"password": "a b c"}, {"key": bytes(range(32))}])
def test_writer_encrypts(secrets: dict[str, Any]) -> None:
    """What python-pskc encrypts by a password or a 256-bit key is read back to the same seed."""
    data = write({"serial": "1"}, **secrets)
    assert base64.b64encode(SEED) not in data
    given = {name: Secret(value) if name == "key" else value for name, value in secrets.items()}
    assert only_token(data, **given).seed == Secret(SEED)


@pytest.mark.parametrize(("number", "form"), [(3, "plain"), (7, "encrypted")])
def test_dialect(number: int, form: str) -> None:
    """How the document was read is told."""
    delivery = parse_pskc(figure(number), "tokens.xml", password=None if number == 3 else PASSWORD)
    assert delivery.dialect == f"PSKC (RFC 6030), {form}, 1 key packages"


@pytest.mark.parametrize("number", [6, 7])
def test_encrypted_without_key(number: int) -> None:
    """An encrypted document without its key is refused, and the hint says how to give one."""
    with pytest.raises(RefusedError, match=r"the seeds in tokens\.xml are encrypted") as caught:
        parse_pskc(figure(number), "tokens.xml")
    assert "--key -" in caught.value.hint
    assert "--password -" in caught.value.hint


@pytest.mark.parametrize(
    ("number", "secrets"),
    [
        (6, {"key": Secret(bytes(16))}),
        (6, {"key": Secret(bytes(32))}),
        (6, {"key": Secret(b"short")}),
        (7, {"password": "Qwerty"}),
        (7, {"key": KEY}),
    ],
    ids=["key", "key's length", "short key", "password", "key for password"],
)
def test_wrong_key(number: int, secrets: dict[str, Any]) -> None:
    """By a wrong key or password no token comes out, and the entry says why."""
    assert "does not decrypt, or its MAC is wrong" in only_fault(figure(number), **secrets).reason


@pytest.mark.parametrize("seed", range(40))
def test_wrong_key_at_random(seed: int) -> None:
    """No random key brings a token out, also where its padding happens to be right."""
    wrong = Secret(bytes((seed,)) * 16)
    assert parse_pskc(figure(6), "tokens.xml", key=wrong).tokens == ()


@pytest.mark.parametrize(
    ("number", "password"), [(6, "qwerty"), (7, "")], ids=["none is derived", "empty"]
)
def test_password_that_fits_nothing(number: int, password: str) -> None:
    """A password where no key is derived from one, or an empty one, is refused in a sentence."""
    with pytest.raises(RefusedError):
        parse_pskc(figure(number), "tokens.xml", password=password)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"#pbkdf2", b"#scrypt"),
        (b"<PRF/>", b'<PRF Algorithm="rot13"/>'),
        (b">1000<", b">99999999999999999999<"),
        (b">16<", b">99999999999999999999<"),
        (b"<IterationCount>1000</IterationCount>", b""),
    ],
    ids=["algorithm", "hash", "iterations", "length", "no iterations"],
)
def test_unknown_derivation(old: bytes, new: bytes) -> None:
    """A derivation of the key that is not known or makes no sense is refused in a sentence."""
    with pytest.raises(RefusedError):
        parse_pskc(changed(7, old, new), "tokens.xml", password=PASSWORD)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Su+NvtQfmvfJzF6bmQiJqoLRExc=", b"Tu+NvtQfmvfJzF6bmQiJqoLRExc="),
        (b"AAECAwQFBgcICQoLDA0OD+cI", b"AQECAwQFBgcICQoLDA0OD+cI"),
        (b"HItlB3Wra1DUpxVvOx2l", b"HItlB3Wra1DUpxVvOx2m"),
        (b"ESIzRFVmd4iZABEiM0RVZg", b"ESIzRFVmd4iZABEiM0RVZw"),
        (b"#hmac-sha1", b"#hmac-sha256"),
        (b"#hmac-sha1", b"#crc32"),
    ],
    ids=["MAC", "IV", "cipher text", "MAC key", "MAC's hash", "no MAC's hash"],
)
def test_changed_on_the_way(old: bytes, new: bytes) -> None:
    """A document in which the seed, its MAC or the MAC's key was changed gives no token."""
    assert "MAC" in only_fault(changed(6, old, new), key=KEY).reason


@pytest.mark.parametrize("number", [6, 7])
def test_encrypted_without_mac(number: int) -> None:
    """An encrypted seed without a MAC, which could be another seed, is refused."""
    data = figure(number)
    start, end = data.index(b"ValueMAC>"), data.rindex(b"ValueMAC>") + len(b"ValueMAC>")
    start, prefix = data.rindex(b"<", 0, start), b"pskc:" if number == 7 else b""
    stripped = data[:start] + data[end:]
    assert prefix + b"EncryptedValue" in stripped
    entry = only_fault(stripped, key=KEY if number == 6 else None,
                       password=PASSWORD if number == 7 else None)  # fmt: skip
    assert "carries no MAC" in entry.reason


def test_plain_seed_among_encrypted_ones() -> None:
    """A seed that somebody put in plainly among encrypted ones is not taken for one of them."""
    data = write({"serial": "1"}, {"serial": "2"}, password=PASSWORD)
    start, end = data.rindex(b"<pskc:Secret>"), data.rindex(b"</pskc:Secret>")
    plain = b"<pskc:Secret><pskc:PlainValue>" + base64.b64encode(bytes(20)) + b"</pskc:PlainValue>"
    delivery = parse_pskc(data[:start] + plain + data[end:], "tokens.xml", password=PASSWORD)
    assert [token.serial_number for token in delivery.tokens] == ["1"]
    assert [entry.serial_number for entry in delivery.bad] == ["2"]


def with_prologue(prologue: bytes, maker: bytes) -> bytes:
    """Return figure 3 with a document type declaration, its manufacturer replaced."""
    data = changed(3, b">Manufacturer<", b">" + maker + b"<")
    return data.replace(b"<KeyContainer", prologue + b"<KeyContainer", 1)


def test_billion_laughs() -> None:
    """Entities that grow without end are refused before they do."""
    with pytest.raises(RefusedError, match=r"tokens\.xml declares entities"):
        parse_pskc(with_prologue(LAUGHS, b"&j;"), "tokens.xml")


@pytest.mark.parametrize("kind", [b"x", b"% x"], ids=["general", "parameter"])
def test_external_entity(tmp_path: Path, kind: bytes) -> None:
    """A document that wants another file in it is refused, and that file is not opened."""
    pipe = tmp_path / "wanted"
    os.mkfifo(pipe)  # reading it would never end
    entity = b'<!DOCTYPE KeyContainer [<!ENTITY %s SYSTEM "file://%s">' % (kind, bytes(pipe))
    use = b"%x;" if kind == b"% x" else b""
    with pytest.raises(RefusedError, match=r"tokens\.xml declares entities"):
        parse_pskc(with_prologue(entity + use + b"]>", b"M"), "tokens.xml")


def test_external_definition(tmp_path: Path) -> None:
    """A document type definition in another file is not opened."""
    pipe = tmp_path / "wanted.dtd"
    os.mkfifo(pipe)
    declaration = b'<!DOCTYPE KeyContainer SYSTEM "file://%s">' % bytes(pipe)
    assert only_token(with_prologue(declaration, b"M")).manufacturer == "M"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"pskc:hotp", b"pskc:ocra", "algorithm 'urn:ietf:params:xml:ns:keyprov:pskc:ocra'"),
        (b"urn:ietf:params:xml:ns:keyprov:pskc:hotp", b"", "algorithm 'None' is not known"),
        (b"<ResponseFormat", b"<Suite>MD5</Suite><ResponseFormat", "hash 'MD5' is not known"),
        (b"DECIMAL", b"HEXADECIMAL", "not decimal"),
        (b'Length="8"', b'Length="9"', "9 digits"),
        (b"MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=", b"MTIzNDU2Nzg5MDEyMw==", "its seed has 104 bits"),
        (b"MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=", b"", "its seed has 0 bits"),
        (b"Secret>", b"Other>", "no seed"),
        (b">0<", b">-1<", "its counter -1"),
        (b">0<", b">9223372036854775808<", "its counter 9223372036854775808"),
        (b"987654321", b"98765/4321", "serial number"),
        (b"987654321", b"", "serial number"),
    ],
)  # fmt: skip
def test_bad_entries(old: bytes, new: bytes, words: str) -> None:
    """A key that cannot be used is a bad entry, and its reason names what is wrong."""
    assert words in only_fault(changed(3, old, new)).reason


def test_huge_counter() -> None:
    """A counter of thousands of digits is a bad entry and nothing worse."""
    assert "counter" in only_fault(changed(3, b">0<", b">" + b"ABCD" * 2000 + b"<")).reason


def test_check_digit() -> None:
    """A token that appends a check digit to its codes, which none would match, is a bad entry."""
    only_fault(changed(3, b"DECIMAL", b'DECIMAL" CheckDigits="true'))


def test_date_out_of_range() -> None:
    """A date that is none is refused in a sentence, and nothing worse."""
    date = b"<StartDate>99999999999999999999</StartDate>\n<UserId>DC="
    with pytest.raises(RefusedError):
        parse_pskc(changed(3, b"<UserId>DC=", date), "tokens.xml")


def test_duplicate_serial_number() -> None:
    """The second key of one serial number is a bad entry, the first is taken."""
    again = {"serial": "1", "secret": bytes(20)}
    delivery = parse_pskc(write({"serial": "1"}, again, {"serial": "2"}), "tokens.xml")
    assert [token.serial_number for token in delivery.tokens] == ["1", "2"]
    assert delivery.tokens[0].seed == Secret(SEED)
    assert [entry.serial_number for entry in delivery.bad] == ["1"]


def line_of(data: bytes, serial_number: bytes) -> int:
    """Return the line of the KeyPackage that holds a serial number."""
    end = data.index(b"SerialNo>" + serial_number + b"<")
    return data.count(b"\n", 0, data.rindex(b"KeyPackage>", 0, end)) + 1


def test_lines() -> None:
    """Each token and each bad entry names the line of its key package."""
    cut = {"serial": "3", "secret": b"short"}
    data = write(*({"serial": str(number)} for number in range(3)), cut, {"serial": "4"})
    delivery = parse_pskc(data, "tokens.xml")
    found = {one.serial_number: one.line for one in delivery.tokens}
    found |= {one.serial_number: one.line for one in delivery.bad}
    assert found == {str(number): line_of(data, b"%d" % number) for number in range(5)}
    assert [entry.serial_number for entry in delivery.bad] == ["3"]


@pytest.mark.parametrize(
    "extra", [b"<!-- was: <pskc:KeyPackage> -->\n", b"<pskc:KeyPackage></pskc:KeyPackage>\n"],
    ids=["comment", "empty package"],
)  # fmt: skip
def test_lines_after_a_package_without_key(extra: bytes) -> None:
    """A key package in a comment, or without a key, does not shift the others' lines."""
    data = write({"serial": "1"}, {"serial": "2"})
    data = data.replace(b"<pskc:KeyPackage>", extra + b"<pskc:KeyPackage>", 1)
    found = [(one.serial_number, one.line) for one in parse_pskc(data, "tokens.xml").tokens]
    assert found == [("1", line_of(data, b"1")), ("2", line_of(data, b"2"))]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"hello", b"serial,seed\n1,2\n", b"<KeyContainer", b"\0" * 100, b"<a/>",
        b"<html><body>Please log in</body></html>", b"<KeyPackage/>", figure(3)[:-20],
        figure(3).replace(b'Version="1.0"\n', b'Version="2.0"\n'),
        figure(3).replace(b'Length="8"', b'Length="eight"'),
        figure(3).replace(b"MTIzNDU2Nzg5", b"MTIzNDU2Nzg"), b"<a>" * 5000 + b"</a>" * 5000,
    ],
)  # fmt: skip
def test_not_pskc(data: bytes) -> None:
    """What is no PSKC document is refused by the file's name."""
    with pytest.raises(RefusedError, match=r"tokens\.xml is not PSKC"):
        parse_pskc(data, "tokens.xml")


def test_seeds_do_not_print() -> None:
    """A delivery can be printed without its seeds."""
    shown = repr(parse_pskc(figure(3), "tokens.xml"))
    assert (SEED.decode() in shown, base64.b64encode(SEED).decode() in shown) == (False, False)


def many(count: int) -> bytes:
    """Return a plain document with so many packages, each in a line of its own."""
    data = figure(3)
    start, end = data.index(b"<KeyPackage>"), data.index(b"</KeyPackage>") + len(b"</KeyPackage>")
    package = data[start:end].replace(b"\n", b" ")
    packages = [package.replace(b"987654321", b"T-%d" % number) for number in range(count)]
    return data[:start] + b"\n".join(packages) + data[end:]


@pytest.mark.parametrize("count", [1, 499, 500, 501, 1001])
def test_pieces(count: int) -> None:
    """A long document is read in pieces, and every package has its line."""
    data = many(count)
    delivery = parse_pskc(data, "tokens.xml")
    first = data[: data.index(b"<KeyPackage>")].count(b"\n") + 1
    expected = [(f"T-{number}", first + number) for number in range(count)]
    assert expected == [(token.serial_number, token.line) for token in delivery.tokens]
    assert f"plain, {count} key packages" in delivery.dialect


def test_duplicate_in_another_piece() -> None:
    """A serial number that stands twice is found across pieces."""
    data = many(501).replace(b">T-500<", b">T-0<")
    (entry,) = parse_pskc(data, "tokens.xml").bad
    assert (entry.serial_number, entry.reason) == (
        "T-0", "its serial number stands in the file already",
    )  # fmt: skip


def test_plain_seeds_far_before_an_encrypted_one() -> None:
    """Plain seeds are not taken from a document in which any is encrypted, however far away."""
    secret = b"<EncryptedValue><CipherData/></EncryptedValue>"
    data = many(501)
    at = data.rindex(b"<PlainValue>", 0, data.rindex(b"</Secret>"))
    end = data.index(b"</PlainValue>", at) + len(b"</PlainValue>")
    delivery = parse_pskc(data[:at] + secret + data[end:], "tokens.xml", key=KEY)
    assert (delivery.tokens, len(delivery.bad)) == ((), 501)


@pytest.mark.parametrize("secrets", [{"password": PASSWORD}, {"key": KEY}], ids=["password", "key"])
def test_encrypted_pieces(secrets: dict[str, Any]) -> None:
    """The key opens every piece of a long encrypted document."""
    key = secrets["key"].reveal() if "key" in secrets else b""
    serial_numbers = [f"T-{number}" for number in range(501)]
    data = write(
        *({"serial": serial_number} for serial_number in serial_numbers),
        password=secrets.get("password", ""), key=key * 2,
    )  # fmt: skip
    given = {"key": Secret(key * 2)} if key else secrets
    delivery = parse_pskc(data, "tokens.xml", **given)
    assert serial_numbers == [token.serial_number for token in delivery.tokens]
    assert delivery.bad == ()


def test_nested_too_deep() -> None:
    """A document that nests without end is refused before it is held."""
    with pytest.raises(RefusedError, match="nested too deep"):
        parse_pskc(b"<a>" * 100_000, "tokens.xml")
