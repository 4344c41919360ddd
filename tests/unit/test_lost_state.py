# SPDX-License-Identifier: Apache-2.0
"""A state that is older than the audit log: restored, deleted or damaged, it lets nobody in.

What was used since it was made would be good again. Repaired, it knows from the log what was used.
"""

import contextlib
import gzip
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from audit_records import read_all, require_chain
from doubles import SEED, Clock, code_of, make_layout, make_request
from driven_attempt import drive

from pam_mfa.audit import Reason, format_record, hash_line
from pam_mfa.doctor.database import check_state, find_loss
from pam_mfa.doctor.finding import Level
from pam_mfa.doctor.rebuilding import Rebuilt, rebuild
from pam_mfa.doctor.repairing import repair
from pam_mfa.doctor.view import View
from pam_mfa.errors import StateError
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.oath import Parameters, time_step
from pam_mfa.policy import Policy
from pam_mfa.secret import Secret
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.verification import Caller, attempt

NOW = time_step(1_700_000_045.0, 30) * 30 + 5.0
STEP = time_step(NOW, 30)
LATER = NOW + 13 * 30
HOTP = Parameters(period=0)
TOKEN_SEED = Secret(bytes(range(50, 70)))
POLICY = Policy(prompts=1)


class Host(NamedTuple):
    """A host on which Alice has a phone, a counter token and recovery codes."""

    layout: Layout
    recovery: list[str]
    backup: Path  # of the library, from before any login

    def log_in(
        self, code: str, now: float = NOW, *, process: EmbeddedStore | None = None
    ) -> Reason:
        """Let Alice log in by a code; return how it ended."""
        with contextlib.ExitStack() as stack:
            if process is None:
                process = EmbeddedStore(self.layout)
                stack.callback(process.close)
            caller = Caller(pid=4321, uid=0, may_verify=True)
            running = attempt(make_request(), caller, POLICY, process, Clock(now))
            return drive(running, process, code)

    def used(self) -> dict[str, int]:
        """Return what the state knows as used."""
        with contextlib.closing(sqlite3.connect(self.layout.state)) as state:
            return dict(state.execute("SELECT serial_number, step FROM used_step").fetchall())

    def remove_state(self) -> None:
        """Delete the state and its log."""
        for path in self.layout.library.glob("state.db*"):
            path.unlink()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Alice's host, in enforcing mode."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    layout = make_layout(tmp_path / "root")
    layout.policy.write_text("version: 1\n", "ascii")
    store = EmbeddedStore(layout)
    mfa = Lifecycle(store, lambda: NOW - 90, Actor(0, 1, None))
    pending = mfa.begin_virtual("alice", "phone", seed=SEED)
    mfa.enable(pending, code_of(SEED, STEP - 4), code_of(SEED, STEP - 3))
    pending = mfa.begin_virtual("alice", "token", seed=TOKEN_SEED, parameters=HOTP)
    mfa.enable(pending, code_of(TOKEN_SEED, 0), code_of(TOKEN_SEED, 1))
    recovery = mfa.enable_recovery("alice")
    store.close()
    backup = tmp_path / "backup"
    shutil.copytree(layout.library, backup)
    return Host(layout, recovery, backup)


def use_codes(host: Host) -> list[tuple[str, float]]:
    """Log in by each device; return the codes that were used, and when."""
    codes = [code_of(SEED, STEP), code_of(TOKEN_SEED, 4), host.recovery[3]]
    for code in codes:
        assert host.log_in(code) is Reason.CODE_ACCEPTED
    return [(code, NOW) for code in codes]


def restore(host: Host) -> None:
    """Put an older backup in the place of the state."""
    host.remove_state()
    shutil.copy(host.backup / "state.db", host.layout.state)


def empty(host: Host) -> None:
    """Cut the state to nothing."""
    host.remove_state()
    host.layout.state.write_bytes(b"")
    host.layout.state.chmod(0o600)


def delete_and_rotate(host: Host) -> None:
    """Delete the state right after the log was rotated away."""
    host.remove_state()
    host.layout.audit_log.rename(f"{host.layout.audit_log}.1")


def delete_and_pack(host: Host) -> None:
    """Delete the state, with nothing but a packed log beside it."""
    delete_and_rotate(host)
    rotated = Path(f"{host.layout.audit_log}.1")
    Path(f"{rotated}.gz").write_bytes(gzip.compress(rotated.read_bytes()))
    rotated.unlink()


def restore_and_rotate(host: Host) -> None:
    """Put an older backup in the place of the state right after the log was rotated away."""
    restore(host)
    host.layout.audit_log.rename(f"{host.layout.audit_log}.1")


def spoil_wal(host: Host) -> None:
    """Have the last commits stand in a state.db-wal whose bytes a disk has turned."""
    wal = host.layout.state.with_name("state.db-wal")
    with contextlib.closing(sqlite3.connect(host.layout.state, isolation_level=None)) as held:
        held.execute("SELECT count(*) FROM used_step").fetchone()  # so that no close empties it
        use_codes(host)
        data = bytearray(wal.read_bytes())
        state = host.layout.state.read_bytes()
    data[60] ^= 1
    host.remove_state()
    host.layout.state.write_bytes(state)
    wal.write_bytes(data)
    for path in (wal, host.layout.state):
        path.chmod(0o600)


LOSSES: list[Callable[[Host], None]] = [
    restore, Host.remove_state, empty, delete_and_rotate, delete_and_pack, restore_and_rotate,
    spoil_wal,
]  # fmt: skip


@pytest.mark.parametrize("lose", LOSSES)
def test_used_codes_are_good_on_no_older_state(host: Host, lose: Callable[[Host], None]) -> None:
    """Every login is refused with the command that repairs; repaired, used codes stay used."""
    if lose is spoil_wal:
        codes = [(code_of(SEED, STEP), NOW), (code_of(TOKEN_SEED, 4), NOW), (host.recovery[3], NOW)]
    else:
        codes = use_codes(host)
    lose(host)
    for code, now in codes:
        with pytest.raises(StateError, match="older than the audit log") as caught:
            host.log_in(code, now)
        assert "pam-mfa doctor --repair" in caught.value.hint
    rebuild(host.layout, NOW)
    # A counter behind the look-ahead window's first one is like any wrong code.
    expected = [Reason.CODE_REUSED, Reason.WRONG_CODE, Reason.CODE_REUSED]
    assert expected == [host.log_in(code, now) for code, now in codes]
    assert host.log_in(code_of(SEED, time_step(LATER, 30)), LATER) is Reason.CODE_ACCEPTED
    records = [json.loads(line) for line in read_all(host.layout.audit_log.parent)]
    assert "state_lost" in [one["reason"] for one in records]


@pytest.mark.parametrize("lose", [restore, restore_and_rotate, spoil_wal])
def test_log_tells_what_was_used(host: Host, lose: Callable[[Host], None]) -> None:
    """By an old state and the log's records since, only what was used is void, and all of that."""
    if lose is not spoil_wal:
        use_codes(host)
    lose(host)
    rebuilt = rebuild(host.layout, NOW)
    assert ([], []) == (rebuilt.void, rebuilt.waiting)
    used = host.used()
    (paper,) = [key for key in used if "#" in key]
    assert ("virtual/alice/token", 4, "3") == (
        "virtual/alice/token", used["virtual/alice/token"], paper.rpartition("#")[2],
    )  # fmt: skip
    assert host.log_in(code_of(TOKEN_SEED, 5)) is Reason.CODE_ACCEPTED
    assert host.log_in(host.recovery[4]) is Reason.CODE_ACCEPTED


def test_chain_goes_on(host: Host) -> None:
    """Behind the log's last record the chain goes on, with a record of what was lost."""
    use_codes(host)
    restore(host)
    before = len(host.layout.audit_log.read_bytes().splitlines())
    rebuild(host.layout, NOW)
    assert host.log_in("000000") is Reason.WRONG_CODE
    records = require_chain(read_all(host.layout.audit_log.parent))
    assert ["ResumeLog", "VerifyMfa"] == [one["event_name"] for one in records[before:]]
    found = records[before]
    assert ("state_lost", before, before - 3) == (
        found["reason"], found["log_head"]["sequence"], found["state_head"]["sequence"],
    )  # fmt: skip


def rebuild_without(host: Host, spoil: Callable[[Path], None]) -> Rebuilt:
    """Rebuild from an old state and a log that something happened to."""
    use_codes(host)
    restore(host)
    spoil(host.layout.audit_log)
    return rebuild(host.layout, NOW)


def cut_out(log: Path) -> None:
    """Take the second last record."""
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:-2], lines[-1]]))


def edit(log: Path) -> None:
    """Have an accepted counter be another."""
    log.write_bytes(log.read_bytes().replace(b'"used_step":4,', b'"used_step":2,'))


def forget_steps(log: Path) -> None:
    """Have the log be an older program's, which did not tell the steps; its chain is whole."""
    made: list[bytes] = []
    for text in log.read_bytes().splitlines():
        record = json.loads(text)
        if record["reason"] == Reason.CODE_ACCEPTED:
            del record["used_step"]
            record["previous"] = hash_line(made[-1])
        made.append(format_record(record))
    log.write_bytes(b"\n".join(made) + b"\n")


@pytest.mark.parametrize("spoil", [cut_out, edit, forget_steps])
def test_log_with_gaps_vouches_for_nothing(host: Host, spoil: Callable[[Path], None]) -> None:
    """Where the log lacks a record, was edited or tells no steps, counters and paper are void."""
    rebuilt = rebuild_without(host, spoil)
    assert {"virtual/alice/token"} <= set(rebuilt.void)
    assert 2 == len(rebuilt.void)
    for code in (code_of(TOKEN_SEED, 4), code_of(TOKEN_SEED, 5), *host.recovery):
        assert host.log_in(code, NOW) is not Reason.CODE_ACCEPTED


def test_logins_that_may_go_on_without_the_log(host: Host) -> None:
    """Where policy lets logins go on without the log, it vouches for nothing either."""
    host.layout.policy.write_text("version: 1\naudit: {on_failure: allow}\n", "ascii")
    assert 2 == len(rebuild_without(host, lambda _: None).void)


def test_guesses_do_not_begin_anew(host: Host) -> None:
    """Wrong codes that the log tells of are counted on, and so is a lock."""
    for _ in range(5):
        assert host.log_in("000000") is Reason.WRONG_CODE
    restore(host)
    rebuild(host.layout, NOW)
    assert host.log_in(code_of(SEED, STEP)) is Reason.LOCKED


@pytest.mark.parametrize("lose", [Host.remove_state, restore, empty])
def test_deleted_under_a_running_process(host: Host, lose: Callable[[Host], None]) -> None:
    """A daemon whose state was deleted or restored under it lets nobody in by the new one."""
    with contextlib.closing(EmbeddedStore(host.layout)) as daemon:
        code = code_of(SEED, STEP)
        assert host.log_in(code, process=daemon) is Reason.CODE_ACCEPTED
        lose(host)
        for _ in range(2):
            with pytest.raises(StateError, match="older than the audit log"):
                host.log_in(code, process=daemon)
        rebuild(host.layout, NOW)
        assert host.log_in(code, process=daemon) is Reason.CODE_REUSED


def test_backup_of_everything(host: Host) -> None:
    """State and log restored together, or the store alone on a host without a log, just work."""
    logs = host.layout.audit_log.parent
    shutil.copytree(logs, host.backup / "log")
    use_codes(host)
    restore(host)
    shutil.copy(host.backup / "log/audit.jsonl", host.layout.audit_log)
    assert host.log_in(code_of(SEED, STEP)) is Reason.CODE_ACCEPTED
    host.layout.audit_log.unlink()
    assert host.log_in(code_of(SEED, STEP + 1), NOW + 30) is Reason.CODE_ACCEPTED


def test_log_that_was_rotated_away(host: Host) -> None:
    """A log that is new beside a rotated one, packed or not, keeps nobody out."""
    log = host.layout.audit_log
    for number, code in enumerate((code_of(SEED, STEP), code_of(TOKEN_SEED, 4))):
        log.rename(f"{log}.1")
        if number:
            Path(f"{log}.1.gz").write_bytes(gzip.compress(Path(f"{log}.1").read_bytes()))
            Path(f"{log}.1").unlink()
        assert host.log_in(code) is Reason.CODE_ACCEPTED


def test_doctor_sees_and_mends(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor names what is lost before and nothing after; the repair says what it did."""
    for module in ("database", "rebuilding"):
        monkeypatch.setattr(f"pam_mfa.doctor.{module}.drop_privileges", lambda: None)
    monkeypatch.setattr(
        "pam_mfa.doctor.repairing.list_rights", lambda _: []
    )  # whose, is the host's
    use_codes(host)
    assert "" == find_loss(host.layout)
    host.remove_state()
    (found,) = check_state(View(host.layout))
    assert Level.FAULT is found.level
    assert "records up to number 0, and the log's last one is number" in found.what
    said = [line for line in repair(View(host.layout)) if "state" in line or "rebuilt" in line]
    assert 2 == len(said)
    assert "" == find_loss(host.layout)
    assert [] == [line for line in repair(View(host.layout)) if "rebuilt" in line]
    assert host.layout.state.stat().st_mode & 0o777 == 0o600
