# SPDX-License-Identifier: Apache-2.0
"""SSH keys of security keys: enabled, kept in device files, and taken away."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles import REPOSITORY, Clock, make_device, make_request
from hypothesis import given
from hypothesis import strategies as st
from sk_keys import TYPES, certify, fingerprint_of, make_plain_key, make_sk_key, public_half
from ssh_key_bench import KEY, LINE, OTHER, SERIAL, Host, invoke, make_host
from test_devices import MOMENTS, TEXTS

from pam_mfa.devices import SshKeyDevice, format_devices, parse_devices
from pam_mfa.errors import DocumentError, RefusedError, StateError
from pam_mfa.policy import Policy
from pam_mfa.ssh_keys import ED25519, SshKey, format_key
from pam_mfa.store import Claim, Standing
from pam_mfa.verification import Caller, Commit, attempt

FILE = f"""\
version: 1
user: alice
devices:
- serial_number: ssh-key/alice/laptop
  type: ssh-key
  name: laptop
  enabled_at: 2026-01-02T03:04:05Z
  public_key: {format_key(KEY)}
"""
DEVICES = st.builds(
    SshKeyDevice,
    serial_number=TEXTS,
    name=TEXTS,
    enabled_at=MOMENTS,
    key=st.builds(
        SshKey,
        st.just(ED25519),
        st.binary(min_size=32, max_size=32),
        st.text(st.characters(max_codepoint=127), max_size=60),
    ),
)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host where nobody is enrolled, which the command line acts on."""
    host = make_host(tmp_path, monkeypatch)
    yield host
    host.store.close()


@given(st.lists(DEVICES, max_size=8, unique_by=(lambda d: d.serial_number, lambda d: d.name)))
def test_round_trip(devices: list[SshKeyDevice]) -> None:
    """Keys are read back from the device file that is written of them."""
    assert tuple(devices) == parse_devices(format_devices("alice", devices), "d.yaml", "alice")


def test_beside_a_phone() -> None:
    """A key stands beside devices of other types, in their order."""
    device = make_device()
    laptop = SshKeyDevice("ssh-key/alice/laptop", "laptop", device.enabled_at, KEY)
    data = format_devices("alice", (device, laptop))
    assert (device, laptop) == parse_devices(data, "d.yaml", "alice")


def test_file_by_hand() -> None:
    """The file is plain YAML, and one that a person wrote is read, with a key's comment, too."""
    (device,) = parse_devices(FILE.encode(), "d.yaml", "alice")
    assert isinstance(device, SshKeyDevice)
    assert (KEY, "ssh-key", FILE.encode()) == (
        device.key, device.type, format_devices("alice", (device,)),
    )  # fmt: skip
    commented = FILE.replace(format_key(KEY), f"{format_key(KEY)} alice@laptop")
    assert (device,) == parse_devices(commented.encode(), "d.yaml", "alice")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f"  public_key: {format_key(KEY)}\n", "", "line 4: 'devices[0].public_key' is missing"),
        (format_key(KEY), "''", "line 8: 'devices[0].public_key' is empty"),
        (format_key(KEY), "[a]", "line 8: 'devices[0].public_key' must be text"),
        (format_key(KEY), "x", "line 8: 'devices[0].public_key' is not that of a security key"),
        (format_key(KEY), format_key(KEY)[:-4],
         "line 8: 'devices[0].public_key' is not that of a security key: its key is cut"),
        ("public_key:", "publickey:", "line 8: 'devices[0].publickey' is not a known key"),
        ("enabled_at: 2026-01-02T03:04:05Z", "secret: sealed:v1:AAAA",
         "line 7: 'devices[0].secret' is not a known key"),
    ],
)  # fmt: skip
def test_files_that_are_refused(old: str, new: str, message: str) -> None:
    """A file with a mistake is refused with its line and key."""
    with pytest.raises(DocumentError) as caught:
        parse_devices(FILE.replace(old, new).encode(), "d.yaml", "alice")
    assert str(caught.value).startswith(f"d.yaml, {message}")


def test_enable(host: Host) -> None:
    """A public key enables a device, which is recorded, listed, and makes its user enrolled."""
    device = host.lifecycle.enable_ssh_key("alice", LINE)
    assert (SERIAL, "ssh-key", KEY) == (device.serial_number, device.name, device.key)
    assert (device,) == host.lifecycle.list_devices("alice")
    expected = {
        "event_name": "EnableMfaDevice", "outcome": "success", "reason": "requested",
        "user": "alice", "caller_uid": 0, "login_uid": 1000,
        "device": {"serial_number": SERIAL, "type": "ssh-key", "name": "ssh-key"},
    }  # fmt: skip
    (record,) = host.records()
    assert expected == {key: record[key] for key in expected}
    enrollment = host.store.read_enrollment("alice")
    assert (Standing.ENROLLED, (device,), ()) == (
        enrollment.standing, enrollment.ssh_keys, enrollment.devices,
    )  # fmt: skip


def test_names(host: Host) -> None:
    """A name can be given, and one that is taken gets a number where none is given."""
    host.lifecycle.enable_ssh_key("alice", LINE)
    names = [
        host.lifecycle.enable_ssh_key("alice", format_key(OTHER)).name,
        host.lifecycle.enable_ssh_key(
            "alice", format_key(OTHER._replace(application="")), "x"
        ).name,
    ]
    assert ["ssh-key-2", "x"] == names
    with pytest.raises(RefusedError, match="has a device named"):
        host.lifecycle.enable_ssh_key("alice", format_key(KEY._replace(application="")), "x")


def test_same_key_twice(host: Host, tmp_path: Path) -> None:
    """A user's key is enabled once, also by its certificate or another comment."""
    key = make_sk_key(tmp_path / "key")
    certificate = certify(make_plain_key(tmp_path / "authority"), key, "alice")
    host.lifecycle.enable_ssh_key("alice", public_half(key).read_text())
    for text in (public_half(key).read_text().replace("laptop", "other"), certificate.read_text()):
        with pytest.raises(RefusedError, match=f"alice has this key already, as {SERIAL}"):
            host.lifecycle.enable_ssh_key("alice", text)
    assert 1 == len(host.lifecycle.list_devices("alice"))


def test_one_key_for_two_users(host: Host) -> None:
    """One person's two accounts may have the same key."""
    for user in ("alice", "root"):
        host.lifecycle.enable_ssh_key(user, LINE)
    assert ["alice", "root"] == host.lifecycle.users()


def test_ninth_device(host: Host) -> None:
    """Eight devices a user, of any type, are the most."""
    for number in range(8):
        key = KEY._replace(point=bytes([number]) * 32)
        host.lifecycle.enable_ssh_key("alice", format_key(key))
    with pytest.raises(RefusedError, match="8"):
        host.lifecycle.enable_ssh_key("alice", LINE)


@pytest.mark.parametrize("user", ["", "a\nb", "x" * 300])
def test_users_that_cannot_be(host: Host, user: str) -> None:
    """A name that no account can have gets nothing."""
    with pytest.raises(RefusedError):
        host.lifecycle.enable_ssh_key(user, LINE)


def test_no_device_without_its_record(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the record cannot be made durable, there is no device."""

    def fail(_: list[Claim]) -> None:
        raise StateError("the disk is full")

    monkeypatch.setattr(host.store, "commit", fail)
    with pytest.raises(StateError, match="the disk is full"):
        host.lifecycle.enable_ssh_key("alice", LINE)
    assert () == host.lifecycle.list_devices("alice")


def log_in(host: Host) -> str:
    """Log in by the key; return the reason of the first record."""
    request = make_request(ssh_auth_info=f"publickey {format_key(KEY)}\n")
    caller = Caller(1, 0, may_verify=True)
    need = next(attempt(request, caller, Policy(), host.store, Clock()))
    assert isinstance(need, Commit)
    return str(host.store.commit([need.claim])[0].events[0].reason.value)


def test_life(host: Host) -> None:
    """A key that was enabled lets in, and its use shows; deactivated, it is forgotten."""
    host.lifecycle.enable_ssh_key("alice", LINE)
    assert (None, "ssh_key_accepted") == (
        host.lifecycle.device_statuses("alice")[0].last_used_at, log_in(host),
    )  # fmt: skip
    assert host.lifecycle.device_statuses("alice")[0].last_used_at is not None
    host.lifecycle.deactivate("alice", SERIAL, leave_none=True)
    assert "ssh_key_not_enrolled" == log_in(host)
    host.lifecycle.enable_ssh_key("alice", LINE)
    assert host.lifecycle.device_statuses("alice")[0].last_used_at is None


def test_last_device(host: Host) -> None:
    """A key that is the last device is not taken away unawares."""
    host.lifecycle.enable_ssh_key("alice", LINE)
    with pytest.raises(RefusedError, match="alice would have no MFA device left"):
        host.lifecycle.deactivate("alice", SERIAL)


def test_resync(host: Host) -> None:
    """A key makes no codes."""
    host.lifecycle.enable_ssh_key("alice", LINE)
    with pytest.raises(RefusedError, match="makes no codes"):
        host.lifecycle.resync("alice", SERIAL, "111111", "222222")


@pytest.mark.parametrize("kind", TYPES)
def test_command(host: Host, tmp_path: Path, kind: str) -> None:
    """The command enables ssh-keygen's file, and says what ssh-keygen and sshd call the key."""
    public_key = public_half(make_sk_key(tmp_path / "key", kind))
    words = ("enable", "ssh-key", "alice", "--public-key", str(public_key), "--name", "laptop")
    result = invoke(host, *words, "--vouch")
    fingerprint = fingerprint_of(public_key)
    expected = f"Enabled ssh-key/alice/laptop for alice: {fingerprint}.\n"
    assert (0, expected) == (result.exit_code, result.output)
    listed = json.loads(invoke(host, "list", "alice", "--json").output)
    assert ["ssh-key"] == [row["type"] for row in listed]


def test_command_by_standard_input(host: Host) -> None:
    """A hyphen is standard input."""
    result = invoke(host, "enable", "ssh-key", "alice", "--public-key", "-", "--vouch", stdin=LINE)
    assert (0, True) == (result.exit_code, result.output.startswith(f"Enabled {SERIAL} for alice"))


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "ssh-ed25519 AAAA\n", LINE + LINE, "A" * 1_000_000, LINE + "\n" * 40000 + LINE,
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "\0\0", LINE.replace("AAAA", "AAAA\u00e9"),
    ],
    ids=["empty", "blank", "plain", "two", "long", "far apart", "private", "NUL", "no ASCII"],
)  # fmt: skip
def test_command_by_another_file(host: Host, tmp_path: Path, text: str) -> None:
    """What is no public key of a security key enables nothing, and its fault is told."""
    (tmp_path / "file").write_text(text)
    words = ("enable", "ssh-key", "alice", "--public-key", str(tmp_path / "file"))
    error = invoke(host, *words).exception
    assert isinstance(error, RefusedError)
    assert str(error).startswith("this is not the public key of a security key: ")
    assert () == host.lifecycle.list_devices("alice")


def test_file_drives_no_terminal(host: Host) -> None:
    """A file that a user handed in writes nothing of its own on the administrator's terminal."""
    text = "\x1b]0;title\x07\x1b[2J\x1b[1;1H x y\n"
    result = invoke(host, "enable", "ssh-key", "alice", "--public-key", "-", stdin=text)
    assert isinstance(result.exception, RefusedError)
    assert "\x1b" not in f"{result.exception}{result.exception.hint}{result.output}"


def test_comment_is_not_kept(host: Host) -> None:
    """What else stands in the file, which a user wrote, is neither kept nor shown."""
    text = f"{format_key(KEY)} \x1b[2J# comment: {{x: y}}"
    words = ("enable", "ssh-key", "alice", "--public-key", "-", "--vouch")
    result = invoke(host, *words, stdin=text)
    kept = host.store.documents.path("alice").read_text()
    assert ("comment" in kept, "comment" in result.output) == (False, False)


def test_status_and_report(host: Host) -> None:
    """Listings show the key by its name, and what it is good for."""
    services = host.layout.root / "etc/pam.d"
    services.mkdir()
    (services / "sshd").write_text("auth required /opt/pam-mfa/lib/security/pam_mfa.so\n")
    host.layout.policy.write_text("version: 1\n")
    host.layout.policy.chmod(0o644)
    host.lifecycle.enable_ssh_key("alice", LINE, "laptop")
    output = invoke(host, "status", "alice").output
    assert "ssh-key/alice/laptop  ssh-key, never used" in output
    assert "sshd: lets in where the login is signed by an enrolled SSH key (laptop)" in output
    assert "ssh key: sshd" in invoke(host, "status").output
    (row,) = json.loads(invoke(host, "report", "--format", "json").output)
    assert ("ssh-key", "laptop") == (row["device_1_type"], row["device_1_name"])


@pytest.mark.parametrize("words", [(), ("--public-key", "/nonexistent"), ("--public-key", "/")])
def test_wrong_usage(host: Host, words: tuple[str, ...]) -> None:
    """Without a file that can be read it is wrong usage."""
    assert 2 == invoke(host, "enable", "ssh-key", "alice", *words).exit_code


def test_two_lines_are_not_one(host: Host) -> None:
    """Of a file with two keys none is enabled: nobody could tell which was meant."""
    text = f"{format_key(KEY)}\n{format_key(OTHER)}\n"
    with pytest.raises(RefusedError, match="it has several lines"):
        host.lifecycle.enable_ssh_key("alice", text)


def test_shipped_settings() -> None:
    """The shipped sshd settings insist on the touch that a key enrolled here stands for."""
    text = (REPOSITORY / "config/sshd_config.d/key-and-code.conf").read_text()
    assert "PubkeyAuthOptions touch-required" in text.splitlines()
