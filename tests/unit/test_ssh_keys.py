# SPDX-License-Identifier: Apache-2.0
"""Public keys of security keys: OpenSSH's own, and everything that is none."""

import base64
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sk_keys import (
    PATIENCE,
    TYPES,
    certify,
    fingerprint_of,
    make_plain_key,
    make_sk_key,
    public_half,
)

from pam_mfa.errors import RefusedError
from pam_mfa.ssh_keys import (
    ECDSA,
    ED25519,
    KeyFormatError,
    SshKey,
    fingerprint,
    format_key,
    parse_any_key,
    parse_auth_info,
    parse_key,
    require_key,
)

KEY = SshKey(ED25519, bytes(range(32)), "ssh:")
OTHER = SshKey(ECDSA, b"\4" + bytes(range(64)), "ssh:laptop")
LINE = format_key(KEY)
OTHER_LINE = format_key(OTHER)
PLAIN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
CERTIFICATE = "sk-ssh-ed25519-cert-v01@openssh.com"
KEYS = st.builds(
    SshKey,
    st.just(ED25519),
    st.binary(min_size=32, max_size=32),
    st.text(st.characters(max_codepoint=127), max_size=100),
) | st.builds(
    SshKey,
    st.just(ECDSA),
    st.binary(min_size=65, max_size=65),
    st.text(st.characters(max_codepoint=127), max_size=100),
)
ANYTHING = st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key of each type by ssh-keygen, a certificate of each, and a key that lives in a file."""
    folder = tmp_path_factory.mktemp("keys")
    authority = make_plain_key(folder / "authority")
    for kind in TYPES:
        certify(authority, make_sk_key(folder / kind, kind), "alice")
    return folder


def strings(*parts: bytes) -> bytes:
    """Return strings as RFC 4251, section 5, has them, one behind the other."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def text_of(kind: str, blob: bytes) -> str:
    """Return a public key as it stands in a file."""
    return f"{kind} {base64.b64encode(blob).decode('ascii')}"


def fault(text: str) -> str:
    """Return why a text is no public key of a security key."""
    with pytest.raises(KeyFormatError) as caught:
        parse_key(text)
    return str(caught.value)


@pytest.mark.parametrize(("name", "kind"), [(TYPES[0], ED25519), (TYPES[1], ECDSA)])
def test_key_of_ssh_keygen(place: Path, name: str, kind: str) -> None:
    """ssh-keygen's key is read, written back as it was, and called as ssh-keygen calls it."""
    public_key = public_half(place / name)
    text = public_key.read_text()
    key = parse_key(text)
    assert (kind, "ssh:") == (key.type, key.application)
    assert text == f"{format_key(key)} laptop\n"
    assert fingerprint_of(public_key) == fingerprint(key)


@pytest.mark.parametrize("name", TYPES)
def test_certificate_of_ssh_keygen(place: Path, name: str) -> None:
    """Of a certificate the key is read that it certifies, also where it is long."""
    key = parse_key(public_half(place / name).read_text())
    certificate = place / f"{name}-cert.pub"
    assert key == parse_key(certificate.read_text())
    assert fingerprint_of(certificate) == fingerprint(key)


def test_certificate_for_many(place: Path, tmp_path: Path) -> None:
    """A certificate for as many names as OpenSSH lets it have is read."""
    key = make_sk_key(tmp_path / "key")
    names = ",".join(f"user-{number}" for number in range(256))
    certificate = certify(place / "authority", key, names)
    assert parse_key(public_half(key).read_text()) == parse_key(certificate.read_text())


def test_plain_key_of_ssh_keygen(place: Path) -> None:
    """A key that lives in a file is refused with its type and what to do."""
    with pytest.raises(RefusedError) as caught:
        require_key(public_half(place / "authority").read_text())
    assert "'ssh-ed25519' is no type of key that lives on a security key" in str(caught.value)
    assert "ssh-keygen -t ed25519-sk" in caught.value.hint


def test_private_key_of_ssh_keygen(place: Path) -> None:
    """The other file of the two is refused, without a word of what is in it."""
    private = (place / TYPES[0]).read_text()
    assert "it has several lines" == fault(private)


@given(KEYS)
def test_round_trip(key: SshKey) -> None:
    """A key that was written is read back to the same key."""
    assert key == parse_key(format_key(key))


@given(KEYS, st.sampled_from(("", " ", " laptop", " alice@laptop at home", "\t\u00e9\u4e2d")),
       st.sampled_from(("", "\n", "\r\n", "\n\n")))  # fmt: skip
def test_ends_of_files(key: SshKey, comment: str, end: str) -> None:
    """A comment, and how a file's line ends, do not matter."""
    assert key == parse_key(f"{format_key(key)}{comment}{end}")


@given(ANYTHING)
def test_any_text(text: str) -> None:
    """Whatever is no key is refused and named so, and never believed of sshd."""
    assert fault(text)
    assert () == parse_auth_info(text)


@given(st.sampled_from((ED25519, ECDSA, CERTIFICATE)), st.binary(max_size=300))
def test_any_blob(kind: str, blob: bytes) -> None:
    """Bytes that happen to follow a type's name are refused."""
    assert fault(text_of(kind, blob))
    assert fault(text_of(kind, strings(kind.encode()) + blob))


@given(KEYS, st.data())
def test_cut_anywhere(key: SshKey, data: st.DataObject) -> None:
    """A key that is cut anywhere is refused."""
    blob = base64.b64decode(format_key(key).split()[1])
    cut = data.draw(st.integers(1, len(blob) - 1))
    assert "its key is cut" == fault(text_of(key.type, blob[:cut]))


@given(KEYS, st.binary(min_size=1, max_size=20))
def test_bytes_behind_the_end(key: SshKey, more: bytes) -> None:
    """A key with bytes behind its end is refused: nothing rides along unseen."""
    blob = base64.b64decode(format_key(key).split()[1])
    assert "its key has bytes behind its end" == fault(text_of(key.type, blob + more))


@pytest.mark.parametrize(
    "blob",
    [
        b"\xff\xff\xff\xff",
        (1 << 30).to_bytes(4, "big"),
        strings(ED25519.encode()) + (1 << 30).to_bytes(4, "big") + b"x",
        strings(ED25519.encode(), bytes(32)) + (1 << 30).to_bytes(4, "big") + b"ssh:",
    ],
    ids=["4 GiB", "1 GiB", "the key of 1 GiB", "the application of 1 GiB"],
)
def test_length_of_a_gigabyte(blob: bytes) -> None:
    """A length beyond the end is no reason to take memory: the key is cut."""
    assert "its key is cut" == fault(text_of(ED25519, blob))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it is not 'TYPE BASE64 COMMENT'"),
        (ED25519, "it is not 'TYPE BASE64 COMMENT'"),
        (f"{ED25519} not-base64!", "its key is not base64"),
        (f"{ED25519} \u00e9\u00e9\u00e9\u00e9", "its key is not base64"),
        (f"{ED25519} {LINE.split()[1][:-1]}", "its key is not base64"),
        (f"{LINE}\n{OTHER_LINE}", "it has several lines"),
        (f"{LINE}\r{OTHER_LINE}", "it has several lines"),
        (f"{ECDSA} {LINE.split()[1]}", "its key is cut"),
        (f"{ED25519} {OTHER_LINE.split()[1]}", "its key is of another type than it says"),
        (text_of(ED25519, strings(ECDSA.encode(), bytes(32), b"ssh:")),
         "its key is of another type than it says"),
        (text_of(ECDSA, strings(ECDSA.encode(), b"nistp384", OTHER.point, b"ssh:")),
         "its curve is not nistp256"),
        (text_of(ED25519, strings(ED25519.encode(), bytes(31), b"ssh:")),
         "its key is not of the length of its type"),
        (text_of(ECDSA, strings(ECDSA.encode(), b"nistp256", bytes(32), b"ssh:")),
         "its key is not of the length of its type"),
        (text_of(ED25519, strings(ED25519.encode(), bytes(32), b"ssh:\xe9")),
         "its application is not ASCII"),
        (text_of(ED25519, bytes(20000)), "its key is too long"),
        (f"no-touch-required {LINE}", "its first word is no type"),
        (f'command="id" {LINE}', "its first word is no type"),
        (PLAIN, "'ssh-ed25519' is no type"),
        ("ssh-rsa-cert-v01@openssh.com AAAA", "'ssh-rsa-cert-v01@openssh.com' is no type"),
    ],
)  # fmt: skip
def test_faults(text: str, expected: str) -> None:
    """Each fault is named."""
    assert fault(text).startswith(expected)


def test_a_megabyte() -> None:
    """A megabyte of text is no key, however it begins."""
    texts = ("A" * 1_000_000, f"{ED25519} " + "A" * 1_000_000, LINE + "\n" * 1_000_000 + LINE)
    assert ["it is too long"] * 3 == [fault(text) for text in texts]
    assert () == parse_auth_info("publickey " + "A" * 1_000_000)
    assert () == parse_auth_info("publickey x\n" * 100_000)


@pytest.mark.parametrize(
    "word", ["\x1b]0;x\x07", "root:$6$salt$hash:19000", "hunter2", "ssh-\x1b[2J"]
)
def test_somebody_elses_file_is_not_quoted(word: str) -> None:
    """A file that is no key, which a user may have put there, shows nothing of itself."""
    assert "its first word is no type of key that lives on a security key" == fault(f"{word} x")


@pytest.mark.parametrize(
    "words", [("ed25519",), ("ecdsa", "-b", "384"), ("rsa", "-b", "2048")], ids=lambda one: one[0]
)
def test_key_in_a_file(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A key in a file is read where that is wanted, written back, and called as ssh-keygen does."""
    command = [
        "ssh-keygen",
        "-q",
        "-t",
        *words,
        "-N",
        "",
        "-C",
        "laptop",
        "-f",
        str(tmp_path / "key"),
    ]
    subprocess.run(command, check=True, timeout=PATIENCE)
    text = (tmp_path / "key.pub").read_text()
    key = parse_any_key(text)
    assert (f"{format_key(key)} laptop\n", False) == (text, key.is_on_security_key)
    assert fingerprint_of(tmp_path / "key.pub") == fingerprint(key)
    assert key == require_key(text, may_be_in_file=True)
    with pytest.raises(RefusedError):
        require_key(text)


@pytest.mark.parametrize(
    "text", ["ssh-ed25519 !", "ssh-ed25519 AAAA", f"ssh-rsa {PLAIN.split()[1]}", "ssh-dss AAAA", ""]
)
def test_no_key_in_a_file(text: str) -> None:
    """What is no whole public key of the type that it says is none in a file either."""
    with pytest.raises(KeyFormatError):
        parse_any_key(text)


def test_any_key_on_a_security_key() -> None:
    """Where a key may be in a file, one on a security key is read as ever."""
    assert KEY == parse_any_key(LINE)


def test_auth_info() -> None:
    """What sshd says of finished methods is read line by line, ordinary keys passed over."""
    first = f"password\nkeyboard-interactive/pam\nkeyboard-interactive\npublickey {PLAIN}"
    text = f"{first}\npublickey {LINE}\n"
    assert (KEY,) == parse_auth_info(text)
    assert (KEY, OTHER) == parse_auth_info(f"publickey {LINE}\npublickey {OTHER_LINE}\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        LINE,
        f"publickey{LINE}",
        f"Publickey {LINE}",
        f" publickey {LINE}",
        f"password {LINE}",
        f"keyboard-interactive {LINE}",
        f"publickey/x {LINE}",
        f"none\rpublickey {LINE}",
        f"publickey {LINE}\rpublickey {OTHER_LINE}",
        f"publickey no-touch-required {LINE}",
    ],
)
def test_no_finished_signature(text: str) -> None:
    """Nothing else is a signature that sshd has checked."""
    assert () == parse_auth_info(text)


@pytest.mark.parametrize("method", ["hostbased", "gssapi-with-mic", "", "next-years-method"])
def test_line_feed_in_a_clients_words(method: str) -> None:
    """A line with words of the client's could hold a line feed: what follows it is not read."""
    planted = f'{method} {PLAIN} client user "x\npublickey {OTHER_LINE}\n'
    assert (KEY,) == parse_auth_info(f"publickey {LINE}\n{planted}")


def test_many_lines() -> None:
    """So many methods as sixteen are read, and no more."""
    assert (KEY,) == parse_auth_info("password\n" * 15 + f"publickey {LINE}\n")
    assert () == parse_auth_info("password\n" * 16 + f"publickey {LINE}\n")
