# SPDX-License-Identifier: Apache-2.0
"""Switches on a tree of files: on, off, undone, interrupted, edited and hindered."""

import fcntl
import json
import os
import shutil
import stat
import subprocess
from functools import partial
from pathlib import Path

import pytest
from doubles import REPOSITORY
from host_tree import FILES, HostTree, snapshot
from killed_switch import run_killed

from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.pam_services import parse_service
from pam_mfa.store import files
from pam_mfa.store.layout import Layout
from pam_mfa.switching import placing, plan, switchboard, undoing
from pam_mfa.switching.evidence import read_passages
from pam_mfa.switching.journal import Journal, Stage
from pam_mfa.switching.plan import Options, diff
from pam_mfa.switching.states import list_states
from pam_mfa.switching.switchboard import Switchboard

WRITES_MAX = 400
BOOT_SECONDS = 1000.0


@pytest.fixture(autouse=True)
def agreeable_sshd(monkeypatch: pytest.MonkeyPatch) -> None:
    """An sshd that asks for a password and takes every setting: the real one is the layer pam's."""
    monkeypatch.setattr(plan, "read_settings", lambda _: {"passwordauthentication": "yes"})
    monkeypatch.setattr(plan, "require_effect", lambda *_: None)
    monkeypatch.setattr(switchboard, "require_effect", lambda *_: None)


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    """A host's files."""
    return HostTree(tmp_path)


@pytest.fixture
def board(tree: HostTree, monkeypatch: pytest.MonkeyPatch) -> Switchboard:
    """Its switches; the time since boot stands still, and nothing waits for the deadline."""
    monkeypatch.setattr(undoing, "seconds_since_boot", lambda: BOOT_SECONDS)
    return Switchboard(tree.layout, arm=lambda _: "nothing")


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let time go on."""
    monkeypatch.setattr(undoing, "seconds_since_boot", lambda: BOOT_SECONDS + seconds)


def record_login(
    tree: HostTree, user: str, service: str, outcome: str = "success", by: str = ""
) -> None:
    """Write what a verified login of the far future leaves in the log."""
    log = tree.layout.audit_log
    log.parent.mkdir(parents=True, exist_ok=True)
    record = {"time": "2999-01-01T00:00:00.000000Z", "event_name": "VerifyMfa", "user": user,
              "outcome": outcome, "service": service, "ruser": by}  # fmt: skip
    with log.open("a") as file:
        file.write(json.dumps(record) + "\n")


def test_on_and_off_again(tree: HostTree, board: Switchboard) -> None:
    """After off everything is as before on, byte for byte, and no journal is left."""
    (tree.services / "sudo").chmod(0o640)
    before = tree.snapshot()
    board.turn_on(tree.plan("sshd", "sudo", "login", "su"), "root", 300)
    assert {"sshd", "sudo", "login", "su"} == set(board.read())
    assert all("pam_mfa.so" in tree.service(name) for name in ("sshd", "sudo", "login", "su"))
    assert 0o640 == (tree.services / "sudo").stat().st_mode & 0o777
    board.turn_off(("all",), is_forced=False)
    assert before == tree.snapshot()


def test_diff_is_the_exact_change(tree: HostTree) -> None:
    """What is shown is what is written: patch makes the one of the other."""
    wanted = tree.plan("sudo")
    subprocess.run(["patch", "-s", "-p1"], cwd=tree.root, input=diff(wanted).encode(), check=True,
                   timeout=60)  # fmt: skip
    assert wanted.changes[0].files[0].after == (tree.services / "sudo").read_bytes()


def test_all_are_those_that_can_be(tree: HostTree) -> None:
    """``all`` is every service that is there; what includes another is left out, and said."""
    wanted = tree.plan("all")
    assert ["sshd", "sudo", "login", "su"] == [one.service for one in wanted.changes]
    assert "su-l is left out: su-l asks what su asks, for it includes that" in wanted.notes


def test_vendors_file_is_not_touched(tree: HostTree, board: Switchboard) -> None:
    """A service that only the vendor has gets a file of the host's own, which off takes away."""
    vendors = tree.root / "usr/lib/pam.d"
    vendors.mkdir(parents=True)
    (vendors / "polkit-1").write_text("@include common-auth\n@include common-account\n")
    before = tree.snapshot()
    board.turn_on(tree.plan("polkit-1"), "root", 300)
    assert "pam_mfa.so" in tree.service("polkit-1")
    board.turn_off(("polkit-1",), is_forced=False)
    assert before == tree.snapshot()


def test_deadline_undoes(
    tree: HostTree, board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody confirms, and all is as before; a moment too early nothing happens."""
    before = tree.snapshot()
    board.turn_on(tree.plan("sudo"), "root", 300)
    later(monkeypatch, 299)
    assert [] == board.expire()
    later(monkeypatch, 300)
    assert ["The switch of sudo was not confirmed in time and has been undone."] == board.expire()
    assert before == tree.snapshot()


def test_boot_undoes(tree: HostTree, board: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was switched off and on again has the old stack, whatever its clock says."""
    before = tree.snapshot()
    board.turn_on(tree.plan("sudo"), "root", 300)
    monkeypatch.setattr(undoing, "current_boot", lambda: "the next one")
    board.expire()
    assert before == tree.snapshot()


def test_confirmed_stays(
    tree: HostTree, board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody has got in by is kept, by deadline and boot."""
    board.turn_on(tree.plan("sudo"), "root", 300)
    record_login(tree, "alice", "sudo")
    assert ("sudo",) == board.confirm((), "alice", is_anyway=False).confirmed
    later(monkeypatch, 1000)
    monkeypatch.setattr(undoing, "current_boot", lambda: "the next one")
    assert [] == board.expire()
    assert "pam_mfa.so" in tree.service("sudo")


@pytest.mark.parametrize(
    ("user", "service", "outcome"),
    [("bob", "sudo", "success"), ("alice", "login", "success"), ("alice", "sudo", "denied")],
)
def test_not_proven(
    tree: HostTree, board: Switchboard, user: str, service: str, outcome: str
) -> None:
    """Another user, another service, or a refusal prove nothing."""
    board.turn_on(tree.plan("sudo"), "root", 300)
    record_login(tree, user, service, outcome)
    assert ((), ("sudo",)) == board.confirm((), "alice", is_anyway=False)
    assert not board.read()["sudo"].confirmed


@pytest.mark.parametrize(("service", "proven"), [("su", ("su",)), ("sudo", ())])
def test_caller_of_su_has_got_in(
    tree: HostTree, board: Switchboard, service: str, proven: tuple[str, ...]
) -> None:
    """Whoever has become root by su has passed su's stack; of sudo only the user counts."""
    board.turn_on(tree.plan("su", "sudo"), "root", 300)
    record_login(tree, "root", service, by="alice")
    assert proven == board.confirm((), "alice", is_anyway=False).confirmed


def test_login_before_the_switch_proves_nothing(tree: HostTree, board: Switchboard) -> None:
    """A verification that is older than the switch has passed the old stack."""
    record_login(tree, "alice", "sudo")
    log = tree.layout.audit_log
    log.write_text(log.read_text().replace("2999", "1999"))
    board.turn_on(tree.plan("sudo"), "root", 300)
    assert ("sudo",) == board.confirm((), None, is_anyway=False).unproven


def test_confirmed_anyway(tree: HostTree, board: Switchboard) -> None:
    """Whoever says so keeps a switch unproven."""
    board.turn_on(tree.plan("sudo"), "root", 300)
    assert ("sudo",) == board.confirm((), "alice", is_anyway=True).confirmed


def test_confirmed_too_late(
    tree: HostTree, board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time is over there is nothing to confirm any more, and it says why."""
    board.turn_on(tree.plan("sudo"), "root", 300)
    later(monkeypatch, 301)
    with pytest.raises(RefusedError, match="it was undone, for it was too late"):
        board.confirm((), "alice", is_anyway=True)
    assert FILES["sudo"] == tree.service("sudo")


def test_edit_between_on_and_off(tree: HostTree, board: Switchboard) -> None:
    """An edit is kept, our lines go, and it is said."""
    board.turn_on(tree.plan("sudo", "sshd"), "root", 0)
    for path in (tree.services / "sudo", tree.drop_ins / "00-pam-mfa.conf"):
        path.write_text(path.read_text() + "# mine\n")
    said = board.turn_off(("all",), is_forced=False)
    assert FILES["sudo"] + "# mine\n" == tree.service("sudo")
    assert "# mine\n" == (tree.drop_ins / "00-pam-mfa.conf").read_text()
    assert 2 == len([one for one in said if "only pam-mfa's lines are out of it" in one])


def test_file_gone_between_on_and_off(tree: HostTree, board: Switchboard) -> None:
    """A file that somebody has removed is not brought back, unless by force."""
    board.turn_on(tree.plan("sudo"), "root", 0)
    (tree.services / "sudo").unlink()
    (said,) = board.turn_off(("sudo",), is_forced=False)
    assert "is gone since it was switched on" in said
    assert not (tree.services / "sudo").exists()


def test_directory_in_the_place_of_a_file(tree: HostTree, board: Switchboard) -> None:
    """Where a service's file has become a directory, it is named, and every other one is undone."""
    before = tree.service("su")
    board.turn_on(tree.plan("sudo", "su"), "root", 0)
    (tree.services / "sudo").unlink()
    (tree.services / "sudo").mkdir()
    with pytest.raises(
        RefusedError, match="sudo is not a regular file; everything else was undone"
    ):
        board.turn_off(("all",), is_forced=True)
    assert before == tree.service("su")
    assert {"sudo"} == set(board.read())


def test_file_gone_is_brought_back_by_force(tree: HostTree, board: Switchboard) -> None:
    """By force the file is there again as it was."""
    board.turn_on(tree.plan("sudo"), "root", 0)
    (tree.services / "sudo").unlink()
    board.turn_off(("sudo",), is_forced=True)
    assert FILES["sudo"] == tree.service("sudo")


def test_by_hand(tree: HostTree, board: Switchboard) -> None:
    """Lines that were put in by hand are left to hands; by force they go."""
    (tree.services / "sudo").write_text(f"{FILES['sudo']}auth required /opt/x/pam_mfa.so\n")
    with pytest.raises(RefusedError, match=r"it has pam_mfa\.so already, in sudo, line 8"):
        tree.plan("sudo")
    with pytest.raises(RefusedError, match="sudo is not switched on"):
        board.turn_off(("sudo",), is_forced=False)
    board.turn_off(("sudo",), is_forced=True)
    assert FILES["sudo"] == tree.service("sudo")


def test_everything_by_force(tree: HostTree, board: Switchboard) -> None:
    """By force no file names the module any more, a service's that cannot be switched neither."""
    board.turn_on(tree.plan("sshd", "sudo"), "root", 0)
    (tree.services / "xrdp-sesman").write_text("@include common-auth\nauth required pam_mfa.so\n")
    (tree.services / "linked").symlink_to("xrdp-sesman")
    board.turn_off(("all",), is_forced=True)
    assert "@include common-auth\n" == tree.service("xrdp-sesman")
    texts = [path.read_text() for path in tree.services.iterdir()]
    assert [] == [text for text in texts if "pam_mfa.so" in text]


def test_link_that_names_the_module(tree: HostTree, board: Switchboard) -> None:
    """A link's file is left to whoever made it, and named."""
    (tree.root / "elsewhere").write_text("auth required pam_mfa.so\n")
    (tree.services / "linked").symlink_to(tree.root / "elsewhere")
    said = board.turn_off(("all",), is_forced=True)
    assert any("linked is a link" in one for one in said)


def test_words_for_who_has_no_program(tree: HostTree, board: Switchboard) -> None:
    """The sed of the README's last resort brings every stack back."""
    readme = (REPOSITORY / "README.md").read_text()
    words = readme[readme.index("sed -i -e '/# pam-mfa") :].split("`")[0]
    before = tree.snapshot()
    board.turn_on(tree.plan("sshd", "sudo", "login", "su"), "root", 0)
    here = words.replace("/etc/pam.d", str(tree.services))
    subprocess.run(["sh", "-c", here], check=True, timeout=60)
    (tree.drop_ins / "00-pam-mfa.conf").unlink()
    Journal(tree.layout).path.unlink()
    assert before == tree.snapshot()


def test_damaged_journal(tree: HostTree, board: Switchboard) -> None:
    """A journal that cannot be read is refused, and force gets out and keeps it."""
    board.turn_on(tree.plan("sshd", "sudo"), "root", 0)
    journal = Journal(tree.layout).path
    journal.write_text(journal.read_text()[:-200])
    with pytest.raises(BrokenSystemError, match="is damaged"):
        board.turn_off(("all",), is_forced=False)
    board.turn_off(("all",), is_forced=True)
    assert FILES["sudo"] == tree.service("sudo")
    assert not list(tree.drop_ins.iterdir())
    assert journal.with_suffix(".json.damaged").exists()


def test_journal_names_no_other_file(tree: HostTree, board: Switchboard) -> None:
    """Whoever plants a journal has root write nowhere but among the files that are switched."""
    board.turn_on(tree.plan("sudo"), "root", 0)
    journal = Journal(tree.layout).path
    journal.write_text(journal.read_text().replace("etc/pam.d/sudo", "etc/pam.d/../shadow"))
    with pytest.raises(BrokenSystemError, match="is damaged"):
        board.turn_off(("sudo",), is_forced=False)


def test_journal_of_others(tree: HostTree, board: Switchboard) -> None:
    """A journal that others may write is not believed."""
    board.turn_on(tree.plan("sudo"), "root", 0)
    Journal(tree.layout).path.chmod(0o666)
    with pytest.raises(BrokenSystemError, match="lets others at it"):
        board.read()


def test_failing_write_leaves_everything(
    tree: HostTree, board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full in the middle of a switch leaves the old stacks, and no journal."""
    wanted, before = tree.plan("sudo", "su"), tree.snapshot()
    calls: list[Path] = []
    real = files.sync_directory

    def sync(path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(path)

    monkeypatch.setattr(placing, "sync_directory", sync)
    with pytest.raises(RefusedError, match=r"everything is as it was: .*No space left"):
        board.turn_on(wanted, "root", 300)
    assert before == tree.snapshot()


def test_changed_while_planned(tree: HostTree, board: Switchboard) -> None:
    """A file that changes between the diff and the yes is not written over."""
    wanted = tree.plan("sudo")
    (tree.services / "sudo").write_text("# new\n")
    with pytest.raises(RefusedError, match="was changed while this was planned"):
        board.turn_on(wanted, "root", 300)
    assert {} == board.read()


def test_two_at_once(tree: HostTree, board: Switchboard) -> None:
    """A switch does not begin while another is at work."""
    with Journal(tree.layout).lock(), pytest.raises(RefusedError, match="another pam-mfa switch"):
        board.turn_on(tree.plan("sudo"), "root", 300)


def test_nobody_else_holds_the_lock(tree: HostTree, board: Switchboard) -> None:
    """A lock on what everybody can open, held for good, keeps neither a switch nor its undo out."""
    tree.layout.policy.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(tree.layout.policy.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        board.turn_on(tree.plan("sudo"), "root", 300)
    finally:
        os.close(descriptor)
    lock = tree.root / "run/pam-mfa-switch.lock"
    assert 0o600 == stat.S_IMODE(lock.stat().st_mode)


def test_own_claim_confirms_nothing(tmp_path: Path) -> None:
    """A user who verifies under a service's name over the users' own socket proves no stack."""
    record = {
        "event_name": "VerifyMfa", "outcome": "success", "time": "2026-11-24T12:00:00.000000Z",
        "user": "alice", "service": "sshd",
    }  # fmt: skip
    log = tmp_path / "log"
    log.write_text(json.dumps({**record, "is_claim": True}) + "\n")
    assert [] == read_passages(log, 0.0)
    log.write_text(json.dumps(record) + "\n")
    assert 1 == len(read_passages(log, 0.0))


def test_link_is_somebody_elses(tree: HostTree) -> None:
    """A service file that is a link, as authselect's are, is left to whoever made it."""
    (tree.services / "sudo").rename(tree.root / "elsewhere")
    (tree.services / "sudo").symlink_to(tree.root / "elsewhere")
    with pytest.raises(RefusedError, match="is a link"):
        tree.plan("sudo")


def test_authselects_file(tree: HostTree) -> None:
    """A file that authselect writes is refused, with what to run instead."""
    (tree.services / "sudo").write_text(f"# Generated by authselect on a day\n{FILES['sudo']}")
    with pytest.raises(RefusedError, match="authselect writes the file of sudo") as refused:
        tree.plan("sudo")
    assert "authselect create-profile" in refused.value.hint


def test_no_module(tree: HostTree) -> None:
    """Without the module's file no line is written that would name it."""
    (tree.root / "usr/lib/x/security/pam_mfa.so").unlink()
    with pytest.raises(RefusedError, match=r"there is no pam_mfa\.so"):
        tree.plan("sudo")


def test_module_that_pam_cannot_load(tree: HostTree) -> None:
    """A file that is no module is refused before a line names it."""
    with pytest.raises(RefusedError, match="cannot be loaded"):
        tree.plan("sudo", options=Options(module=tree.root / "usr/lib/x/security/pam_mfa.so"))


@pytest.mark.parametrize("words", [("frobnicate",), ("gdm-password",), ("sudo", "sddm")])
def test_service_that_is_none(tree: HostTree, words: tuple[str, ...]) -> None:
    """A service that is not known, or not there, is refused by its name."""
    with pytest.raises(RefusedError):
        tree.plan(*words)


def test_states(tree: HostTree, board: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each service is told as it is, with what waits and what was edited."""
    board.turn_on(tree.plan("sudo"), "alice", 300)
    board.turn_on(tree.plan("su"), "alice", 0)
    (tree.services / "su").write_text(tree.service("su") + "# mine\n")
    later(monkeypatch, 100)
    rows = {str(row["service"]): row for row in list_states(tree.layout)}
    assert ("on, not confirmed", "undoes itself in 200 s") == (
        rows["sudo"]["state"], rows["sudo"]["note"],
    )  # fmt: skip
    assert ("on", "/etc/pam.d/su was edited", "alice") == (
        rows["su"]["state"], rows["su"]["note"], rows["su"]["by"],
    )  # fmt: skip
    assert "as su, which it includes" == rows["su-l"]["state"]
    assert "off" == rows["sshd"]["state"]


def require_whole(tree: HostTree) -> None:
    """No service's file is half of anything: PAM takes each."""
    for name in ("sshd", "sudo", "su"):
        service = parse_service(name, lambda file: (tree.services / file).read_text())
        assert () == service.faults
        assert FILES[name] == tree.service(name) or "pam_mfa.so" in tree.service(name)


@pytest.mark.parametrize("what", ["on", "off"])
def test_killed_between_any_two_writes(tmp_path: Path, what: str) -> None:
    """Killed before any of its writes, a switch is undone by the next command, byte for byte."""
    number, was_killed = 0, True
    while was_killed:
        number += 1
        assert number < WRITES_MAX
        tree = HostTree(tmp_path / f"{number}")
        before = tree.snapshot()
        was_killed = switch_and_be_killed(tree, what, number)
        require_whole(tree)
        other = tmp_path / f"{number}-forced"
        shutil.copytree(tree.root, other)
        require_undone(tree, before)
        Switchboard(Layout(other), arm=lambda _: "nothing").turn_off(("all",), is_forced=True)
        assert before == snapshot(other)
    assert number > 20


def test_force_killed_between_any_two_writes(tmp_path: Path) -> None:
    """Killed while it gets out of a damaged journal, force gets out when it is run again."""
    number, was_killed = 0, True
    while was_killed:
        number += 1
        assert number < WRITES_MAX
        tree = HostTree(tmp_path / f"{number}")
        before = tree.snapshot()
        board = Switchboard(tree.layout, arm=lambda _: "nothing")
        board.turn_on(tree.plan("sshd", "sudo"), "root", 300)
        Journal(tree.layout).path.write_text("{")
        was_killed = run_killed(partial(board.turn_off, ("all",), is_forced=True), number)
        require_whole(tree)
        board.turn_off(("all",), is_forced=True)
        (Journal(tree.layout).path.with_suffix(".json.damaged")).unlink()
        assert before == tree.snapshot()
    assert number > 10


def switch_and_be_killed(tree: HostTree, what: str, number: int) -> bool:
    """Switch two services in a process that is killed at a write; return whether it was."""
    board = Switchboard(tree.layout, arm=lambda _: "nothing")
    wanted = tree.plan("sshd", "sudo")
    if what == "on":
        return run_killed(lambda: board.turn_on(wanted, "root", 300), number)
    board.turn_on(wanted, "root", 0)
    return run_killed(lambda: board.turn_off(("all",), is_forced=False), number)


def require_undone(tree: HostTree, before: dict[str, tuple[bytes, int]]) -> None:
    """The next command finishes what was begun; what was not begun, or whole, stays."""
    board = Switchboard(tree.layout, arm=lambda _: "nothing")
    stages = {record.stage for record in board.read().values()}
    board.expire()
    if stages == {Stage.ON}:  # killed before it began to end, or after all was on
        assert {"sshd", "sudo"} == set(board.read())
        board.turn_off(("all",), is_forced=False)
    assert before == tree.snapshot()
