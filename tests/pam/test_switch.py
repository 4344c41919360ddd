# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa switch`` with the real parts: sshd, libpam, a process that waits, an immutable file."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from authenticator import enroll
from host_program import PROMPT, Login, Status, run
from host_tree import HostTree, snapshot
from installed import PATIENCE, DataRoot
from switched_host import Host

from pam_mfa.errors import RefusedError
from pam_mfa.switching import sshd
from pam_mfa.switching.plan import Options
from pam_mfa.switching.sshd import FirstFactor

ACCOUNT = "nobody"  # this host has it


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    """A host's files."""
    return HostTree(tmp_path)


@pytest.mark.parametrize("first", list(FirstFactor))
def test_sshd_itself_takes_the_settings(tree: HostTree, first: FirstFactor) -> None:
    """The real sshd, asked by -T, would ask for what was wanted and nothing less."""
    sshd.require_effect(tree.root, sshd.compose_drop_in(first), first)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("UsePAM yes\n", "sshd would go on with"),  # includes nothing
        (
            "PasswordAuthentication yes\nInclude sshd_config.d/*.conf\n",
            "passwordauthentication yes",
        ),
        ("Include sshd_config.d/*.conf\nFrobnicate yes\n", "does not take its configuration"),
    ],
)
def test_sshd_that_would_not_obey(tree: HostTree, config: str, words: str) -> None:
    """Settings that another line overrides, or that sshd does not take, are refused before."""
    (tree.root / "etc/ssh/sshd_config").write_text(config)
    before = tree.snapshot()
    with pytest.raises(RefusedError, match=words):
        tree.plan("sshd", options=Options(first=FirstFactor.PASSWORD))
    assert before == tree.snapshot()


@pytest.mark.parametrize(
    ("lines", "first"),
    [
        ("PasswordAuthentication no", FirstFactor.KEY),
        ("PasswordAuthentication yes", FirstFactor.PASSWORD),
        ("AuthenticationMethods publickey,password", FirstFactor.KEY),
        ("AuthenticationMethods keyboard-interactive publickey", FirstFactor.PASSWORD),
    ],
)
def test_first_factor_is_what_it_was(tree: HostTree, lines: str, first: FirstFactor) -> None:
    """What sshd asks for now, it asks for beside the code."""
    (tree.drop_ins / "50-cloud.conf").write_text(f"{lines}\n")
    assert first == tree.plan("sshd").first


BLOCKS = """\
Include sshd_config.d/*.conf
match user backup,git   # by key, at night
  AuthenticationMethods publickey
Match Address 10.0.0.0/8
  PasswordAuthentication yes
Match Group *,!wheel
  X11Forwarding no
Match all
  PermitRootLogin no
"""


def test_match_blocks_each_by_itself(tree: HostTree) -> None:
    """The real sshd says for each block alone what it would do; blocks for all always count."""
    (tree.root / "etc/ssh/sshd_config").write_text(BLOCKS)
    (tree.drop_ins / "50-own.conf").write_text(
        "Match User carol\n  KbdInteractiveAuthentication no\n"
    )
    drop_in = sshd.compose_drop_in(FirstFactor.KEY)
    words = ("authenticationmethods", "passwordauthentication", "permitrootlogin")
    seen = {
        block.criteria: tuple(sshd.read_settings(tree.root, drop_in, block)[word] for word in words)
        for block in sshd.list_blocks(tree.root)
    }
    both = "publickey,keyboard-interactive:pam"
    assert seen == {
        "user backup,git": ("publickey", "no", "no"),
        "Address 10.0.0.0/8": (both, "yes", "no"),
        "Group *,!wheel": (both, "no", "no"),
        "User carol": (both, "no", "no"),
    }


def test_switch_names_match_blocks(tree: HostTree) -> None:
    """Who would go past the code by a Match block is told before sshd is switched on."""
    (tree.root / "etc/ssh/sshd_config").write_text(BLOCKS)
    notes = [one for one in tree.plan("sshd").notes if "'Match" in one]
    assert ["line 2" in notes[0], "passwordauthentication yes" in notes[1]] == [True, True]
    assert len(notes) == 2


@pytest.fixture
def host(root: DataRoot) -> Host:
    """A host on which nobody is enrolled."""
    return Host(root)


def test_switched_stack_asks_and_the_old_one_does_not(host: Host) -> None:
    """Real libpam asks for the code on the switched file alone, and refuses a wrong one."""
    phone = enroll(host.root, ACCOUNT)
    assert run(Login(host.root, ACCOUNT, "sudo")).prompts == []
    host.switch_on("sudo", "--confirm-within", "never")
    refused = run(Login(host.root, ACCOUNT, "sudo"), phone.wrong_code())
    assert (refused.status, refused.prompts[0]) == (Status.AUTH_ERR, PROMPT)
    let_in = run(Login(host.root, ACCOUNT, "sudo", phases="auth,account"), phone.code())
    assert (let_in.status, let_in.prompts) == (Status.SUCCESS, [PROMPT])
    host.switch("off", "sudo")
    assert run(Login(host.root, ACCOUNT, "sudo")).prompts == []


def test_confirmed_by_a_login(host: Host) -> None:
    """A switch is confirmed after a login through it, and not before."""
    phone = enroll(host.root, ACCOUNT)
    host.switch_on("sudo")
    early = host.switch("confirm", check=False)
    assert (early.returncode, "nobody has got in by sudo" in early.stderr) == (1, True)
    run(Login(host.root, ACCOUNT, "sudo"), phone.code())
    assert "Confirmed: sudo." in host.switch("confirm").stdout
    assert "on " in host.switch("status").stdout


def test_process_undoes_it(host: Host) -> None:
    """Without a confirmation a process that survives its session restores every byte."""
    enroll(host.root, ACCOUNT)
    before = snapshot(host.root.path)
    shown = host.switch_on("sudo", "su", "--confirm-within", "2s").stdout
    assert "This undoes itself at" in shown
    assert before != snapshot(host.root.path)
    await_snapshot(host, before)


def await_snapshot(host: Host, wanted: dict[str, tuple[bytes, int]]) -> None:
    """Wait until the files are these again."""
    deadline = time.monotonic() + PATIENCE
    while snapshot(host.root.path) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_process_outlives_its_terminal(host: Host) -> None:
    """The hang-up of the terminal's session does not end what waits."""
    enroll(host.root, ACCOUNT)
    before = snapshot(host.root.path)
    module = f"{host.root.prefix}/lib/security/pam_mfa.so"
    command = [host.root.prefix / "bin/pam-mfa", "--root", host.root.path, "switch", "on", "sudo",
               "--yes", "--module", module, "--confirm-within", "2s"]  # fmt: skip
    subprocess.run(["script", "-qec", " ".join(map(str, command)), "/dev/null"], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60)  # fmt: skip
    assert before != snapshot(host.root.path)
    await_snapshot(host, before)


def test_nobody_could_get_in(host: Host) -> None:
    """A switch that locks every administrator out is refused by name, and nothing is done."""
    before = snapshot(host.root.path)
    done = host.switch_on("sudo", check=False)
    assert done.returncode == 1
    assert "Warning: nobody would be locked out of sudo" in done.stderr
    assert before == snapshot(host.root.path)


def test_no_policy(host: Host) -> None:
    """Without a usable policy everybody would be refused, so the switch is."""
    host.root.policy.write_text("frobnicate: 1\n")
    done = host.switch_on("sudo", check=False)
    assert (done.returncode, "everybody would be refused" in done.stderr) == (3, True)
    assert "pam_mfa.so" not in (host.root.services / "sudo").read_text()


def test_dry_run(host: Host) -> None:
    """A dry run shows the change and makes none."""
    enroll(host.root, ACCOUNT)
    before = snapshot(host.root.path)
    shown = host.switch_on("sudo", "--dry-run").stdout
    assert "+++ b/etc/pam.d/sudo\n" in shown
    assert before == snapshot(host.root.path)


@contextlib.contextmanager
def ext4(tmp_path: Path) -> Iterator[Path]:
    """Mount an ext4 file system, which has immutable files."""
    image, place = tmp_path / "image", tmp_path / "mount"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", image, place], check=True, timeout=60)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True, timeout=60)


def switch_tree(tree: HostTree, prefix: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the installed pam-mfa switch under a tree."""
    return subprocess.run([prefix / "bin/pam-mfa", "--root", tree.root, "switch", *words],
                          capture_output=True, text=True, check=False, timeout=60)  # fmt: skip


FORCED = ("--yes", "--force", "--confirm-within", "never")


@pytest.mark.parametrize("what", ["etc/pam.d/sudo", "etc/pam.d", "etc/pam_mfa"])
def test_immutable(tmp_path: Path, prefix: Path, what: str) -> None:
    """What chattr +i protects is left whole, and the sentence says what to run."""
    with ext4(tmp_path) as place:
        tree = HostTree(place / "host")
        before = tree.snapshot()
        subprocess.run(["chattr", "+i", tree.root / what], check=True, timeout=60)
        try:
            done = switch_tree(tree, prefix, "on", "sudo", "su", *FORCED)
        finally:
            subprocess.run(["chattr", "-i", tree.root / what], check=True, timeout=60)
        assert (done.returncode, "immutable" in done.stderr) == (1, True), done.stderr
        assert before == tree.snapshot()


def test_immutable_at_off(tmp_path: Path, prefix: Path) -> None:
    """A file that was made immutable in between stops off before anything is done."""
    with ext4(tmp_path) as place:
        tree = HostTree(place / "host")
        before = tree.snapshot()
        assert switch_tree(tree, prefix, "on", "sudo", "su", *FORCED).returncode == 0
        on = tree.snapshot()
        subprocess.run(["chattr", "+i", tree.services / "sudo"], check=True, timeout=60)
        done = switch_tree(tree, prefix, "off", "all")
        assert (done.returncode, "chattr -i -a" in done.stderr) == (1, True)
        assert on == tree.snapshot()
        subprocess.run(["chattr", "-i", tree.services / "sudo"], check=True, timeout=60)
        assert switch_tree(tree, prefix, "off", "all").returncode == 0
        assert before == tree.snapshot()


@contextlib.contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Make a file immutable for a while."""
    subprocess.run(["chattr", "+i", path], check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True, timeout=60)


def services_with_the_module(tree: HostTree) -> list[str]:
    """Return the services whose file names it."""
    return sorted(one.name for one in tree.services.iterdir() if "pam_mfa" in one.read_text())


def test_immutable_file_keeps_no_other_service_on(tmp_path: Path, prefix: Path) -> None:
    """By force, and when the time is over, everything is undone but what cannot be; it says why."""
    with ext4(tmp_path) as place:
        tree = HostTree(place / "host")
        before = tree.snapshot()
        for words in (("off", "all", "--force"), ("expire",)):
            within = "never" if "off" in words else "1s"
            on = ("on", "sudo", "su", "login", "--yes", "--force", "--confirm-within", within)
            assert switch_tree(tree, prefix, *on).returncode == 0
            with immutable(tree.services / "sudo"):
                if "expire" in words:
                    await_services(tree, ["sudo"])
                else:
                    done = switch_tree(tree, prefix, *words)
                    assert (done.returncode, "chattr -i -a" in done.stderr) == (1, True)
                    assert "everything else was undone" in done.stderr
                assert services_with_the_module(tree) == ["sudo"]
            assert switch_tree(tree, prefix, "off", "all", "--force").returncode == 0
            assert before == tree.snapshot()


def await_services(tree: HostTree, wanted: list[str]) -> None:
    """Wait until these services and no others have the module."""
    deadline = time.monotonic() + PATIENCE
    while services_with_the_module(tree) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("what", ["etc/pam.d/sudo", "etc/pam_mfa"])
def test_immutable_and_a_damaged_journal(tmp_path: Path, prefix: Path, what: str) -> None:
    """With a journal that nobody can read, force does what can be done, and says what could not."""
    with ext4(tmp_path) as place:
        tree = HostTree(place / "host")
        before = tree.snapshot()
        assert switch_tree(tree, prefix, "on", "sudo", "su", *FORCED).returncode == 0
        (tree.root / "etc/pam_mfa/switch.json").write_text("{")
        with immutable(tree.root / what):
            done = switch_tree(tree, prefix, "off", "all", "--force")
            assert (done.returncode, done.stderr.count("Traceback")) == (1, 0), done.stderr
            assert ("su" in services_with_the_module(tree)) is False
        assert switch_tree(tree, prefix, "off", "all", "--force").returncode == 0
        (tree.root / "etc/pam_mfa/switch.json.damaged").unlink()
        assert before == tree.snapshot()


def test_read_only(tmp_path: Path, prefix: Path) -> None:
    """A file system that is read-only is told, and nothing is tried."""
    with ext4(tmp_path) as place:
        tree = HostTree(place / "host")
        run = tree.root / "run"  # as every host has it, in memory
        run.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", run], check=True, timeout=60)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True, timeout=60)
        try:
            done = switch_tree(tree, prefix, "on", "sudo", *FORCED)
        finally:
            subprocess.run(["umount", run], check=True, timeout=60)
        assert (done.returncode, "read-only" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("journal", ["whole", "damaged"])
def test_read_only_at_off(tmp_path: Path, prefix: Path, journal: str) -> None:
    """Off, and off by force, on a file system that is read-only, changes nothing and says why."""
    with ext4(tmp_path) as place:
        tree = HostTree(place / "host")
        assert switch_tree(tree, prefix, "on", "sudo", *FORCED).returncode == 0
        if journal == "damaged":
            (tree.root / "etc/pam_mfa/switch.json").write_text("{")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree.root / "run"], check=True, timeout=60)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True, timeout=60)
        try:
            done = [switch_tree(tree, prefix, "off", "all", *how) for how in ((), ("--force",))]
        finally:
            subprocess.run(["umount", tree.root / "run"], check=True, timeout=60)
        assert [one.returncode for one in done] == [3 if journal == "damaged" else 1, 1]
        assert "mount -o remount,rw /" in done[1].stderr
        assert services_with_the_module(tree) == ["sudo"]


def test_not_root(tree: HostTree, prefix: Path) -> None:
    """Who is not root is told so, and sees no journal."""
    done = subprocess.run([prefix / "bin/pam-mfa", "switch", "status"], user=65534, group=65534,
                          capture_output=True, text=True, check=False, timeout=60,
                          extra_groups=[], cwd="/")  # fmt: skip
    assert (
        done.returncode, done.stderr,
    ) == (1, "pam-mfa: only root can switch services.\nRun it by sudo.\n")  # fmt: skip
    assert os.geteuid() == 0
    assert tree.root.is_dir()
