# SPDX-License-Identifier: Apache-2.0
"""Imports on a store in a temporary directory: what becomes of whom, twice, and when cut off."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles import OTHER_SEED, SEED, START, STEP, Clock, code_of, make_layout, make_request
from test_lifecycle import Host

from pam_mfa.audit import Reason
from pam_mfa.devices import RecoveryCodes, VirtualDevice
from pam_mfa.errors import BrokenSystemError, StateError
from pam_mfa.importing.credentials import Credential
from pam_mfa.importing.importer import BATCH, Importer, Row, Rules
from pam_mfa.importing.importer import Result as Outcome
from pam_mfa.lifecycle import Actor
from pam_mfa.oath import Parameters
from pam_mfa.policy import Policy
from pam_mfa.secret import Secret
from pam_mfa.store.device_files import DeviceFiles
from pam_mfa.token_stock import TokenStock
from pam_mfa.tokens import Delivery, Token
from pam_mfa.verification import Caller, Commit, Listen, attempt
from pam_mfa.wire import Result

CODES = ("61024008", "59603733", "60269131")
HOTP = Parameters(period=0)
WEAK = Secret(b"ten bytes.")
GA = "virtual/alice/google-authenticator"
ACCEPTED = (Result.SUCCESS, Reason.CODE_ACCEPTED)
REUSED = (Result.DENIED, Reason.CODE_REUSED)
WRONG = (Result.DENIED, Reason.WRONG_CODE)


def credential(user: str = "alice", seed: Secret = SEED, **fields: Any) -> Credential:  # noqa: ANN401 - any field
    """Return what a file says of a user."""
    return Credential(user, f"/home/{user}/ga", 1, Parameters(), seed)._replace(**fields)


def seed_of(number: int) -> Secret:
    """Return a seed of its own for each number."""
    return Secret(b"seed of a user. " + number.to_bytes(4, "big"))


class ImportingHost(Host):
    """A host, and what imports into it."""

    def importer(self, **policy: Any) -> Importer:  # noqa: ANN401 - any key
        """Return an importer under a policy."""
        rules = Rules("google-authenticator", Policy()._replace(**policy))
        return Importer(self.store, self.clock, Actor(0, 4321, 1000), rules)

    def take(self, *credentials: Credential, **policy: Any) -> list[Row]:  # noqa: ANN401
        """Import credentials, which the plan must have said before."""
        importer = self.importer(**policy)
        planned = importer.plan(credentials)
        rows = importer.carry_out(credentials, "~/ga")
        assert planned == rows
        return rows

    def only(self, *credentials: Credential, **policy: Any) -> Row:  # noqa: ANN401
        """Import credentials and return the last one's row."""
        return self.take(*credentials, **policy)[-1]

    def log_in(self, code: str, user: str = "alice") -> tuple[Result, Reason | None]:
        """Log in with a code; return the verdict, past what is told of codes that are left."""
        caller, policy = Caller(1, 0, may_verify=True), Policy(prompts=1)
        running = attempt(make_request(user), caller, policy, self.store, self.clock)
        reply: object = None
        while True:
            try:
                need = running.send(reply)
            except StopIteration as end:
                return end.value.result, end.value.reason
            if isinstance(need, Commit):
                reply = self.store.commit([need.claim])[0]
            else:
                reply = code if isinstance(need, Listen) else None

    def snapshot(self) -> dict[str, bytes]:
        """Return every device file."""
        return {path.name: path.read_bytes() for path in self.layout.devices.glob("*.yaml")}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImportingHost]:
    """A host where nobody is enrolled."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    host = ImportingHost(make_layout(tmp_path))
    yield host
    host.store.close()


def test_import(host: ImportingHost) -> None:
    """A credential becomes a virtual device, whose codes then let its user in."""
    row = host.only(credential())
    assert Row("alice", Outcome.IMPORT, GA, Parameters(), 0, "") == row
    (device,) = host.lifecycle.list_devices("alice")
    moment = datetime.datetime.fromtimestamp(int(START), datetime.UTC)
    assert (GA, "google-authenticator", moment, Parameters()) == device[:4]
    assert ACCEPTED == host.log_in(code_of(SEED, STEP))


def test_record(host: ImportingHost) -> None:
    """Each device's record says who acted and where it came from; the last one tells how many."""
    host.take(credential(scratch_codes=CODES), credential("bob", OTHER_SEED))
    said = [(one["event_name"], one.get("user"), one["detail"]) for one in host.records()]
    alice = ("EnableMfaDevice", "alice", "imported from google-authenticator, /home/alice/ga")
    bob = ("EnableMfaDevice", "bob", "imported from google-authenticator, /home/bob/ga")
    whole = ("ImportDevices", None, "2 devices from google-authenticator, ~/ga")
    assert [alice, alice, bob, whole] == said
    assert ["virtual", "recovery"] == [one["device"]["type"] for one in host.records()[:2]]
    assert {1000} == {one["login_uid"] for one in host.records()}


def test_secrets_are_not_kept(host: ImportingHost) -> None:
    """Neither seed nor scratch code stands in any file."""
    host.take(credential(scratch_codes=CODES))
    host.store.close()
    for path in host.layout.root.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert not [one for one in (SEED.reveal(), *map(str.encode, CODES)) if one in data]


def test_two_devices_share_no_anchor(host: ImportingHost) -> None:
    """A device file with two devices of one moment is read back."""
    host.take(credential(scratch_codes=CODES), credential(seed=OTHER_SEED))
    kinds = [type(device) for device in host.lifecycle.list_devices("alice")]
    assert [VirtualDevice, VirtualDevice, RecoveryCodes] == kinds


def test_scratch_codes(host: ImportingHost) -> None:
    """Each scratch code lets its user in once, and the others stay good."""
    assert 3 == host.only(credential(scratch_codes=CODES)).recovery_codes
    assert [ACCEPTED, REUSED, ACCEPTED] == [
        host.log_in(code) for code in (CODES[0], CODES[0], CODES[2])
    ]
    left = [one.codes_left for one in host.lifecycle.device_statuses("alice")]
    assert [None, 1] == left


def test_scratch_codes_of_others(host: ImportingHost) -> None:
    """A scratch code is a wrong code for everybody else."""
    host.take(credential(scratch_codes=CODES), credential("bob", OTHER_SEED))
    assert WRONG == host.log_in(CODES[0], "bob")


def test_recovery_codes_stay(host: ImportingHost) -> None:
    """Who has recovery codes keeps them, and is told that the scratch codes are left out."""
    ours = host.lifecycle.enable_recovery("alice")
    row = host.only(credential(scratch_codes=CODES))
    assert (Outcome.IMPORT, 0) == (row.result, row.recovery_codes)
    assert "scratch codes left out" in row.note
    assert [WRONG, ACCEPTED] == [host.log_in(code) for code in (CODES[0], ours[0])]


@pytest.mark.parametrize(("used", "code", "expected"), [
    ((STEP - 1, STEP - 3), STEP, ACCEPTED), ((STEP - 1, STEP), STEP, REUSED),
    ((STEP, STEP - 1), STEP - 1, REUSED), ((), STEP - 1, ACCEPTED),
    ((STEP + 10**6,), STEP, ACCEPTED),
])  # fmt: skip
def test_used_steps(
    host: ImportingHost, used: tuple[int, ...], code: int, expected: tuple[Result, Reason]
) -> None:
    """A code that was used there counts no more; a moment far ahead locks nobody out."""
    host.take(credential(used_steps=used))
    assert expected == host.log_in(code_of(SEED, code))


def test_drift(host: ImportingHost) -> None:
    """A skew that the module learned is the device's drift."""
    host.take(credential(drift=-40))
    assert [WRONG, ACCEPTED] == [host.log_in(code_of(SEED, STEP + n)) for n in (0, -40)]
    assert [-40] == [one.drift for one in host.lifecycle.device_statuses("alice")]


def test_counter(host: ImportingHost) -> None:
    """A counter-based credential goes on where it was."""
    row = host.only(credential(parameters=HOTP, used_steps=(6,)))
    assert (GA, HOTP) == (row.serial_number, row.parameters)
    (device,) = host.lifecycle.list_devices("alice")
    assert isinstance(device, VirtualDevice)
    assert HOTP == device.parameters
    steps = [host.log_in(code_of(SEED, counter)) for counter in (6, 7, 7, 8)]
    assert [WRONG, ACCEPTED, WRONG, ACCEPTED] == steps


def test_window(host: ImportingHost) -> None:
    """The row says so where another number of codes counts at a time."""
    notes = [row.note for row in host.take(
        credential(window=3), credential("bob", OTHER_SEED, window=17),
        credential("carol", seed_of(3), parameters=HOTP, window=3),
    )]  # fmt: skip
    assert ["", "17 codes at a time count there, 3 here", "3 codes at a time count there, 10 here"]\
        == notes  # fmt: skip


@pytest.mark.parametrize(
    ("bits", "least", "words"),
    [(80, 112, "minimum_seed_bits: 80"), (104, 112, "minimum_seed_bits: 104"),
     (72, 112, "its secret has 72 bits, and 112 are asked for"), (72, 80, "80 are asked for"),
     (128, 160, "160 are asked for")],
)  # fmt: skip
def test_short_seed(host: ImportingHost, bits: int, least: int, words: str) -> None:
    """A seed under the policy's minimum is left out, with its scratch codes."""
    short = credential(seed=Secret(bytes(range(bits // 8))), scratch_codes=CODES)
    row = host.only(short, minimum_seed_bits=least)
    assert (Outcome.LEFT_OUT, "", 0) == (row.result, row.serial_number, row.recovery_codes)
    assert words in row.note
    assert ((), ["ImportDevices"]) == (host.lifecycle.list_devices("alice"), host.names())


def test_weak_seed(host: ImportingHost) -> None:
    """A weak seed that policy lets in verifies its user, and is marked everywhere."""
    everybody = (credential(seed=WEAK), credential("bob"))
    notes = [row.note for row in host.take(*everybody, minimum_seed_bits=80)]
    assert ["weak: 80 bits", ""] == notes
    assert ACCEPTED == host.log_in(code_of(WEAK, STEP))
    assert [True, False] == [
        one.is_weak for user in ("alice", "bob") for one in host.lifecycle.device_statuses(user)
    ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"obstacle": "a PIN is typed"}, "a PIN is typed"), ({"user": ""}, "user name is empty"),
     ({"user": "a\nb"}, "cannot be printed")],
)  # fmt: skip
def test_obstacles(host: ImportingHost, fields: dict[str, Any], words: str) -> None:
    """What cannot be taken is left out with the reason, and the others are taken."""
    rows = host.take(credential(**fields), credential("bob", OTHER_SEED))
    assert [Outcome.LEFT_OUT, Outcome.IMPORT] == [row.result for row in rows]
    assert words in rows[0].note


def test_same_seed(host: ImportingHost) -> None:
    """A seed is one device's of one user: a second user with it is left out, and told whose."""
    rows = host.take(credential(), credential("bob"))
    assert [Outcome.IMPORT, Outcome.LEFT_OUT] == [row.result for row in rows]
    assert f"its secret is that of {GA} already" == rows[1].note
    assert Outcome.LEFT_OUT is host.only(credential("carol")).result


def test_same_seed_in_batches(host: ImportingHost) -> None:
    """Seeds are compared across batches, in the plan too."""
    many = [credential(f"user{n}", seed_of(n)) for n in range(BATCH + 1)]
    rows = host.take(*many, credential("zoe", seed_of(0)))
    assert [Outcome.LEFT_OUT] == [row.result for row in rows if row.result is not Outcome.IMPORT]


def test_seed_of_a_token(host: ImportingHost) -> None:
    """The seed of a token in stock is not an application's."""
    stock = TokenStock(host.store, host.clock, Actor(0, 1, None))
    stock.take_in(Delivery("", (Token("A-1", "", HOTP, 0, SEED),), ()), "t.csv")
    assert "its secret is that of A-1 already" == host.only(credential()).note


def test_device_enabled_before(host: ImportingHost) -> None:
    """A device that its user has enabled with the same secret is there already."""
    phone = host.enable()
    row = host.only(credential())
    assert (Outcome.PRESENT, phone.serial_number) == (row.result, row.serial_number)


def test_eight_devices(host: ImportingHost) -> None:
    """The ninth device is left out, and so are scratch codes that would be the ninth."""
    rows = host.take(*(credential(seed=seed_of(n)) for n in range(7)))
    assert [Outcome.IMPORT] * 7 == [row.result for row in rows]
    eighth = host.only(credential(seed=seed_of(7), scratch_codes=CODES))
    assert (f"{GA}-8", 0) == (eighth.serial_number, eighth.recovery_codes)
    assert "more than 8" in eighth.note
    ninth = host.only(credential(seed=seed_of(8)))
    assert (Outcome.LEFT_OUT, 8) == (ninth.result, len(host.lifecycle.list_devices("alice")))
    assert "has 8 devices" in ninth.note


def test_names(host: ImportingHost) -> None:
    """Names that are taken get a number, the recovery codes' name as well."""
    host.enable("recovery")
    host.enable("google-authenticator")
    host.take(credential(scratch_codes=CODES))
    names = [device.name for device in host.lifecycle.list_devices("alice")]
    assert ["recovery", "google-authenticator", "google-authenticator-2", "recovery-2"] == names


def test_again(host: ImportingHost) -> None:
    """A second import changes nothing and loses nothing of what happened since."""
    everybody = [credential(scratch_codes=CODES), credential("bob", OTHER_SEED)]
    host.take(*everybody)
    host.log_in(code_of(SEED, STEP))
    host.log_in(CODES[1])
    before = host.snapshot()
    assert [Outcome.PRESENT] * 2 == [row.result for row in host.take(*everybody)]
    assert before == host.snapshot()
    assert [REUSED, REUSED] == [host.log_in(code) for code in (code_of(SEED, STEP), CODES[1])]
    assert 3 == host.names().count("EnableMfaDevice")


@pytest.mark.parametrize(
    ("parameters", "used", "code"), [(HOTP, 9, 9), (Parameters(), STEP, STEP)], ids=["HOTP", "TOTP"]
)
def test_codes_used_meanwhile(
    host: ImportingHost, parameters: Parameters, used: int, code: int
) -> None:
    """A code that the other program has accepted since the first import is used up by the next."""
    host.take(credential(parameters=parameters, used_steps=(5,)))
    before = host.snapshot()
    row = host.only(credential(parameters=parameters, used_steps=(used,)))
    assert (Outcome.PRESENT, "codes accepted there meanwhile are used up") == (row.result, row.note)
    assert "" == host.only(credential(parameters=parameters, used_steps=(used,))).note
    assert [1, before] == [host.names().count("ResyncMfaDevice"), host.snapshot()]
    assert ACCEPTED != host.log_in(code_of(SEED, code))
    assert ACCEPTED == host.log_in(code_of(SEED, code + 1))


def test_old_file_moves_nothing_back(host: ImportingHost) -> None:
    """What was accepted here stays used, although the other program's file knows nothing of it."""
    host.take(credential(parameters=HOTP, used_steps=(5,)))
    assert ACCEPTED == host.log_in(code_of(SEED, 8))
    assert "" == host.only(credential(parameters=HOTP, used_steps=(6,))).note
    assert WRONG == host.log_in(code_of(SEED, 8))


@pytest.mark.parametrize("left", [CODES[1:], CODES[2:], ()])
def test_scratch_codes_used_meanwhile(host: ImportingHost, left: tuple[str, ...]) -> None:
    """A scratch code that is gone from the file is used up here, and the others stay good."""
    host.take(credential(scratch_codes=CODES))
    assert "used up" in host.only(credential(scratch_codes=left)).note
    results = [host.log_in(code)[0] is Result.SUCCESS for code in CODES]
    assert [code in left for code in CODES] == results
    assert "" == host.only(credential(scratch_codes=left)).note


def test_codes_of_ours_are_not_used_up(host: ImportingHost) -> None:
    """Recovery codes that were made here are nothing that another program's file decides on."""
    host.take(credential())
    ours = host.lifecycle.enable_recovery("alice")
    assert "" == host.only(credential(scratch_codes=())).note
    assert ACCEPTED == host.log_in(ours[0])


def test_file_without_scratch_codes_uses_none_up(host: ImportingHost) -> None:
    """A file of a kind that has no scratch codes says nothing of those that were imported."""
    host.take(credential(scratch_codes=CODES))
    assert "" == host.only(credential(scratch_codes=None)).note
    assert ACCEPTED == host.log_in(CODES[0])


def test_twice_in_one_file(host: ImportingHost) -> None:
    """The same line twice is one device."""
    rows = host.take(credential(), credential(line=2))
    assert [Outcome.IMPORT, Outcome.PRESENT] == [row.result for row in rows]


def test_deactivated_device_stays_away(host: ImportingHost) -> None:
    """A device that was deactivated, as a lost phone is, does not come back by a second import."""
    host.take(credential(scratch_codes=CODES))
    host.lifecycle.deactivate("alice", GA)
    row = host.only(credential(scratch_codes=CODES))
    assert (Outcome.LEFT_OUT, True) == (row.result, "deactivated since" in row.note)
    assert WRONG == host.log_in(code_of(SEED, STEP))


def test_new_seed_after_deactivation(host: ImportingHost) -> None:
    """A new secret of who had one may have its name: a counter used up is not inherited."""
    host.take(credential(parameters=HOTP, used_steps=(500,)))
    host.lifecycle.deactivate("alice", GA, leave_none=True)
    row = host.only(credential(seed=OTHER_SEED, parameters=HOTP, used_steps=(0,)))
    assert GA == row.serial_number
    assert ACCEPTED == host.log_in(code_of(OTHER_SEED, 1))


def test_used_scratch_codes_stay_used(host: ImportingHost) -> None:
    """A scratch code that was used is not good again by another secret's import."""
    host.take(credential(scratch_codes=CODES))
    host.log_in(CODES[0])
    host.lifecycle.deactivate_all("alice", leave_none=True)
    host.take(credential(seed=OTHER_SEED, scratch_codes=CODES))
    assert [REUSED, ACCEPTED] == [host.log_in(code) for code in CODES[:2]]


def test_unreadable_device_file(host: ImportingHost) -> None:
    """A user whose device file is broken is left out, the file is kept, the others are taken."""
    host.enable()
    path = host.layout.devices / "alice.yaml"
    path.write_text("version: 1\n")
    rows = host.take(credential(seed=OTHER_SEED), credential("bob", seed_of(1)))
    assert [Outcome.LEFT_OUT, Outcome.IMPORT] == [row.result for row in rows]
    assert ("version: 1\n", True) == (path.read_text(), "alice.yaml" in rows[0].note)


def test_plan_changes_nothing(host: ImportingHost) -> None:
    """What would happen is said and does not happen."""
    rows = host.importer().plan([credential(scratch_codes=CODES)])
    assert [(Outcome.IMPORT, 3)] == [(row.result, row.recovery_codes) for row in rows]
    assert ({}, []) == (host.snapshot(), host.names())
    assert WRONG != host.log_in(CODES[0])
    assert (Result.DENIED, Reason.NOT_ENROLLED) == host.log_in(code_of(SEED, STEP))


@pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 1, 2 * BATCH])
def test_progress(host: ImportingHost, count: int) -> None:
    """Whoever waits is told of every credential, in batches."""
    everybody = [credential(f"user{n}", seed_of(n)) for n in range(count)]
    told: list[int] = []
    host.importer().carry_out(everybody, "~/ga", told.append)
    assert (count, count) == (sum(told), len(host.snapshot()))
    host.importer().plan(everybody, told.append)
    assert 2 * count == sum(told)


def test_interrupted_before_the_files(host: ImportingHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that ends between the state and the files is completed by the next one."""

    def fail(*_arguments: object) -> None:
        raise BrokenSystemError("the disk is full", hint="See: df")

    monkeypatch.setattr(DeviceFiles, "write_all", fail)
    everybody = [credential(used_steps=(STEP,), scratch_codes=CODES), credential("bob", OTHER_SEED)]
    with pytest.raises(BrokenSystemError) as caught:
        host.importer().carry_out(everybody, "~/ga")
    assert "run the import again" in caught.value.hint
    assert {} == host.snapshot()
    monkeypatch.undo()
    rows = host.take(*everybody)
    assert [Outcome.IMPORT] * 2 == [row.result for row in rows]
    assert GA == rows[0].serial_number
    assert [REUSED, ACCEPTED] == [host.log_in(code) for code in (code_of(SEED, STEP), CODES[0])]


def test_interrupted_between_batches(host: ImportingHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was imported before an interruption stays, and the next import goes on from there."""
    everybody = [credential(f"user{n}", seed_of(n)) for n in range(2 * BATCH)]

    def stop(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        host.importer().carry_out(everybody, "~/ga", stop)
    assert BATCH == len(host.snapshot())
    rows = host.take(*everybody)
    assert [Outcome.PRESENT] * BATCH + [Outcome.IMPORT] * BATCH == [row.result for row in rows]
    monkeypatch.undo()


def test_drafts_are_removed(host: ImportingHost) -> None:
    """What a killed import has left beside the files is taken away by the next one."""
    draft = host.layout.devices / "alice.yaml.0123456789ab.new"
    draft.write_bytes(b"half a file")
    host.take(credential())
    assert ["alice.yaml"] == [path.name for path in host.layout.devices.iterdir() if path != (
        host.layout.devices / ".lock")]  # fmt: skip


def test_no_log_no_import(host: ImportingHost) -> None:
    """Nothing is imported that could not be recorded."""
    host.layout.audit_log.mkdir()
    with pytest.raises(BrokenSystemError, match="audit log"):
        host.importer().carry_out([credential()], "~/ga")
    assert {} == host.snapshot()


def test_no_state_no_file(host: ImportingHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the state cannot be written, no device file is."""

    def fail(_claims: object) -> None:
        raise StateError("the disk is full")

    monkeypatch.setattr(host.store, "commit", fail)
    with pytest.raises(StateError):
        host.importer().carry_out([credential()], "~/ga")
    assert {} == host.snapshot()


def test_clock_is_asked(host: ImportingHost) -> None:
    """A device is enabled at the moment of the import."""
    host.clock.now = START + 60
    host.take(credential())
    (device,) = host.lifecycle.list_devices("alice")
    assert int(Clock()()) + 60 == int(device.enabled_at.timestamp())
