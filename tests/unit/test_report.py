# SPDX-License-Identifier: Apache-2.0
"""The credential report: who stands in it, its words, and that no name can do harm in it."""

import csv
import datetime
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles import OTHER_SEED, SEED, START, Clock, make_layout
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.census import count_everybody
from pam_mfa.devices import Bypass, RecoveryCodes, TokenDevice, VirtualDevice
from pam_mfa.host import Accounts
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.lockout import LockState
from pam_mfa.oath import Parameters
from pam_mfa.report import (
    COLUMNS,
    Cell,
    format_cell,
    make_rows,
    parse_text,
    printable,
    write_csv,
    write_json,
)
from pam_mfa.secret import Secret
from pam_mfa.store import Change, Claim, encode_user
from pam_mfa.store.embedded import EmbeddedStore

PASSWD = """\
alice:x:1000:1000::/home/alice:/bin/bash
bob:x:1001:1001::/home/bob:/bin/sh
daemon:x:1:1::/:/usr/sbin/nologin
"""


def moment() -> datetime.datetime:
    """Return a moment, each time another value: no two devices share one."""
    return datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


class Host:
    """A store and a passwd file in a directory."""

    def __init__(self, root: Path) -> None:
        """Make them; nobody is enrolled."""
        self.root = root
        self.store = EmbeddedStore(make_layout(root))
        self.lifecycle = Lifecycle(self.store, Clock(), Actor(0, 1, None))
        (root / "etc/passwd").write_text(PASSWD)

    def rows(self) -> list[dict[str, str]]:
        """Return the report's rows as a program reads them from CSV."""
        out = io.StringIO(newline="")
        write_csv(self._rows(), out)
        return list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))

    def json_rows(self) -> list[dict[str, object]]:
        """Return the report's rows as a program reads them from JSON."""
        out = io.StringIO()
        write_json(self._rows(), out)
        rows: list[dict[str, object]] = json.loads(out.getvalue())
        return rows

    def row(self, user: str) -> dict[str, str]:
        """Return one user's row of CSV."""
        (row,) = (row for row in self.rows() if row["user"] == user)
        return row

    def _rows(self) -> Iterator[dict[str, Cell]]:
        accounts = Accounts(self.root)
        return make_rows(count_everybody(self.lifecycle, accounts, are_opened=False))

    def virtual(self, user: str, name: str = "phone", seed: Secret = SEED) -> VirtualDevice:
        """Return an application's device for a user."""
        serial_number = f"virtual/{user}/{name}"
        sealed = self.store.sealer.seal(seed, user, serial_number)
        return VirtualDevice(serial_number, name, moment(), Parameters(), sealed)

    def enroll(self, user: str) -> None:
        """Give a user an application's device."""
        self.store.documents.write(user, (self.virtual(user),))

    def use(self, key: str, at: float = START, drift: int = 0) -> None:
        """Note that a device, or a code on paper, was used."""
        change = Change(
            accepted=True, events=(), used_steps={key: 1}, drifts={key: drift}, used_at=at
        )
        self.store.commit([Claim("", (), lambda _: change)])

    def lock(self, user: str, until: float) -> None:
        """Lock a user."""
        change = Change(accepted=False, events=(), lock=LockState((), until))
        self.store.commit([Claim(encode_user(user), (), lambda _: change)])


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host with two accounts to log in by."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    host = Host(tmp_path)
    yield host
    host.store.close()


def test_columns() -> None:
    """There are AWS's columns, for eight devices."""
    assert ("user", "uid", "account", "login_capable", "mfa_active", "locked_until",
            "device_1_type", "device_1_serial_number") == COLUMNS[:8]  # fmt: skip
    assert ("device_8_drift", "device_8_weak", "recovery_codes_left", "bypass_expires_at",
            "problem") == COLUMNS[-5:]  # fmt: skip
    assert 6 + 8 * 7 + 3 == len(set(COLUMNS))


def test_everybody_is_in_it(host: Host) -> None:
    """Accounts to log in by are in it, enrolled or not, and whoever has a device file; by name."""
    for user in ("bob", "aaron", "daemon"):
        host.enroll(user)
    found = [
        (row["user"], row["account"], row["login_capable"], row["mfa_active"])
        for row in host.rows()
    ]
    expected = [
        ("aaron", "false", "N/A", "true"),
        ("alice", "true", "true", "false"),
        ("bob", "true", "true", "true"),
        ("daemon", "true", "false", "true"),
    ]
    assert expected == found


def test_no_accounts_to_be_read(host: Host) -> None:
    """Where nothing is known of accounts, that is said."""
    host.enroll("alice")
    (host.root / "etc/passwd").unlink()
    (row,) = host.rows()
    assert ["no_information"] * 3 == [row[key] for key in ("uid", "account", "login_capable")]


def test_devices(host: Host) -> None:
    """Each device has its own columns, in the order they were enabled."""
    sealed = host.store.sealer.seal(OTHER_SEED, "alice", "T-1")
    token = TokenDevice("T-1", "token", moment(), Parameters(period=0), sealed)
    host.store.documents.write("alice", (host.virtual("alice"), token))
    host.use("virtual/alice/phone", drift=-3)
    row = host.row("alice")
    assert ["virtual", "virtual/alice/phone", "phone", "2026-01-02T03:04:05Z",
            "2023-11-14T22:14:05Z", "-3", "false"] == [
        row[f"device_1_{key}"] for key in DEVICE_KEYS]  # fmt: skip
    assert ["token", "T-1", "token", "2026-01-02T03:04:05Z", "no_information", "N/A", "false"] == [
        row[f"device_2_{key}"] for key in DEVICE_KEYS
    ]
    assert {"N/A"} == {row[f"device_{n}_{key}"] for n in range(3, 9) for key in DEVICE_KEYS}


DEVICE_KEYS = ("type", "serial_number", "name", "enabled_at", "last_used_at", "drift", "weak")


def test_paper(host: Host) -> None:
    """Recovery codes are a device and tell the codes left; a bypass is none and tells its end."""
    codes = RecoveryCodes("recovery/alice/1", "recovery", moment(), ("a", "b", "c"))
    bypass = Bypass("bypass/alice/1", "bypass", moment(), moment(), ("d",))
    host.store.documents.write("alice", (bypass, codes))
    host.use("recovery/alice/1#1")
    row = host.row("alice")
    assert ("recovery", "2", "2026-01-02T03:04:05Z", "N/A", "2023-11-14T22:14:05Z") == (
        row["device_1_type"], row["recovery_codes_left"], row["bypass_expires_at"],
        row["device_2_type"], row["device_1_last_used_at"],
    )  # fmt: skip


def test_bypass_alone(host: Host) -> None:
    """A bypass is no MFA device, and a used one has no end any more."""
    host.lifecycle.issue_bypass("alice", 60)
    before = host.row("alice")
    (bypass,) = host.lifecycle.list_devices("alice")
    host.use(f"{bypass.serial_number}#0")
    assert [("false", "2023-11-14T22:15:05Z"), ("false", "N/A")] == [
        (row["mfa_active"], row["bypass_expires_at"]) for row in (before, host.row("alice"))
    ]


def test_weak_seed(host: Host) -> None:
    """A seed of less than 112 bits is told, without being opened."""
    seeds = [Secret(bytes(size)) for size in (13, 14)]
    devices = [host.virtual("alice", f"n{len(seed.reveal())}", seed) for seed in seeds]
    host.store.documents.write("alice", tuple(devices))
    row = host.row("alice")
    assert ("true", "false") == (row["device_1_weak"], row["device_2_weak"])


def test_locks(host: Host) -> None:
    """A lock is told while it lasts."""
    host.lock("alice", START + 60)
    host.lock("bob", START - 60)
    assert ["2023-11-14T22:15:05Z", "N/A"] == [row["locked_until"] for row in host.rows()]


@pytest.mark.parametrize("spoil", ["mode", "content", "kind"])
def test_unreadable_file(host: Host, spoil: str) -> None:
    """A device file that cannot be read is said in its user's row, and ends nothing."""
    host.enroll("alice")
    path = host.store.documents.path("alice")
    if spoil == "mode":
        path.chmod(0o644)
    elif spoil == "content":
        path.write_text("[")
    else:
        path.unlink()
        path.mkdir()
    alice, bob = host.rows()
    assert ("no_information", "no_information", "N/A", "bob") == (
        alice["mfa_active"], alice["recovery_codes_left"], alice["device_1_type"], bob["user"],
    )  # fmt: skip
    assert alice["problem"].startswith(str(path))


def test_file_of_nobody(host: Host) -> None:
    """A file of which it cannot be told whose it is comes last, under its own name."""
    folder = host.store.documents.path("x").parent
    for name in ("%61lice", "aa%%00"):
        (folder / f"{name}.yaml").write_text("x")
        (folder / f"{name}.yaml").chmod(0o600)
    rows = host.rows()
    assert ["alice", "bob", "%61lice", "aa%%00"] == [row["user"] for row in rows]
    assert ["N/A", "N/A", True, True] == [
        rows[0]["problem"], rows[1]["problem"],
        rows[2]["problem"].endswith("has a name that no user's device file has"),
        rows[3]["problem"].startswith(f"{folder}/aa%%00.yaml"),
    ]  # fmt: skip


def test_no_seed_is_opened(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report opens no seed."""
    host.enroll("alice")
    monkeypatch.setattr(type(host.store.sealer), "open", None)
    assert "true" == host.row("alice")["mfa_active"]


def test_json(host: Host) -> None:
    """JSON has the same columns, typed, without those of devices that are not there."""
    host.enroll("alice")
    alice, bob = host.json_rows()
    assert {
        "user": "alice", "uid": 1000, "account": True, "login_capable": True, "mfa_active": True,
        "locked_until": None, "device_1_type": "virtual",
        "device_1_serial_number": "virtual/alice/phone", "device_1_name": "phone",
        "device_1_enabled_at": "2026-01-02T03:04:05Z", "device_1_last_used_at": "no_information",
        "device_1_drift": 0, "device_1_weak": False, "recovery_codes_left": None,
        "bypass_expires_at": None, "problem": None,
    } == alice  # fmt: skip
    assert set(bob) < set(alice) < set(COLUMNS)


def test_nobody(host: Host) -> None:
    """Where nobody is, CSV has its columns and JSON is an empty list."""
    (host.root / "etc/passwd").write_text("")
    assert ([], []) == (host.rows(), host.json_rows())


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("=cmd|'/C calc'!A0", "'=cmd|'/C calc'!A0"),
        ("+1", "'+1"),
        ("-rf", "'-rf"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("'x", "''x"),
        ("\t=1", "'\\t=1"),
        ("a\r\n=1", "a\\r\\n=1"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\u202eb", "a\\u202eb"),
        ("\udcff", "\\udcff"),
        ("a=b", "a=b"),
        ("a;=1", "a\\x3b=1"),
        ("DOMAIN\\user", "DOMAIN\\user"),
        ("ü", "ü"),
        (-1, "-1"),
        (True, "true"),
        (None, "N/A"),
    ],
)
def test_cells(cell: Cell, expected: str) -> None:
    """No text begins a formula or drives a terminal; numbers stay numbers."""
    assert expected == format_cell(cell)


def test_hostile_names(host: Host) -> None:
    """Accounts of hostile names get a row each, in which nothing is a formula."""
    names = ["=1+1", "-a", "+a", "@a", "'a", 'q"q', "a,b", " a", "N/A", "true"]
    lines = [f"{name}:x:{n}:1::/:\n" for n, name in enumerate(names)]
    (host.root / "etc/passwd").write_text("".join(lines))
    rows = host.rows()
    assert sorted(names) == [parse_text(row["user"]) for row in rows]
    assert {len(COLUMNS)} == {len(row) for row in rows}
    assert not any(cell.startswith(tuple("=+-@")) for row in rows for cell in row.values())


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_round_trip(texts: list[str]) -> None:
    """Whatever texts a row has, it is read back as one row of as many cells, and they are safe."""
    out = io.StringIO(newline="")
    rows: list[dict[str, Cell]] = [dict(zip(COLUMNS, texts, strict=False))]
    write_csv(rows, out)
    header, row = csv.reader(io.StringIO(out.getvalue(), newline=""))
    assert (list(COLUMNS), len(COLUMNS)) == (header, len(row))
    shown = [printable(text).replace(";", "\\x3b") for text in texts]
    assert shown == [parse_text(cell) for cell in row[: len(texts)]]
    assert all(cell.isprintable() and not cell.startswith(tuple("=+-@")) for cell in row)


@given(st.text())
def test_printable(text: str) -> None:
    """A text whose characters print stays as it is, and every other one becomes such a text."""
    shown = printable(text)
    assert (True, text.isprintable()) == (shown.isprintable(), shown == text)


@given(st.lists(st.text(max_size=9), max_size=4))
def test_json_round_trip(texts: list[str]) -> None:
    """Whatever texts rows have, JSON gives them back."""
    out = io.StringIO()
    rows: list[dict[str, Cell]] = [{"user": text} for text in texts]
    write_json(rows, out)
    assert rows == json.loads(out.getvalue())
    assert out.getvalue().isascii()
