# SPDX-License-Identifier: Apache-2.0
"""Records shipped to syslog: RFC 5424 over TCP and TLS, and the local socket; at least once."""

import contextlib
import datetime
import ipaddress
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_logs import LogMaker, make_lines, write_log
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pam_mfa.audit_shipping import Shipper, syslog_sink
from pam_mfa.audit_shipping.position import Positions
from pam_mfa.audit_shipping.syslog_sink import Address, SyslogSink, Trust, parse_address
from pam_mfa.errors import BrokenSystemError

LINES = make_lines(30)
# RFC 5424, section 6; one structured data element.
MESSAGE = re.compile(
    rb"<(?P<priority>\d{1,3})>1 (?P<time>\S+) (?P<host>\S{1,255}) (?P<program>\S{1,48}) "
    rb'(?P<pid>\S{1,128}) (?P<id>\S{1,32}) (?P<data>-|\[meta sequenceId="\d+"\]) (?P<text>\{.*\})'
)


class Collector:
    """A collector that counts octets, as RFC 6587 and RFC 5425 have it."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        """Listen on loopback."""
        self.messages: list[bytes] = []
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._got = threading.Condition()
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def wait_for(self, count: int) -> list[bytes]:
        """Return the messages once there are so many."""
        with self._got:
            assert self._got.wait_for(lambda: len(self.messages) >= count, 30)
        return list(self.messages)

    def cut(self) -> None:
        """Close every connection, as a collector that is started anew does."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        self._thread.join(30)
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._context is not None:
                try:
                    connection = self._context.wrap_socket(connection, server_side=True)
                except OSError:
                    connection.close()
                    continue
            self._connections.append(connection)
            self._read(connection)

    def _read(self, connection: socket.socket) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                rest = self._take(rest + data)

    def _take(self, data: bytes) -> bytes:
        while match := re.match(rb"([1-9]\d*) ", data):
            end = match.end() + int(match[1])
            if len(data) < end:
                break
            with self._got:
                self.messages.append(data[match.end() : end])
                self._got.notify_all()
            data = data[end:]
        return data


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector over TCP."""
    one = Collector()
    yield one
    one.close()


def make_shipper(base: Path, sink: SyslogSink, told: list[str]) -> Shipper:
    """Return a shipper as a new process opens it."""
    return Shipper(base / "audit.jsonl", sink, Positions(base / "shipped.json", "it"), told.append)


def ship(base: Path, address: Address, trust: Trust | None = None, host: str = "web1") -> list[str]:
    """Ship once; return what was told."""
    told: list[str] = []
    sink = SyslogSink(address, host, trust)
    try:
        make_shipper(base, sink, told).ship()
    finally:
        sink.close()
    return told


def texts(messages: list[bytes]) -> list[bytes]:
    """Return the records of messages."""
    return [match["text"] + b"\n" for one in messages if (match := MESSAGE.fullmatch(one))]


def test_form(tmp_path: Path, collector: Collector) -> None:
    """Each record is a message of RFC 5424, with its own time, place and urgency."""
    maker = LogMaker().add(outcome="denied").add(outcome="error").add(host="é \n")
    write_log(tmp_path / "audit.jsonl", maker.lines)
    ship(tmp_path, Address("tcp", "127.0.0.1", collector.port), host="wéb 1")
    messages = collector.wait_for(3)
    assert maker.lines == texts(messages)
    first = MESSAGE.fullmatch(messages[0])
    assert first is not None
    assert {
        "priority": b"84", "time": b"2026-11-24T08:00:01.000000Z", "host": b"w?b?1",
        "program": b"pam-mfa", "pid": b"4321", "id": b"audit", "data": b'[meta sequenceId="1"]',
    } == {name: value for name, value in first.groupdict().items() if name != "text"}  # fmt: skip


def test_resumed(tmp_path: Path, collector: Collector) -> None:
    """What was sent and remembered is not sent again, by another process either."""
    address = Address("tcp", "127.0.0.1", collector.port)
    for end in (10, 10, 30):
        write_log(tmp_path / "audit.jsonl", LINES[:end])
        ship(tmp_path, address)
    assert LINES == texts(collector.wait_for(30))


def test_not_remembered(tmp_path: Path, collector: Collector) -> None:
    """What was sent and not remembered, as by a kill in between, is sent again: at least once."""
    address = Address("tcp", "127.0.0.1", collector.port)
    write_log(tmp_path / "audit.jsonl", LINES[:20])
    ship(tmp_path, address)
    kept = (tmp_path / "shipped.json").read_bytes()
    write_log(tmp_path / "audit.jsonl", LINES)
    ship(tmp_path, address)
    (tmp_path / "shipped.json").write_bytes(kept)
    ship(tmp_path, address)
    assert [*LINES, *LINES[20:]] == texts(collector.wait_for(40))


def test_collector_started_anew(tmp_path: Path, collector: Collector) -> None:
    """A connection that the collector has closed is noticed before anything is sent into it."""
    told: list[str] = []
    sink = SyslogSink(Address("tcp", "127.0.0.1", collector.port), "web1")
    shipper = make_shipper(tmp_path, sink, told)
    write_log(tmp_path / "audit.jsonl", LINES[:10])
    shipper.ship()
    collector.wait_for(10)
    collector.cut()
    write_log(tmp_path / "audit.jsonl", LINES)
    with pytest.raises(BrokenSystemError, match="does not take records"):
        shipper.ship()
    shipper.ship()
    sink.close()
    assert (LINES, []) == (texts(collector.wait_for(30)), told)


def test_nobody_listens(tmp_path: Path) -> None:
    """Without a collector nothing counts as shipped."""
    probe = socket.create_server(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    write_log(tmp_path / "audit.jsonl", LINES)
    with pytest.raises(BrokenSystemError, match="Connection refused"):
        ship(tmp_path, Address("tcp", "127.0.0.1", port))
    assert Positions(tmp_path / "shipped.json", "it").get() is None


def test_collector_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that stands still is given up after a while, and nothing counts as shipped."""
    monkeypatch.setattr(syslog_sink, "_PATIENCE", 0.3)
    maker = LogMaker()
    while len(maker.lines) < 9000:
        maker.add(detail="x" * 900)
    write_log(tmp_path / "audit.jsonl", maker.lines)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(BrokenSystemError, match="does not take records"),
    ):
        ship(tmp_path, Address("tcp", "127.0.0.1", listener.getsockname()[1]))
    remembered = Positions(tmp_path / "shipped.json", "it").get()
    assert remembered is None or remembered.head.sequence < 9000


def test_local_socket(tmp_path: Path) -> None:
    """The local socket gets the form that syslog(3) has, with the record in it."""
    path = tmp_path / "log"
    write_log(tmp_path / "audit.jsonl", LINES[:3])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        ship(tmp_path, Address("local", str(path)))
        received = [receiver.recv(1 << 16) for _ in range(3)]
    form = re.compile(rb"<8\d>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d pam-mfa\[4321\]: (\{.*\})")
    assert LINES[:3] == [match[1] + b"\n" for one in received if (match := form.fullmatch(one))]


def test_line_that_was_changed(tmp_path: Path, collector: Collector) -> None:
    """A line that somebody has changed to what is no JSON is sent as it stands."""
    line = LINES[1].replace(b'"version":1', b'"version":')
    write_log(tmp_path / "audit.jsonl", [LINES[0], line])
    ship(tmp_path, Address("tcp", "127.0.0.1", collector.port))
    message = collector.wait_for(2)[1]
    assert message.endswith(b" - " + line[:-1])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/dev/log", Address("local", "/dev/log")),
        ("tcp://collector", Address("tcp", "collector", 601)),
        ("tls://collector:99", Address("tls", "collector", 99)),
        ("tls://[2001:db8::1]", Address("tls", "2001:db8::1", 6514)),
        ("tcp://[2001:db8::1]:5", Address("tcp", "2001:db8::1", 5)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """Addresses are read."""
    assert address == parse_address(text)


@pytest.mark.parametrize(
    "text",
    ["", "collector", "udp://collector", "tcp://", "tcp://a:0", "tcp://a:x", "tls://a:70000"],
)
def test_bad_addresses(text: str) -> None:
    """What is no address is refused."""
    with pytest.raises(ValueError):  # noqa: PT011 - the command says what is meant
        parse_address(text)


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate for loopback that vouches for itself; return it, and it with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public, both = folder / f"{name}.crt", folder / f"{name}.pem"
    public.write_bytes(certificate)
    both.write_bytes(secret + certificate)
    return public, both


def test_tls(tmp_path: Path) -> None:
    """Over TLS both sides show certificates, and what comes is what was sent."""
    theirs, their_key = make_certificate(tmp_path, "collector")
    ours, our_key = make_certificate(tmp_path, "host")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ours)
    context.load_cert_chain(their_key)
    context.verify_mode = ssl.CERT_REQUIRED
    one = Collector(context)
    write_log(tmp_path / "audit.jsonl", LINES)
    ship(tmp_path, Address("tls", "127.0.0.1", one.port), Trust(theirs, our_key))
    assert LINES == texts(one.wait_for(30))
    one.close()


def test_collector_that_nobody_vouches_for(tmp_path: Path) -> None:
    """A collector with another certificate than the one that is trusted gets nothing."""
    _, their_key = make_certificate(tmp_path, "collector")
    trusted, _ = make_certificate(tmp_path, "other")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(their_key)
    one = Collector(context)
    write_log(tmp_path / "audit.jsonl", LINES)
    with pytest.raises(BrokenSystemError, match="certificate"):
        ship(tmp_path, Address("tls", "127.0.0.1", one.port), Trust(trusted))
    one.close()
    assert [] == one.messages
    assert Positions(tmp_path / "shipped.json", "it").get() is None


@pytest.mark.parametrize("is_shown", [True, False])
def test_collector_that_refuses_this_host(tmp_path: Path, *, is_shown: bool) -> None:
    """A collector that does not take this host's certificate is noticed before records count."""
    theirs, their_key = make_certificate(tmp_path, "collector")
    expected, _ = make_certificate(tmp_path, "another")
    _, our_key = make_certificate(tmp_path, "host")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=expected)
    context.load_cert_chain(their_key)
    context.verify_mode = ssl.CERT_REQUIRED
    one = Collector(context)
    write_log(tmp_path / "audit.jsonl", LINES)
    trust = Trust(theirs, our_key if is_shown else None)
    with pytest.raises(BrokenSystemError, match="does not take records"):
        ship(tmp_path, Address("tls", "127.0.0.1", one.port), trust)
    one.close()
    assert [] == one.messages
    assert Positions(tmp_path / "shipped.json", "it").get() is None


def test_log_made_anew(tmp_path: Path, collector: Collector) -> None:
    """Where the log does not follow what was sent, it is said, and all of it is sent."""
    address = Address("tcp", "127.0.0.1", collector.port)
    write_log(tmp_path / "audit.jsonl", LINES[:5])
    ship(tmp_path, address)
    fresh = LogMaker()
    while len(fresh.lines) < 7:
        fresh.add(user="other")
    write_log(tmp_path / "audit.jsonl", fresh.lines)
    told = ship(tmp_path, address)
    assert ["does not follow" in text for text in told] == [True]
    assert [*LINES[:5], *fresh.lines] == texts(collector.wait_for(12))
    assert json.loads((tmp_path / "shipped.json").read_text())["targets"]["it"][:2] == [2, 7]
