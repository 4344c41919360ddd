# SPDX-License-Identifier: Apache-2.0
"""Readers of what comes from outside, fed with anything: each ends in its own error or a value."""

import contextlib
import ctypes
import datetime
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from installed import REPOSITORY

from pam_mfa import wire
from pam_mfa.devices import VirtualDevice, format_devices, parse_devices, require_user
from pam_mfa.document import parse_document
from pam_mfa.errors import DocumentError, RefusedError, WireError
from pam_mfa.oath import DIGITS, PERIODS, Algorithm, Parameters
from pam_mfa.policy import parse_policy

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "1500"))
NATIVE = REPOSITORY / "pam_mfa/native"
TAG_LAST = 12
NONCE = bytes(range(16))
POLICY = (REPOSITORY / "config/policy.yaml").read_bytes()
RULES = b"""\
version: 1
rules:
  - {name: a, match: {service: [login], user: [root], tty: [tty1, local]}, then: skip}
  - {name: b, match: {from: ["::ffff:10.0.0.0/104", "fd00::/8"]}, then: deny, message: No.}
  - name: c
    match: {not_from: [192.0.2.7], group: [wheel], weekday: [mon], time: "22:00-06:00", zone: UTC}
    require: [fido, ssh-key]
    mode: report-only
"""
DEVICES = format_devices(
    "alice",
    [
        VirtualDevice(
            f"virtual/alice/{name}",
            name,
            datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
            Parameters(),
            "sealed:v1:AAAA",
        )
        for name in ("phone", "tablet")
    ],
)
IS_LONG = "FUZZ_EXAMPLES" in os.environ  # tests/fuzz/long: other examples every time
fuzzed = hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=not IS_LONG)

fields = st.lists(
    st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=14, unique_by=lambda f: f[0]
)
numbers = st.integers(0, 2**32 - 1)
texts = st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


def encode(*pairs: tuple[int, bytes]) -> bytes:
    """Return fields as they stand in a frame."""
    return b"".join(bytes((tag,)) + len(value).to_bytes(2, "big") + value for tag, value in pairs)


def mutations(good: bytes) -> st.SearchStrategy[bytes]:
    """Make a good input with some of it replaced, left out, or put in."""
    place = st.integers(0, len(good))
    return st.builds(
        lambda at, gone, put: good[:at] + put + good[at + gone :],
        place,
        st.integers(0, 12),
        st.one_of(st.binary(max_size=8), st.sampled_from(TOKENS)),
    )


TOKENS = [
    b"&a ", b"*a", b"<<: ", b"!!int ", b"!!binary ", b"!!set ", b"!!timestamp ", b"!!omap ",
    b"---\n", b"...\n", b"? ", b"- ", b": ", b"|\n", b">\n", b"\t", b"\n", b"\0", b"\xff", b"[",
    b"{", b"]", b"}", b"1e999", b".inf", b"0o7", b"0x1", b"1:30", b"~", b"null", b"yes", b"'",
    b'"', b"%YAML 1.1\n", b"# ", b"\xef\xbb\xbf", b"9" * 5000, b"9999-99-99", b"2026-02-30",
    b"=", b"!!python/none ", b"!!float ", b"!!bool ", b"!!null ", b"!!str ", b"\xe2\x80\xa8",
]  # fmt: skip
documents = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from(TOKENS), max_size=30).map(b"".join),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
)


@fuzzed
@hypothesis.given(
    st.one_of(
        st.binary(max_size=200),
        fields.map(lambda pairs: b"\1\1" + NONCE + encode(*pairs)),
        mutations(b"\1\1" + NONCE + encode((1, bytes(3) + b"\1"), (4, b"alice"), (11, bytes(4)))),
    )
)
def test_any_bytes_are_a_request_or_a_wire_error(packet: bytes) -> None:
    """Whatever comes as a request is one or raises WireError."""
    try:
        request = wire.parse_request(packet)
    except WireError:
        return
    assert packet[:2] == b"\1\1"
    assert request.nonce == packet[2:18]


@fuzzed
@hypothesis.given(
    st.one_of(
        st.binary(max_size=200),
        fields.map(lambda pairs: b"\1\2" + NONCE + encode(*pairs)),
        mutations(b"\1\2" + NONCE + encode((2, b"123456"))),
    )
)
def test_any_bytes_are_an_answer_or_a_wire_error(packet: bytes) -> None:
    """Whatever comes as an answer is one, carries the nonce, or raises WireError."""
    try:
        answer = wire.parse_answer(packet, NONCE)
    except WireError:
        return
    assert packet[2:18] == NONCE
    made = [] if answer is None else [(2, answer.encode("utf-8", "surrogateescape"))]
    assert packet[18:] == encode(*made)


@fuzzed
@hypothesis.given(
    st.sampled_from(list(wire.Phase)),
    st.lists(texts, min_size=7, max_size=7),
    st.lists(numbers, min_size=3, max_size=3),
    st.binary(max_size=4),
    st.permutations(range(1, 13)),
)
def test_request_comes_through_whole(
    phase: wire.Phase, words: list[str], values: list[int], kinds: bytes, order: list[int]
) -> None:
    """A request's fields come out as they went in, in whatever order they stand."""
    flags, uid, timeout = (value.to_bytes(4, "big") for value in values)
    raw = [word.encode("utf-8", "surrogateescape") for word in words]
    pairs = dict(enumerate([phase.to_bytes(4, "big"), flags, *raw[:2], uid, *raw[2:], timeout], 1))
    pairs[12] = kinds
    packet = b"\1\1" + NONCE + encode(*((tag, pairs[tag]) for tag in order))
    request = wire.parse_request(packet)
    service, user, tty, rhost, ruser, auth_info, connection = words
    assert request == wire.Request(
        NONCE, phase, user, service, values[0], values[1], tty, rhost, ruser, auth_info,
        connection, values[2], kinds,
    )  # fmt: skip


READERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "document": (lambda data: parse_document(data, "fuzz"), POLICY),
    "policy": (lambda data: parse_policy(data, "fuzz"), POLICY),
    "rules": (lambda data: parse_policy(data, "fuzz"), RULES),
    "devices": (lambda data: parse_devices(data, "fuzz", "alice"), DEVICES),
}


@pytest.mark.parametrize("reader", READERS)
def test_good_file_is_read(reader: str) -> None:
    """The files that are mutated below are good ones."""
    read, good = READERS[reader]
    read(good)


@pytest.mark.parametrize("reader", READERS)
@fuzzed
@hypothesis.given(st.data())
def test_any_bytes_are_a_file_or_a_document_error(reader: str, data: st.DataObject) -> None:
    """Whatever stands in a file is read or raises DocumentError."""
    read, good = READERS[reader]
    try:
        read(data.draw(st.one_of(documents, mutations(good))))
    except DocumentError as error:
        assert str(error).startswith("fuzz")  # noqa: PT017 - most inputs raise none


def is_user(name: str) -> bool:
    """Whether a device can be enabled for a user of this name."""
    try:
        require_user(name)
    except RefusedError:
        return False
    return True


printable = st.characters(exclude_categories=("C", "Z"))
users = st.one_of(
    st.text(printable, min_size=1, max_size=12),
    st.binary(min_size=1, max_size=3).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)
devices = st.builds(
    VirtualDevice,
    serial_number=st.from_regex(r"[ -~]{1,30}", fullmatch=True),
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True),
    enabled_at=st.datetimes(
        min_value=datetime.datetime(1970, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        timezones=st.just(datetime.UTC),
    ).map(lambda moment: moment.replace(microsecond=0)),
    parameters=st.builds(
        Parameters, st.sampled_from(list(Algorithm)), st.sampled_from(DIGITS),
        st.sampled_from(PERIODS),
    ),
    sealed_seed=st.from_regex(r"[ -~]{1,40}", fullmatch=True),
)  # fmt: skip


@hypothesis.settings(fuzzed, max_examples=EXAMPLES // 5)
@hypothesis.given(
    st.lists(devices, max_size=3, unique_by=(lambda one: one.name, lambda one: one.serial_number))
)
def test_device_file_comes_through_whole(written: list[VirtualDevice]) -> None:
    """Devices come out of their file as they went in."""
    assert parse_devices(format_devices("alice", written), "fuzz", "alice") == tuple(written)


@fuzzed
@hypothesis.given(users)
@hypothesis.example("a\x85b")
@hypothesis.example("a\udcffb")
def test_any_user_has_a_device_file(user: str) -> None:
    """For every name that a device can be enabled for, the file can be read back."""
    hypothesis.assume(is_user(user))
    assert parse_devices(format_devices(user, []), "fuzz", user) == ()


SCALARS = (
    "", "''", "x", "'+'", "'-'", "0x", "0b", "1:x", "_", "[]", "{}", "1e9", "2026-99-99",
    "9" * 5000, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
    "2026-01-01T00:00:00+99:99",
)  # fmt: skip
TAGS = ("", "int", "float", "bool", "null", "binary", "timestamp", "set", "omap", "pairs", "seq")


@pytest.mark.parametrize("tag", TAGS)
def test_any_tagged_value_is_one_or_a_document_error(tag: str) -> None:
    """A value that is not what its tag or its form says is refused."""
    good = DEVICES.decode("ascii")
    moment = "enabled_at: 2026-01-02T03:04:05Z"
    assert moment in good
    for scalar in SCALARS:
        value = f"!!{tag} {scalar}" if tag else scalar
        with contextlib.suppress(DocumentError):
            parse_document(f"x: {value}\n".encode(), "fuzz")
        with contextlib.suppress(DocumentError):
            parse_devices(good.replace(moment, f"enabled_at: {value}").encode(), "fuzz", "alice")


class _Field(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Fields(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("by_tag", _Field * (TAG_LAST + 1))]


Native = Callable[[bytes], tuple[int, dict[int, bytes]] | None]


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    """Compile frame.c by itself and return its reader."""
    library = tmp_path_factory.mktemp("native") / "frame.so"
    flags = ["-std=gnu11", "-O1", "-g", "-shared", "-fPIC"]
    trap = ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    subprocess.run(
        ["gcc", *flags, *trap, NATIVE / "frame.c", "-o", library], check=True, timeout=60
    )
    return _reader(library)


def _reader(library: Path) -> Native:
    frame_read = ctypes.CDLL(str(library)).frame_read
    frame_read.restype = ctypes.c_bool
    frame_read.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.POINTER(_Fields)
    ]  # fmt: skip

    def read(packet: bytes) -> tuple[int, dict[int, bytes]] | None:
        buffer = ctypes.create_string_buffer(packet, len(packet))
        found = _Fields()
        if not frame_read(buffer, len(packet), NONCE, ctypes.byref(found)):
            return None
        present = {tag: found.by_tag[tag] for tag in range(TAG_LAST + 1) if found.by_tag[tag].value}
        return found.type, {
            tag: ctypes.string_at(each.value, each.size) for tag, each in present.items()
        }

    return read


def model(packet: bytes) -> tuple[int, dict[int, bytes]] | None:
    """Read a frame by the description in wire.py; None where it is invalid."""
    if not 18 <= len(packet) <= 32768 or packet[0] != 1 or packet[2:18] != NONCE:
        return None
    found: dict[int, bytes] = {}
    rest = packet[18:]
    while rest:
        size = int.from_bytes(rest[1:3], "big")
        tag, value = rest[0], rest[3 : 3 + size]
        if len(rest) < 3 or len(value) < size or size > 16384:
            return None
        if not 1 <= tag <= TAG_LAST or tag in found:
            return None
        found[tag] = value
        rest = rest[3 + size :]
    return packet[1], found


known_fields = st.lists(st.tuples(st.integers(0, 14), st.binary(max_size=30)), max_size=14)


@fuzzed
@hypothesis.given(
    head=st.one_of(st.just(b"\1\x82"), st.binary(min_size=2, max_size=2)),
    pairs=known_fields,
    tail=st.binary(max_size=4),
    cut=st.integers(0, 300),
)
def test_native_reader_agrees(
    native: Native, head: bytes, pairs: list[tuple[int, bytes]], tail: bytes, cut: int
) -> None:
    """The native reader, frame.c, reads or refuses every frame as wire.py describes it."""
    whole = head + NONCE + encode(*pairs) + tail
    for packet in (whole, whole[:cut]):
        assert native(packet) == model(packet)


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 32747, 32748])
def test_native_reader_agrees_on_long_fields(native: Native, size: int) -> None:
    """The native reader knows the longest field and the longest frame."""
    packet = b"\1\x81" + NONCE + encode((2, bytes(size)))
    assert native(packet) == model(packet)


@pytest.mark.parametrize("opening", [b"[", b"{", b"- ", b"? ", b"[[{a: "])
@pytest.mark.parametrize("reader", READERS)
def test_deep_nesting_is_a_document_error(reader: str, opening: bytes) -> None:
    """A file that nests as deep as its size allows is refused, and ends no process."""
    program = (
        "from pam_mfa.errors import DocumentError\nimport test_frames\n"
        f"data = {opening!r} * (60000 // {len(opening)})\n"
        f"try:\n    test_frames.READERS[{reader!r}][0](data)\n"
        "except DocumentError:\n    sys.exit(0)\nsys.exit('it was read')\n"
    )
    paths = [str(REPOSITORY), str(REPOSITORY / "tests"), str(Path(__file__).parent)]
    program = f"import sys\nsys.path[:0] = {paths!r}\n{program}"
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, timeout=60
    )
    assert done.returncode == 0
