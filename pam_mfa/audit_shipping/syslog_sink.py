# SPDX-License-Identifier: Apache-2.0
"""Syslog as a target: RFC 5424 over TCP (RFC 6587) or TLS (RFC 5425), or the local socket.

A message is a record's line, byte for byte. Syslog has no answer that a message was kept: over
TCP and TLS it is waited until the other side's kernel has taken it, after that it is remembered
as shipped. What is then lost is what a collector loses that it had received. A kill before it was
remembered sends it once more: at least once, not exactly once. ``logging.handlers`` of the
standard library would drop what it cannot send.
"""

import fcntl
import json
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pam_mfa.audit_shipping.hosts import SignOfLife
from pam_mfa.audit_shipping.sinks import Chain
from pam_mfa.errors import BrokenSystemError

_PATIENCE: Final = 20.0  # seconds until a target that takes nothing is given up for now
_PAUSE: Final = 0.01
_AUTHPRIV: Final = 10  # LOG_AUTHPRIV, RFC 5424, table 1: security/authorization messages
_PRIORITIES: Final = {"success": 6, "denied": 4, "error": 3}
_NOTICE: Final = 5
_META_MAX: Final = 2147483647  # RFC 5424, 7.3.1: sequenceId
_PORTS: Final = {"tcp": 601, "tls": 6514}  # RFC 6587 has none, RFC 3195's is in use; RFC 5425, 4.1


class Address(NamedTuple):
    """Where messages go."""

    kind: str  # "local", "tcp" or "tls"
    place: str  # a socket's path, or a host
    port: int = 0


class Trust(NamedTuple):
    """Whom TLS trusts, and who we are."""

    authorities: Path | None = None  # PEM; None: the system's
    certificate: Path | None = None  # PEM, with its key


def parse_address(text: str) -> Address:
    """Return the address of ``/dev/log``, ``tcp://HOST[:PORT]`` or ``tls://HOST[:PORT]``.

    Raises:
        ValueError: it is none of these.
    """
    if text.startswith("/"):
        return Address("local", text)
    kind, separator, rest = text.partition("://")
    if not separator or kind not in _PORTS:
        raise ValueError(text)
    host, port = rest, ""
    if rest.startswith("["):  # an address of IPv6
        host, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    elif ":" in rest:
        host, _, port = rest.rpartition(":")
    number = int(port) if port else _PORTS[kind]
    if not host or not 0 < number < 1 << 16:
        raise ValueError(text)
    return Address(kind, host, number)


class SyslogSink:
    """A syslog collector, opened for one host."""

    has_records = False

    def __init__(self, address: Address, host: str, trust: Trust | None = None) -> None:
        """Take the address and what this host is called there; nothing is connected yet."""
        self._address = address
        self._host = host
        self._trust = trust or Trust()
        self._socket: socket.socket | None = None

    def chains(self) -> Sequence[Chain]:
        """Return nothing: a collector cannot be asked."""
        return ()

    def hash_of(self, number: int, sequence: int) -> str:
        """Return "": a collector cannot be asked."""
        del number, sequence
        return ""

    def put(self, number: int, lines: Sequence[bytes]) -> None:
        """Send lines, and wait until the other side's kernel has them."""
        del number  # every record says its place itself
        try:
            self._send([self._message(line.rstrip(b"\n")) for line in lines])
        except OSError as error:  # of TLS and of names, too
            self.close()
            raise BrokenSystemError(
                f"the syslog target {self._address.place} does not take records: "
                f"{error.strerror or error}",
                hint="Nothing is lost: what it has not taken is sent once it does.",
            ) from error

    def tell_alive(self, sign: SignOfLife) -> None:
        """Do nothing: a collector knows by itself when a host was last heard of."""

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _send(self, messages: Sequence[bytes]) -> None:
        connection = self._socket or self._connect()
        self._socket = connection
        if self._address.kind == "local":
            for message in messages:
                connection.send(message)
            return
        _require_open(connection)
        framed = (b"%d %b" % (len(message), message) for message in messages)
        connection.sendall(b"".join(framed))
        _wait_until_taken(connection)
        _require_open(connection)

    def _connect(self) -> socket.socket:
        address = self._address
        if address.kind == "local":
            local = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            local.settimeout(_PATIENCE)
            try:
                local.connect(address.place)
            except OSError:
                local.close()
                raise
            return local
        plain = socket.create_connection((address.place, address.port), _PATIENCE)
        if address.kind == "tcp":
            return plain
        try:
            return self._context().wrap_socket(plain, server_hostname=address.place)
        except BaseException:
            plain.close()
            raise

    def _context(self) -> ssl.SSLContext:
        # The host's name is checked against the certificate: RFC 5425, 5.2.
        context = ssl.create_default_context(cafile=self._trust.authorities)
        # With TLS 1.3 a collector that refuses this host's certificate, or misses one, says so only
        # after the first records were sent, and they would be taken for shipped.
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        if self._trust.certificate is not None:
            context.load_cert_chain(self._trust.certificate)
        return context

    def _message(self, line: bytes) -> bytes:
        """Return a record as a message; the local socket takes an older form, as syslog(3)'s."""
        record = _fields_of(line)
        number = _AUTHPRIV * 8 + _PRIORITIES.get(str(record.get("outcome")), _NOTICE)
        process = record.get("process")
        pid = process.get("pid") if isinstance(process, dict) else None
        if self._address.kind == "local":
            moment = time.strftime("%b %e %H:%M:%S", time.localtime())
            return f"<{number}>{moment} pam-mfa[{pid}]: ".encode("ascii", "replace") + line
        sequence = record.get("sequence")
        is_told = type(sequence) is int and 0 < sequence <= _META_MAX
        meta = f'[meta sequenceId="{sequence}"]' if is_told else "-"
        # Names that are not printable ASCII would begin another field.
        head = f"<{number}>1 {_word(record.get('time'))} {_word(self._host)} pam-mfa "
        return f"{head}{_word(pid)} audit {meta} ".encode("ascii") + line


def _fields_of(line: bytes) -> dict[str, object]:
    """Return a record's fields; none where somebody has changed the line to what is no record."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _word(value: object) -> str:
    text = "".join(one if "!" <= one <= "~" else "?" for one in str(value))
    return text[:128] or "-"


def _require_open(connection: socket.socket) -> None:
    """Notice that the other side has closed, before something is sent that nobody will read.

    Raises:
        OSError: it has.
    """
    connection.setblocking(False)
    try:
        if not connection.recv(1):
            raise ConnectionResetError("the connection was closed by the other side")
    except (BlockingIOError, ssl.SSLWantReadError):
        pass
    finally:
        connection.settimeout(_PATIENCE)


def _wait_until_taken(connection: socket.socket) -> None:
    """Wait until nothing is left that the other side's kernel has not acknowledged (tcp(7)).

    Raises:
        OSError: that takes too long, or the connection broke.
    """
    deadline = time.monotonic() + _PATIENCE
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:
        if time.monotonic() > deadline:
            raise TimeoutError("it does not acknowledge what was sent")
        time.sleep(_PAUSE)
    failed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise OSError(failed, "the connection broke")
