# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks, each over a tree of files, and over answers of programs that it is given."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from doubles import make_layout
from host_tree import FILES, HostTree

from pam_mfa.cli import host_state
from pam_mfa.cli.doctor import chain_check
from pam_mfa.cli.session import Session
from pam_mfa.doctor import (
    daemon,
    files,
    kernel,
    modules,
    programs,
    repairing,
    seals,
    stacks,
    switches,
)
from pam_mfa.doctor.examination import CHECKS, examine
from pam_mfa.doctor.finding import Finding, Level, exit_status, fault, notice, ok, warning
from pam_mfa.doctor.kernel import Clock, judge_clock, read_clock
from pam_mfa.doctor.repairing import repair
from pam_mfa.doctor.view import View
from pam_mfa.errors import BrokenSystemError, PamMfaError, RefusedError
from pam_mfa.policy import parse_policy
from pam_mfa.store.layout import Layout
from pam_mfa.switching.journal import Journal
from pam_mfa.switching.sshd_blocks import Block
from pam_mfa.switching.switchboard import Switchboard

OURS = "auth required pam_mfa.so\n"
GOOD_SSHD = {
    "usepam": "yes",
    "kbdinteractiveauthentication": "yes",
    "passwordauthentication": "no",
    "pubkeyauthentication": "yes",
    "authenticationmethods": "publickey,keyboard-interactive:pam",
    "logingracetime": "120",
}


class OddView(View):
    """A host whose programs answer what they are told."""

    def __init__(
        self, layout: Layout, sshd: dict[str, str], blocks: dict[str, dict[str, str]] | None = None
    ) -> None:
        """Take sshd's settings, and those of Match blocks by their criteria."""
        super().__init__(layout)
        self._sshd = sshd
        self._blocks = blocks or {}

    def sshd_settings(self, block: Block | None = None) -> dict[str, str]:
        """Return what was given."""
        return self._sshd | (self._blocks[block.criteria] if block else {})

    def sshd_blocks(self) -> list[Block]:
        """Return a block for each that was given."""
        return [Block(Path("sshd_config"), 7, one) for one in self._blocks]


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    """A host's files."""
    return HostTree(tmp_path)


def find(check: Callable[[View], Iterator[Finding]], view: View) -> list[tuple[str, str]]:
    """Return what a check finds, with its level, without what is as it must be."""
    return [(one.level.value, one.what) for one in check(view) if one.level is not Level.OK]


def look_at_stack(tree: HostTree, text: str, name: str = "demo") -> list[tuple[str, str]]:
    """Return what is found in one service's file."""
    (tree.services / name).write_text(text)
    found = find(stacks.check_stacks, View(tree.layout))
    return [one for one in found if one[1].startswith(f"{name}:")]


@pytest.mark.parametrize(
    ("levels", "status"),
    [((), 0), ((ok,), 0), ((notice, ok), 0), ((warning, notice), 1), ((fault, warning), 3)],
)
def test_exit_status(levels: tuple[Callable[..., Finding], ...], status: int) -> None:
    """Warnings are 1, faults 3, and what is only worth knowing is 0."""
    assert status == exit_status(make("s", "what", "advice") if make is not ok else make("s", "w")
                                 for make in levels)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        (f"auth sufficient pam_unix.so\n{OURS}", "fault", "lets in without coming to pam_mfa.so"),
        (f"auth include system-auth\n{OURS}", "fault", "pam_unix.so (system-auth, line 2)"),
        (f"auth sufficient pam_rootok.so\n{OURS}", "notice", "for those that it names"),
        ("auth optional pam_mfa.so\n", "fault", "is 'optional', so a refusal lets in"),
        (f"{OURS}auth required pam_unix.so\n", "notice", "asked for before the password"),
        (f"auth required pam_u2f.so nouserok\n{OURS}", "warning", "has 'nouserok'"),
        (f"auth required pam_google_authenticator.so nullok\n{OURS}", "warning", "has 'nullok'"),
        (f"{OURS}frobnicate required x\n", "fault", "PAM does not take its file"),
        (
            f"{OURS}session required pam_env.so user_readenv=1\nsession required pam_mfa.so\n",
            "fault",
            "lets users set variables",
        ),
    ],
)
def test_holes_in_a_stack(tree: HostTree, text: str, level: str, words: str) -> None:
    """Each hole is found, once, with its line."""
    found = look_at_stack(tree, text)
    assert [level] == [one[0] for one in found]
    assert words in found[0][1]


@pytest.mark.parametrize(
    "text",
    [
        f"@include common-auth\n{OURS}",
        f"auth substack system-auth\n{OURS}",
        "auth required pam_mfa.so forward_pass\nauth required pam_unix.so use_first_pass\n",
        f"{OURS}session required pam_mfa.so\nsession required pam_env.so user_readenv=1\n",
    ],
)
def test_sound_stack(tree: HostTree, text: str) -> None:
    """A stack without a hole has no finding but that."""
    assert [] == look_at_stack(tree, text)


def test_services_that_do_not_ask(tree: HostTree) -> None:
    """Ways into the host that ask for no code are named where another one does."""
    (tree.services / "sudo").write_text(f"{FILES['sudo']}{OURS}")
    found = find(stacks.check_stacks, View(tree.layout))
    assert ("notice", "sshd asks for no code") in found
    assert ("notice", "sudo asks for no code") not in found


@pytest.mark.parametrize(
    ("setting", "level", "words"),
    [
        (("usepam", "no"), "fault", "UsePAM is no"),
        (("authenticationmethods", "any"), "fault", "a public key alone never asks PAM"),
        (("authenticationmethods", "publickey"), "fault", "a public key alone never asks PAM"),
        (("authenticationmethods", "gssapi-with-mic"), "fault", "never asks PAM"),
        (("pamservicename", "other"), "fault", "/etc/pam.d/sshd is not asked"),
        (("kbdinteractiveauthentication", "no"), "fault", "PAM can ask nobody"),
        (("passwordauthentication", "yes"), "warning", "answers every prompt with the password"),
        (("logingracetime", "30"), "warning", "LoginGraceTime is 30 s"),
    ],
)
def test_sshd_that_goes_past_pam(
    tree: HostTree, setting: tuple[str, str], level: str, words: str
) -> None:
    """Each setting of sshd by which no code is asked for, or none can be typed, is found."""
    (tree.services / "sshd").write_text(OURS)
    found = find(programs.check_sshd, OddView(tree.layout, GOOD_SSHD | dict([setting])))
    assert [level] == [one[0] for one in found]
    assert words in found[0][1]


def test_sshd_as_it_must_be(tree: HostTree) -> None:
    """The settings that the switch writes have no finding; nor has an sshd that does not ask."""
    assert [] == list(programs.check_sshd(OddView(tree.layout, {"usepam": "no"})))
    (tree.services / "sshd").write_text(OURS)
    assert [] == find(programs.check_sshd, OddView(tree.layout, GOOD_SSHD))


@pytest.mark.parametrize(
    ("criteria", "level"),
    [
        ("User backup", "notice"),
        ("Group automation Address 10.0.0.0/8", "notice"),
        ("Address 10.0.0.0/8", "warning"),
        ("User *,!root", "warning"),
        ("User *", "fault"),
        ("Address 0.0.0.0/0,::/0", "fault"),
    ],
)
def test_match_block_that_goes_past_pam(tree: HostTree, criteria: str, level: str) -> None:
    """A block by which a key alone is enough is told; worse the more people it takes in."""
    (tree.services / "sshd").write_text(OURS)
    view = OddView(tree.layout, GOOD_SSHD, {criteria: {"authenticationmethods": "publickey"}})
    ((found, what),) = find(programs.check_sshd, view)
    assert (level, True) == (found, f"'Match {criteria}' (/etc/ssh/sshd_config, line 7)" in what)


def test_match_block_that_changes_nothing(tree: HostTree) -> None:
    """A block is not blamed for what everybody has, nor for what does no harm."""
    (tree.services / "sshd").write_text(OURS)
    blocks = {"User sftp": {"x11forwarding": "no"}}
    assert [] == find(programs.check_sshd, OddView(tree.layout, GOOD_SSHD, blocks))
    bad = GOOD_SSHD | {"usepam": "no"}
    assert ["UsePAM is no: nobody is asked for a code"] == [
        one[1] for one in find(programs.check_sshd, OddView(tree.layout, bad, blocks))
    ]


@pytest.mark.parametrize(
    ("rule", "level"),
    [
        ("match: {service: [sshd], phase: [session]}, require: [ssh-key]", "notice"),
        ("match: {service: [login], phase: [session]}, require: [ssh-key]", "fault"),
        ("match: {service: [sshd]}, require: [ssh-key]", "fault"),
    ],
)
def test_keys_alone_that_the_session_is_asked_of(tree: HostTree, rule: str, level: str) -> None:
    """Public keys alone are no hole where a rule and a line of ours decide on sessions."""
    (tree.services / "sshd").write_text("auth required pam_deny.so\nsession required pam_mfa.so\n")
    view = OddView(tree.layout, GOOD_SSHD | {"authenticationmethods": "publickey"})
    view.policy = parse_policy(f"version: 1\nrules: [{{name: r, {rule}}}]".encode(), "p")
    ((found, what),) = find(programs.check_sshd, view)
    assert (level, True) == (found, "a public key alone" in what)


@pytest.mark.parametrize(
    ("sudoers", "account", "level", "words"),
    [
        ("", "", "notice", "for 15 minutes"),
        ("Defaults timestamp_timeout=60\n", "", "notice", "for 60 minutes"),
        ("Defaults timestamp_timeout=-1\n", "", "warning", "never asks again"),
        ("Defaults timestamp_timeout=-1\n", "account required pam_mfa.so\n", "", ""),
    ],
)
def test_sudos_memory(tree: HostTree, sudoers: str, account: str, level: str, words: str) -> None:
    """How long sudo asks nobody is told, where no account line of ours stands against it."""
    (tree.services / "sudo").write_text(OURS + account)
    (tree.root / "etc/sudoers").write_text(sudoers)
    found = find(programs.check_sudo, View(tree.layout))
    assert ([level] if level else []) == [one[0] for one in found]
    assert words in "".join(one[1] for one in found)


@pytest.mark.parametrize(
    ("rule", "level"),
    [
        ("match: {service: [sudo]}, require: [fido], mfa_age: 5m", "warning"),
        ("match: {}, require: [fido], mfa_age: 5m", "warning"),
        ("match: {}, require: [fido], mfa_age: 15m", "notice"),
        ("match: {service: [sshd]}, require: [fido], mfa_age: 5m", "notice"),
    ],
)
def test_sudos_memory_is_longer_than_an_age(tree: HostTree, rule: str, level: str) -> None:
    """An age that sudo's own timestamp outlasts is a warning where no account line is ours."""
    (tree.services / "sudo").write_text(OURS)
    view = View(tree.layout)
    view.policy = parse_policy(f"version: 1\nrules: [{{name: r, {rule}}}]".encode(), "p")
    assert [level] == [one[0] for one in find(programs.check_sudo, view)]


def test_agents_address(tree: HostTree) -> None:
    """An agent that sudo hands on to root's commands is told; one that it does not, is not."""
    (tree.services / "sudo").write_text(OURS)
    view = View(tree.layout)
    assert "SSH_AUTH_SOCK" not in str(find(programs.check_sudo, view))
    (tree.root / "etc/sudoers").write_text('Defaults env_keep += "SSH_AUTH_SOCK"\n')
    assert "what runs as root can use" in str(find(programs.check_sudo, view)[-1])


@pytest.mark.parametrize(
    ("clock", "level"),
    [
        (Clock(is_synchronized=True, offset=0.002, error_max=0.1), Level.OK),
        (Clock(is_synchronized=False, offset=0.0, error_max=16.0), Level.WARNING),
        (Clock(is_synchronized=True, offset=-40.0, error_max=60.0), Level.WARNING),
    ],
)
def test_clock(clock: Clock, level: Level) -> None:
    """A clock that nobody sets, or that is off, is a warning with its offset."""
    found = judge_clock(clock)
    assert (level, True) == (found.level, f"{clock.offset:+.6f} s" in found.what)


def test_kernels_clock() -> None:
    """What the kernel says of its clock is read without changing it."""
    found = read_clock()
    assert -1.0 < found.offset < 1.0
    assert 0.0 <= found.error_max < 1e6


def test_node_of_a_key_that_the_verifier_may_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that neither its group nor everybody may open is told with the udev rule."""

    class Everything(View):
        is_host = True

        def __init__(self) -> None:
            self.layout = Layout(Path("/"))

        def stat(self, path: Path) -> os.stat_result | None:
            del path
            return os.stat_result((stat.S_IFCHR | 0o600, *[0] * 9))

    key = type("Key", (), {"path": "/dev/hidraw7"})
    monkeypatch.setattr(kernel, "list_keys", lambda: (key,))
    assert [("warning", "the verifier may not open /dev/hidraw7")] == find(
        kernel.check_keys, Everything()
    )


AVC = 'audit: type=1400 avc:  denied  { read } for  pid=7 comm="pam-mfad" name="state.db"'
APPARMOR = 'audit: apparmor="DENIED" operation="open" profile="pam-mfad" name="/x"'


@pytest.mark.parametrize(
    ("journal", "audit", "levels"),
    [
        (f"usb 1-1: new device\n{AVC}\n", "", ["warning"]),
        (APPARMOR, AVC, ["warning", "warning"]),
        (AVC.replace("pam-mfad", "other"), "", ["ok"]),
        ("", "", ["ok"]),
        (None, "", ["notice"]),
        (None, AVC, ["warning"]),
    ],
)
def test_denials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str | None, audit: str,
    levels: list[str],
) -> None:  # fmt: skip
    """Denials that name us are told, those of others not; and that nothing could be searched."""
    log = tmp_path / "audit.log"
    log.write_text(audit)
    monkeypatch.setattr(kernel, "_AUDIT_LOG", log)
    view = View(Layout(Path("/")))
    monkeypatch.setattr(view, "run", lambda *_: journal)
    assert levels == [one.level.value for one in kernel.check_denials(view)]


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Files of ours that are as they must be; the service user is whoever runs the tests."""
    layout = make_layout(tmp_path)
    monkeypatch.setattr(files, "service_ids", lambda: (os.geteuid(), os.getegid()))
    for directory, mode in ((layout.devices, 0o700), (layout.audit_log.parent, 0o2750)):
        directory.chmod(mode)
    for path in (layout.state, layout.seal_key, layout.devices / "alice.yaml", layout.audit_log):
        path.write_bytes(bytes(32))
        path.chmod(0o600)
    return layout


def test_rights_as_they_must_be(own_files: Layout) -> None:
    """Files that are ours alone have no finding."""
    wrong = [one for one in find(files.check_rights, View(own_files)) if "etc" not in one[1]]
    assert [] == wrong


@pytest.mark.parametrize("name", ["state.db", "seal.key", "devices/alice.yaml"])
def test_rights_that_let_others_in(own_files: Layout, name: str) -> None:
    """A file that others may read is found by its name and mode."""
    path = own_files.library / name
    path.chmod(0o644)
    (found,) = [one for one in find(files.check_rights, View(own_files)) if "etc" not in one[1]]
    assert ("fault", f"{path} has the mode 0644, which lets others at it") == found


def test_link_in_the_place_of_devices(
    own_files: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of a directory that ``devices`` is a link to are neither named nor changed."""
    monkeypatch.setattr(repairing, "find_damage", lambda _: "")
    victim = tmp_path / "roots" / "secret.yaml"
    victim.parent.mkdir()
    victim.write_text("secret")
    victim.chmod(0o644)
    own_files.devices.rename(own_files.library / "away")
    own_files.devices.symlink_to(victim.parent)
    said = " ".join(repair(View(own_files)))
    assert 0o644 == stat.S_IMODE(victim.stat().st_mode)
    assert ("secret.yaml" in said, f"{own_files.devices} is no directory" in said) == (False, True)


def test_link_put_in_the_place_of_devices_meanwhile(
    own_files: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that takes the place of ``devices`` after the listing has no other file changed."""
    victim = tmp_path / "roots" / "alice.yaml"
    victim.parent.mkdir()
    victim.write_text("secret")
    victim.chmod(0o644)
    monkeypatch.setattr(repairing, "find_damage", lambda _: "")
    listed = files.list_rights(own_files)
    monkeypatch.setattr(repairing, "list_rights", lambda _: listed)
    own_files.devices.rename(own_files.library / "away")
    own_files.devices.symlink_to(victim.parent)
    assert f"{own_files.devices / 'alice.yaml'} has the mode" in " ".join(repair(View(own_files)))
    assert 0o644 == stat.S_IMODE(victim.stat().st_mode)


def test_rights_of_a_device_are_mended(own_files: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device's file that others may read is its owner's alone after the repair."""
    monkeypatch.setattr(repairing, "find_damage", lambda _: "")
    path = own_files.devices / "alice.yaml"
    path.chmod(0o644)
    assert f"{path} has the mode 0644, which lets others at it: mended" in list(
        repair(View(own_files))
    )
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_seal_key_that_is_missing(own_files: Layout) -> None:
    """Devices without the key that sealed them are a fault."""
    own_files.seal_key.unlink()
    ((level, what),) = find(seals.check_seal_key, View(own_files))
    assert ("fault", True) == (level, "is missing" in what)


def test_store_that_is_not_mounted(tmp_path: Path) -> None:
    """A store that is not there is a fault, and not an empty one."""
    ((level, what),) = find(files.check_store, View(Layout(tmp_path)))
    assert ("fault", True) == (level, "there is no" in what)


def test_module_that_is_missing(tmp_path: Path) -> None:
    """A host without the module is told so."""
    assert [("fault", "there is no pam_mfa.so")] == find(
        modules.check_modules, View(Layout(tmp_path))
    )


@pytest.mark.parametrize(
    ("version", "level"), [("0.0.1", "warning"), (None, "notice"), ("", "fault")]
)
def test_module_of_another_version(tmp_path: Path, version: str | None, level: str) -> None:
    """A module that starts a verifier of another version, or one that is not there, is found."""
    prefix = tmp_path / "opt/pam-mfa"
    module = prefix / "lib/security/pam_mfa.so"
    module.parent.mkdir(parents=True)
    module.write_bytes(b"\0/opt/pam-mfa/bin/pam-mfad\0")
    module.chmod(0o644)
    library = prefix / "lib/python/pam_mfa/__init__.py"
    library.parent.mkdir(parents=True)
    if version:
        library.write_text(f'__version__ = "{version}"\n')
    if version != "":
        (prefix / "bin").mkdir()
        (prefix / "bin/pam-mfad").touch()
    assert [level] == [one[0] for one in find(modules.check_modules, View(Layout(tmp_path)))]


def test_sockets(tmp_path: Path) -> None:
    """Sockets that are not there are worth knowing; what is no socket is a fault."""
    layout = Layout(tmp_path)
    layout.run.mkdir(parents=True)
    layout.socket.touch()
    assert ["fault", "notice"] == [one[0] for one in find(daemon.check_sockets, View(layout))]


def test_socket_that_nobody_listens_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that a dead daemon has left is a warning."""
    layout = Layout(tmp_path)
    layout.run.mkdir(parents=True)
    monkeypatch.chdir(layout.run)  # a socket's path is short
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind("verify.sock")
    found = find(daemon.check_sockets, View(Layout(Path(os.path.relpath(tmp_path)))))
    assert any("nobody answers" in one[1] for one in found)


def test_switch_that_waits(tree: HostTree) -> None:
    """A switch that nobody has confirmed is a warning."""
    Switchboard(tree.layout, arm=lambda _: "nothing").turn_on(tree.plan("sudo"), "root", 300)
    ((level, what),) = find(switches.check_switches, View(tree.layout))
    assert ("warning", True) == (level, "sudo is switched on and not confirmed" in what)


def look_at_switches(tree: HostTree) -> list[tuple[str, str]]:
    """Return what the doctor says of switches, faults only."""
    found = find(switches.check_switches, View(tree.layout))
    return [one for one in found if one[0] == "fault"]


def test_switch_whose_lines_somebody_took_out(tree: HostTree) -> None:
    """A service that is on by the journal and asks for no code by its file is a fault."""
    before = tree.service("sudo")
    Switchboard(tree.layout).turn_on(tree.plan("sudo"), "root", 0)
    assert [] == look_at_switches(tree)
    (tree.services / "sudo").write_text(before)
    ((_, what),) = look_at_switches(tree)
    assert "its file has no line of pam_mfa.so any more" in what


def test_switch_whose_file_is_gone(tree: HostTree) -> None:
    """A switched service without its file refuses everybody, and the way back is told."""
    Switchboard(tree.layout).turn_on(tree.plan("sudo"), "root", 0)
    (tree.services / "sudo").unlink()
    ((_, what),) = look_at_switches(tree)
    assert "is gone: PAM refuses everybody" in what


def test_switch_that_cannot_be_undone(tree: HostTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be changed, so that no deadline would undo the switch, is a fault."""

    def refuse(path: Path) -> None:
        raise RefusedError(f"{path} is immutable; nothing was changed", hint=f"chattr -i -a {path}")

    Switchboard(tree.layout, arm=lambda _: "nothing").turn_on(tree.plan("sudo"), "root", 300)
    monkeypatch.setattr(switches, "require_changeable", refuse)
    ((_, what),) = look_at_switches(tree)
    assert what.startswith("sudo could not be undone now: ")


def test_damaged_journal_of_switches(tree: HostTree) -> None:
    """A journal that nobody can read is a fault, and the advice gets out."""
    Switchboard(tree.layout).turn_on(tree.plan("sudo"), "root", 0)
    Journal(tree.layout).path.write_text("{")
    (finding,) = examine(View(tree.layout), (("switch", switches.check_switches),))
    assert (Level.FAULT, True) == (finding.level, "switch off all --force" in finding.advice)


def test_check_that_fails_is_a_finding(tree: HostTree) -> None:
    """A check that cannot look does not keep the others from looking."""

    def broken(view: View) -> Iterator[Finding]:
        raise BrokenSystemError(f"{view.root.name} is on fire", hint="Run.")

    def gone(view: View) -> Iterator[Finding]:
        raise FileNotFoundError(2, "gone", str(view.root))

    def fine(view: View) -> Iterator[Finding]:
        yield ok("fine", view.root.name)

    checks = (("fire", broken), ("gone", gone), ("fine", fine))
    found = list(examine(View(tree.layout), checks))
    assert [Level.FAULT, Level.FAULT, Level.OK] == [one.level for one in found]
    assert "Run." == found[0].advice


def test_every_check_is_called_once() -> None:
    """No check is in the list twice, and each subject has a name."""
    assert len(CHECKS) == len({check for _, check in CHECKS})
    assert all(subject for subject, _ in CHECKS)


def program_that(verify: Callable[[], None] | None) -> click.Group:
    """Return a program whose ``audit verify`` does this; None: it has no such command."""
    root = click.Option(["--root"], expose_value=False)
    program, audit = click.Group(params=[root]), click.Group("audit")
    if verify is not None:
        audit.add_command(click.Command("verify", callback=verify))
        program.add_command(audit)
    return program


@pytest.mark.parametrize(
    ("error", "level", "words"),
    [
        (None, "ok", "no record of it was changed"),
        (RefusedError("it is not intact", hint="Keep it."), "fault", "it is not intact"),
        (BrokenSystemError("it cannot be read"), "fault", "it cannot be read"),
    ],
)
def test_log_is_verified(
    own_files: Layout, error: PamMfaError | None, level: str, words: str
) -> None:
    """What ``audit verify`` says of the log is a finding."""

    def verify() -> None:
        if error is not None:
            raise error

    (found,) = chain_check(program_that(verify))(View(own_files))
    assert (level, True) == (found.level.value, words in found.what)


def test_log_without_a_chain(own_files: Layout) -> None:
    """Where there is nothing that verifies, nothing is said."""
    assert [] == list(chain_check(program_that(None))(View(own_files)))


def test_state_of_a_new_host(
    tree: HostTree, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a command the state is told, and the one thing that comes next."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    host_state.show_state(Session(tree.root))
    assert "Next:     write a policy" in capsys.readouterr().out
