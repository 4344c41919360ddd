# SPDX-License-Identifier: Apache-2.0
"""Security keys taken over from pam_u2f: lines of pamu2fcfg's own, and the keys they are of."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from doubles import SEED, STEP, VECTORS, code_of, make_layout
from ports import PIN, KeyHost, Ports
from security_key.memory import parse_state

from pam_mfa.devices import DEVICES_MAX, FidoDevice
from pam_mfa.errors import BrokenSystemError
from pam_mfa.factors.security_key import Ceremony, client_data_hash, verify_assertion
from pam_mfa.hardware.keys import Credential, Method, Touch, Touched
from pam_mfa.importing.security_keys import KeyImporter, Origins, Result, Row
from pam_mfa.importing.u2f_keys import EnrolledKey, parse_u2f_keys
from pam_mfa.lifecycle import Actor

FOLDER = VECTORS / "u2f_keys"
KEYS = parse_u2f_keys((FOLDER / "u2f_mappings").read_bytes(), "u2f_mappings").credentials
ORIGINS = Origins("pam://example", "pam://old")
ALICE = [f"fido/alice/u2f{suffix}" for suffix in ("", "-2", "-3", "-4")]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyHost]:
    """A host with ports and an empty store."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    ports = Ports(monkeypatch)
    host = KeyHost(make_layout(tmp_path), ports)
    yield host
    host.store.close()
    ports.close()


def importer(host: KeyHost) -> KeyImporter:
    """Return what imports."""
    return KeyImporter(host.store, host.clock, Actor(0, 4321, 1000), ORIGINS)


def carry_out(host: KeyHost, *keys: EnrolledKey) -> list[Row]:
    """Import some credentials, or all of the file's."""
    return importer(host).carry_out(keys or KEYS, "/etc/u2f_mappings")


def results(rows: list[Row]) -> list[Result]:
    """Return what became of each."""
    return [row.result for row in rows]


def make_key(number: int, user: str = "alice") -> EnrolledKey:
    """Return a credential of a test's own."""
    return KEYS[0]._replace(user=user, credential_id=bytes((number,)) * 32)


def test_import(host: KeyHost) -> None:
    """Every credential that has an id becomes a device with pam_u2f's relying party."""
    rows = carry_out(host)
    assert [Result.IMPORT] * 2 + [Result.LEFT_OUT] + [Result.IMPORT] * 3 == results(rows)
    devices = [one for one in host.lifecycle.list_devices("alice") if isinstance(one, FidoDevice)]
    assert ALICE == [one.serial_number for one in devices]
    assert {"pam://example"} == {one.rp_id for one in devices}
    assert ["", "", "required", "required"] == [one.user_verification for one in devices]
    assert ["fido/bob/u2f"] == [one.serial_number for one in host.lifecycle.list_devices("bob")]


@pytest.mark.parametrize(
    ("state", "user", "method"),
    [("ctap2", "alice", Method.NONE), ("ctap2", "alice", Method.PIN), ("u2f", "bob", Method.NONE)],
)
def test_imported_key_verifies(host: KeyHost, state: str, user: str, method: Method) -> None:
    """The very key that pamu2fcfg enrolled is found, touched, and proves itself."""
    carry_out(host)
    host.ports.plug(*parse_state((FOLDER / f"{state}.json").read_text("utf-8")))
    devices = {
        Credential(one.credential_id, one.rp_id): one
        for one in host.lifecycle.list_devices(user)
        if isinstance(one, FidoDevice) and bool(one.user_verification) is (method is Method.PIN)
    }
    (holder,) = host.keys.look(tuple(devices), Event()).holders
    ceremony = Ceremony(bytes(32), "host", "sudo", user)
    touch = Touch((holder,), client_data_hash(ceremony), method, PIN)
    touched = host.keys.touch(touch, Event())
    assert isinstance(touched, Touched)
    proof = verify_assertion(
        devices[holder.credential],
        touched.assertion,
        ceremony,
        must_verify_user=method is Method.PIN,
    )
    assert (method is Method.PIN) is proof.is_user_verified


def test_whose_key_it_is(host: KeyHost) -> None:
    """An attached key shows all that were imported of it."""
    carry_out(host)
    host.ports.plug(*parse_state((FOLDER / "ctap2.json").read_text("utf-8")))
    (report,) = host.registrar.examine(tuple(host.lifecycle.enrolled_keys()), Event())
    assert 4 == len(report.held)


def test_old_format_has_the_appid(host: KeyHost) -> None:
    """A credential of the old format was made for the appid."""
    carry_out(host, KEYS[0]._replace(is_old=True))
    (device,) = host.lifecycle.list_devices("alice")
    assert isinstance(device, FidoDevice)
    assert "pam://old" == device.rp_id


def test_records(host: KeyHost) -> None:
    """Each device has its record, and the import one of its own."""
    carry_out(host)
    records = host.records()
    assert ["EnableMfaDevice"] * 5 + ["ImportDevices"] == [one["event_name"] for one in records]
    assert "imported from pam_u2f, u2f_mappings" == records[0]["detail"]
    assert "5 devices from pam_u2f, /etc/u2f_mappings" == records[-1]["detail"]


def test_again(host: KeyHost) -> None:
    """A second run changes nothing."""
    carry_out(host)
    before = host.lifecycle.list_devices("alice")
    rows = carry_out(host)
    assert [Result.PRESENT] * 2 + [Result.LEFT_OUT] + [Result.PRESENT] * 3 == results(rows)
    assert before == host.lifecycle.list_devices("alice")


def test_plan(host: KeyHost) -> None:
    """A plan says what an import does, and changes nothing."""
    planned = importer(host).plan(KEYS)
    assert ([], []) == (host.lifecycle.users(), host.records())
    assert planned == carry_out(host)


def test_plan_sees_what_it_would_take(host: KeyHost) -> None:
    """A credential that two users have is planned for the first only, as it is imported."""
    keys = (make_key(1), make_key(1, "bob"))
    planned = importer(host).plan(keys)
    assert planned == carry_out(host, *keys)
    assert [Result.IMPORT, Result.LEFT_OUT] == results(planned)
    assert "fido/alice/u2f already" in planned[1].note


def test_same_credential_twice(host: KeyHost) -> None:
    """A credential that stands in a user's line twice is taken once."""
    assert [Result.IMPORT, Result.PRESENT] == results(carry_out(host, make_key(1), make_key(1)))


def test_deactivated_since(host: KeyHost) -> None:
    """What was deactivated since an import is not brought back: the key may be lost."""
    carry_out(host, make_key(1))
    host.lifecycle.deactivate("alice", "fido/alice/u2f", leave_none=True)
    (row,) = carry_out(host, make_key(1))
    assert Result.LEFT_OUT is row.result
    assert "pam-mfa enable fido alice" in row.note
    assert () == host.lifecycle.list_devices("alice")


def test_interrupted(host: KeyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that broke off before a device file was written is completed by the next run."""

    def refuse(*_: object) -> None:
        raise BrokenSystemError("the disk is full", hint="See: df")

    with monkeypatch.context() as patch:
        patch.setattr(host.store.documents, "write", refuse)
        with pytest.raises(BrokenSystemError) as raised:
            carry_out(host, make_key(1), make_key(2))
    assert "run the import again" in raised.value.hint
    assert [Result.IMPORT] * 2 == results(carry_out(host, make_key(1), make_key(2)))
    assert ALICE[:2] == [one.serial_number for one in host.lifecycle.list_devices("alice")]


def test_eight_devices(host: KeyHost) -> None:
    """A user gets no ninth device."""
    rows = carry_out(host, *(make_key(number) for number in range(DEVICES_MAX + 2)))
    assert [Result.IMPORT] * 8 + [Result.LEFT_OUT] * 2 == results(rows)
    assert "at most 8" in rows[-1].note


def test_beside_other_devices(host: KeyHost) -> None:
    """A user's other devices stay."""
    pending = host.lifecycle.begin_virtual("alice", "u2f", seed=SEED)
    host.lifecycle.enable(pending, code_of(SEED, STEP), code_of(SEED, STEP + 1))
    carry_out(host, make_key(1))
    names = [one.serial_number for one in host.lifecycle.list_devices("alice")]
    assert ["virtual/alice/u2f", "fido/alice/u2f-2"] == names


@pytest.mark.parametrize("user", ["", "a\x00b", "\udcff"])
def test_bad_users(host: KeyHost, user: str) -> None:
    """What cannot be an account's name has its credentials left out."""
    (row,) = carry_out(host, make_key(1, user))
    assert Result.LEFT_OUT is row.result


def test_unreadable_devices(host: KeyHost) -> None:
    """A user whose device file cannot be read is left out, the others are not."""
    host.layout.devices.joinpath("alice.yaml").write_text("torn")
    host.layout.devices.joinpath("alice.yaml").chmod(0o600)
    rows = carry_out(host, make_key(1), make_key(2, "bob"))
    assert [Result.LEFT_OUT, Result.IMPORT] == results(rows)


def test_enabled_here_already(host: KeyHost) -> None:
    """A credential that was enabled here is nobody else's, by whatever file."""
    host.ports.plug()
    device = host.enable()
    (row,) = carry_out(host, make_key(1, "bob")._replace(credential_id=device.credential_id))
    assert Result.LEFT_OUT is row.result


def test_imported_key_is_enabled_anew(host: KeyHost) -> None:
    """A key whose credential was imported can be enabled with one of our own."""
    carry_out(host)
    host.ports.plug(*parse_state((FOLDER / "u2f.json").read_text("utf-8")))
    assert "fido/bob/yubikey-5-nfc" == host.enable("bob").serial_number
