# SPDX-License-Identifier: Apache-2.0
"""Set-ups of the real google-authenticator and pam_oath, imported, and then used through libpam.

Codes are made by oathtool. Accounts are in a mount namespace of the command's own; the machine's
stay as they are.
"""

import base64
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from installed import PATIENCE, DataRoot, wait_for_step
from serving import each_way, serving
from test_device_kinds import lets_in, log_in, rows_of

FILE_NAME = ".google_authenticator"
FIRST_UID = 61000
WITH_ACCOUNTS = 'mount --bind "$0" /etc/passwd && exec "$@"'
GOOGLE_MODULE = "pam_google_authenticator.so"  # on homes, with their users' rights
WEAK = "MFRGGZDFMZTWQ2LK"  # of 80 bits
SHADOW = "root:$6$salt$hash:19000:0:99999:7:::\n"
TIME_OPTIONS = ("-t", "-d", "-r", "3", "-R", "30", "-w", "3")
COUNTER_OPTIONS = ("-c", "-r", "3", "-R", "30", "-w", "3")


class Person(NamedTuple):
    """An account with a home."""

    user: str
    uid: int
    home: Path

    @property
    def file(self) -> Path:
        """The secret file."""
        return self.home / FILE_NAME

    def put(self, text: str, mode: int = 0o400) -> "Person":
        """Write the secret file, as its owner would."""
        self.file.write_text(text, "ascii")
        self.file.chmod(mode)
        os.chown(self.file, self.uid, self.uid)
        return self

    def set_up(self, *options: str) -> list[str]:
        """Have the real program write the file; return the scratch codes."""
        subprocess.run(
            ["google-authenticator", "-f", "-q", "-Q", "none", "-s", str(self.file), *options],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
        os.chown(self.file, self.uid, self.uid)
        return [line for line in self.lines() if line.isdigit()]

    def lines(self) -> list[str]:
        """Return the file's lines."""
        return self.file.read_text("ascii").splitlines()

    def code(self, step: int = 0, *, is_event_based: bool = False) -> str:
        """Return the code of a counter, or of the time step this many after the current one."""
        return code_of(self.lines()[0], step, is_event_based=is_event_based)


def code_of(base32: str, step: int = 0, *, is_event_based: bool = False, digits: int = 6) -> str:
    """Return oathtool's code of a counter, or of a time step beside the current one."""
    moment = ["--totp", "--now", f"@{int(time.time()) + step * 30}"]
    if is_event_based:
        moment = ["--hotp", "--counter", str(step)]
    done = subprocess.run(
        ["oathtool", *moment, "--base32", "--digits", str(digits), "-"],
        input=base32, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return done.stdout.strip()


class Town:
    """People with homes on a host that only the commands run here can see."""

    def __init__(self, root: DataRoot) -> None:
        """Begin with nobody."""
        self.root = root
        self.homes = root.path / "home"
        self.homes.mkdir(mode=0o755)
        self._passwd = root.path / "passwd"
        self._passwd.write_text(Path("/etc/passwd").read_text("utf-8"), "utf-8")
        self._count = 0

    def person(self, user: str) -> Person:
        """Make an account with an empty home."""
        person = Person(user, FIRST_UID + self._count, self.homes / user)
        self._count += 1
        person.home.mkdir(mode=0o700)
        os.chown(person.home, person.uid, person.uid)
        with self._passwd.open("a") as file:
            file.write(f"{user}:x:{person.uid}:{person.uid}::{person.home}:/bin/sh\n")
        return person

    def argv(self, *arguments: str) -> list[str]:
        """Return the command line of pam-mfa as this town's root would run it."""
        program = [str(self.root.prefix / "bin/pam-mfa"), "--root", str(self.root.path)]
        return ["unshare", "--mount", "sh", "-c", WITH_ACCOUNTS, str(self._passwd),
                *program, *arguments]  # fmt: skip

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run pam-mfa import google-authenticator."""
        done = subprocess.run(
            self.argv("import", "google-authenticator", *arguments),
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        assert not check or done.returncode == 0, done.stderr
        return done

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """Import with a list of what became of whom."""
        rows: list[dict[str, Any]] = json.loads(self.run(*arguments, "--json").stdout)
        return rows

    def results(self, *arguments: str) -> dict[str, str]:
        """Import and return what became of each user."""
        return {row["user"]: row["result"] for row in self.rows(*arguments)}


@pytest.fixture
def town(root: DataRoot) -> Town:
    """A host where nobody has an account of the tests' yet."""
    return Town(root)


def peer_lets_in(town: Town, module: str, code: str, user: str = "alice") -> bool:
    """Whether the other program's own module lets a user in."""
    services = town.root.services
    (services / "peer").write_text(
        f"auth required {module}\naccount required pam_permit.so\n", "ascii"
    )
    command = town.argv("try", user, "--service", "peer", "--pam-dir", str(services))
    done = subprocess.run(
        command, input=f"{code}\n", capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


@each_way
def test_totp(town: Town, way: str) -> None:
    """A set-up that the real module lets in is imported, and its next code and scratch codes do."""
    alice = town.person("alice")
    scratch_codes = alice.set_up(*TIME_OPTIONS)
    wait_for_step(12)
    used = alice.code()
    assert peer_lets_in(town, GOOGLE_MODULE, used)
    before = alice.file.read_bytes()
    (row,) = town.rows("--all-homes")
    assert (row["result"], row["recovery_codes"]) == ("import", 5)
    assert alice.file.read_bytes() == before
    with serving(town.root, way):
        assert not lets_in(town.root, used)
        assert [lets_in(town.root, code) for code in [alice.code(1)] * 2] == [True, False]
        let_in, shown = log_in(town.root, scratch_codes[2])
        assert (let_in, "4 of 5 are left" in shown) == (True, True)
        assert not lets_in(town.root, scratch_codes[2])
    left = {row["type"]: row["codes_left"] for row in rows_of(town.root, "status").values()}
    assert left == {"virtual": None, "recovery": 4}


def test_used_scratch_code(town: Town) -> None:
    """A scratch code that the real module took out is no recovery code here."""
    alice = town.person("alice")
    used, *others = alice.set_up(*TIME_OPTIONS)
    assert peer_lets_in(town, GOOGLE_MODULE, used)
    (row,) = town.rows("--user", "alice")
    assert row["recovery_codes"] == 4
    assert [lets_in(town.root, code) for code in (used, others[0])] == [False, True]


@each_way
def test_hotp(town: Town, way: str) -> None:
    """A counter-based set-up goes on where the real module was."""
    alice = town.person("alice")
    alice.set_up(*COUNTER_OPTIONS)
    assert peer_lets_in(town, GOOGLE_MODULE, alice.code(1, is_event_based=True))
    assert '" HOTP_COUNTER 2' in alice.lines()
    (row,) = town.rows("--all-homes")
    assert (row["kind"], row["note"]) == (
        "HOTP, 6 digits", "3 codes at a time count there, 10 here",
    )  # fmt: skip
    with serving(town.root, way):
        tried = [lets_in(town.root, alice.code(step, is_event_based=True)) for step in (1, 2, 2, 9)]
    assert tried == [False, True, False, True]


def test_file_of_root_in_a_home(town: Town) -> None:
    """What the real module has written as root, by its option user=root, is imported as well."""
    alice = town.person("alice")
    alice.set_up(*TIME_OPTIONS)
    wait_for_step(12)
    module = f"{GOOGLE_MODULE} user=root no_strict_owner secret={alice.file}"
    used = alice.code()
    assert peer_lets_in(town, module, used)
    assert alice.file.stat().st_uid == 0
    assert town.results("--all-homes") == {"alice": "import"}
    assert [lets_in(town.root, code) for code in (used, alice.code(1))] == [False, True]


def test_home_of_somebody_else(town: Town) -> None:
    """Whose home is another's, as with system users in /root, does not get that one's device."""
    alice = town.person("alice").put(f'{random_base32()}\n" TOTP_AUTH\n')
    os.chown(alice.home, 0, 0)
    os.chown(alice.file, 0, 0)
    assert town.results("--all-homes") == {"alice": "left out"}


def test_one_file(town: Town) -> None:
    """A file from elsewhere, which root has, is imported for a user that is named."""
    alice = town.person("alice")
    copy = town.root.path / "copy"
    copy.write_text(f'{WEAK * 2}\n" TOTP_AUTH\n', "ascii")
    copy.chmod(0o600)
    said = town.run(str(copy), "--user", "carol")
    assert "Imported 1 devices and 0 recovery codes" in said.stdout
    wait_for_step()
    assert lets_in(town.root, code_of(WEAK * 2), user="carol")
    assert not alice.file.exists()


def test_path_template(town: Town) -> None:
    """Files that are kept outside of homes are found as the module finds them."""
    alice, bob = town.person("alice"), town.person("bob")
    folder = town.root.path / "ga"
    folder.mkdir(mode=0o700)
    for person in (alice, bob):
        person.set_up(*TIME_OPTIONS)
        person.file.rename(folder / person.user)
    template = f"{folder}/${{USER}}"
    assert town.results("--all-homes", "--path-template", template) == {
        "alice": "import", "bob": "import",
    }  # fmt: skip
    assert town.run("--all-homes", "--path-template", str(folder), check=False).returncode == 1


def test_dry_run(town: Town) -> None:
    """What would happen is shown, and nothing is changed."""
    town.person("alice").set_up(*TIME_OPTIONS)
    said = town.run("--all-homes", "--dry-run").stdout
    assert "virtual/alice/google-authenticator" in said
    assert "Would import 1 devices and 5 recovery codes" in said
    assert "nothing was changed" in said
    assert (rows_of(town.root, "list"), town.root.audit("ImportDevices")) == ({}, [])


def test_again(town: Town) -> None:
    """A second import changes nothing, and what was used since stays used."""
    alice = town.person("alice")
    scratch_codes = alice.set_up(*TIME_OPTIONS)
    town.run("--all-homes")
    wait_for_step()
    code = alice.code()
    assert [lets_in(town.root, one) for one in (code, scratch_codes[0])] == [True, True]
    before = town.root.device_file("alice").read_bytes()
    assert town.results("--all-homes") == {"alice": "already there"}
    assert town.root.device_file("alice").read_bytes() == before
    assert [lets_in(town.root, one) for one in (code, scratch_codes[0])] == [False, False]


def test_both_modules_for_a_while(town: Town) -> None:
    """What the old module accepts after the import is used up by the import before the change."""
    alice = town.person("alice")
    scratch_codes = alice.set_up(*COUNTER_OPTIONS)
    town.run("--all-homes")
    there = [alice.code(counter, is_event_based=True) for counter in (1, 2)]
    assert all(peer_lets_in(town, GOOGLE_MODULE, code) for code in (*there, scratch_codes[0]))
    (row,) = town.rows("--all-homes")
    assert (row["result"], "used up" in row["note"]) == ("already there", True)
    assert [lets_in(town.root, code) for code in (*there, scratch_codes[0])] == [False] * 3
    fresh = (alice.code(3, is_event_based=True), scratch_codes[1])
    assert [lets_in(town.root, code) for code in fresh] == [True, True]


def test_record(town: Town) -> None:
    """Each device's record names the program and the file, and no secret stands anywhere."""
    alice = town.person("alice")
    scratch_codes = alice.set_up(*TIME_OPTIONS)
    said = town.run("--all-homes").stdout
    records = town.root.audit("EnableMfaDevice")
    assert {one["detail"] for one in records} == {
        f"imported from google-authenticator, {alice.file}"
    }
    assert [one["device"]["type"] for one in records] == ["virtual", "recovery"]
    kept = [path.read_bytes() for path in (*town.root.library.rglob("*"), town.root.audit_log)
            if path.is_file()]  # fmt: skip
    data = b"".join(kept) + said.encode()
    secret = alice.lines()[0]
    seed = base64.b32decode(secret + "=" * (-len(secret) % 8))
    for word in (secret.encode(), seed, seed.hex().encode(), *map(str.encode, scratch_codes)):
        assert word not in data


@each_way
def test_weak_secret(town: Town, way: str) -> None:
    """A secret of 80 bits is left out, unless policy lets it in, and then it is marked weak."""
    alice = town.person("alice").put(f'{WEAK}\n" TOTP_AUTH\n12345678\n')
    (row,) = town.rows("--all-homes")
    assert (row["result"], "minimum_seed_bits: 80" in row["note"]) == ("left out", True)
    assert not lets_in(town.root, alice.code())
    policy = town.root.policy.read_text("utf-8")
    town.root.policy.write_text(policy.replace("bits: 112", "bits: 80"))
    (row,) = town.rows("--all-homes")
    assert (row["result"], row["note"]) == ("import", "weak: 80 bits")
    wait_for_step()
    with serving(town.root, way):
        assert [lets_in(town.root, code) for code in (alice.code(), "12345678")] == [True, True]
    weak = {row["type"]: row["weak"] for row in rows_of(town.root, "status").values()}
    assert weak == {"virtual": True, "recovery": False}


def test_deactivated_device_does_not_come_back(town: Town) -> None:
    """A lost phone that was deactivated stays so when the import is run again."""
    alice = town.person("alice")
    alice.set_up(*TIME_OPTIONS)
    town.run("--all-homes")
    town.root.command("deactivate", "alice", "--all", "--leave-none")
    (row,) = town.rows("--all-homes")
    assert (row["result"], "deactivated since" in row["note"]) == ("left out", True)
    wait_for_step()
    assert not lets_in(town.root, alice.code())


def link_to_shadow(person: Person, town: Town) -> None:
    """Have the file be a link to a file of root's."""
    target = town.root.path / "shadow"
    target.write_text(SHADOW, "ascii")
    target.chmod(0o600)
    person.file.symlink_to(target)


def link_of_directory(person: Person, town: Town) -> None:
    """Have a folder in the home be a link to a folder of root's with a sound file in it."""
    folder = town.root.path / "roots"
    folder.mkdir(mode=0o700)
    sound = folder / FILE_NAME
    sound.write_text(f'{WEAK * 2}\n" TOTP_AUTH\n', "ascii")
    sound.chmod(0o600)
    (person.home / "config").symlink_to(folder)


def hard_link(person: Person, town: Town) -> None:
    """Have the file be another name of a file of root's."""
    target = town.root.path / "roots-own"
    target.write_text(f'{WEAK * 2}\n" TOTP_AUTH\n', "ascii")
    target.chmod(0o400)
    os.link(target, person.file)


def somebody_elses(person: Person, _town: Town) -> None:
    """Have the file belong to another user."""
    person.put(f'{WEAK * 2}\n" TOTP_AUTH\n', 0o644)
    os.chown(person.file, person.uid + 1000, -1)


def fifo(person: Person, _town: Town) -> None:
    """Have the file be a fifo that nobody writes to."""
    os.mkfifo(person.file)
    os.chown(person.file, person.uid, person.uid)


def giant(person: Person, _town: Town) -> None:
    """Have the file be larger than a disk."""
    person.put(f'{WEAK * 2}\n" TOTP_AUTH\n', 0o600)
    os.truncate(person.file, 1 << 40)


def shadow_itself(person: Person, _town: Town) -> None:
    """Have the file hold what another file of root's does."""
    person.put(SHADOW)


HOSTILE = [link_to_shadow, link_of_directory, hard_link, somebody_elses, fifo, giant, shadow_itself]


@pytest.mark.parametrize("arrange", HOSTILE, ids=lambda one: one.__name__)
def test_hostile_home(town: Town, arrange: Any) -> None:  # noqa: ANN401 - one of the above
    """What a user can do in the home gives no device and no look at anything of root's."""
    arrange(town.person("alice"), town)
    bob = town.person("bob")
    bob.set_up(*TIME_OPTIONS)
    options = ["--all-homes"]
    if arrange is link_of_directory:
        (bob.home / "config").mkdir()
        bob.file.rename(bob.home / "config" / FILE_NAME)
        options += ["--path-template", f"~/config/{FILE_NAME}"]
    is_bad = arrange not in (link_of_directory, hard_link)
    done = town.run(*options, check=False)
    assert done.returncode == (1 if is_bad else 0)
    assert rows_of(town.root, "list", "alice") == {}
    results = town.results(*options, "--skip-bad")
    assert results == {
        "alice": "bad" if is_bad else "left out", "bob": "import" if is_bad else "already there",
    }  # fmt: skip
    everything = done.stdout + done.stderr + json.dumps(results)
    assert not [word for word in ("salt", "19000", WEAK) if word in everything]


def test_file_below_a_linked_folder_is_named(town: Town) -> None:
    """A file in a home that is named by itself is read with its user's rights as well."""
    alice = town.person("alice")
    link_of_directory(alice, town)
    done = town.run(str(alice.home / "config" / FILE_NAME), "--user", "alice", check=False)
    assert "cannot be opened: Permission denied" in done.stdout
    assert rows_of(town.root, "list") == {}


def test_bad_file_imports_nothing(town: Town) -> None:
    """One bad file stops the import of all, by its name, line and reason, unless it is skipped."""
    town.person("alice").put(f'{WEAK * 2}\n" TOTP_AUTH\n" WINDOW_SIZE 0\n')
    town.person("bob").set_up(*TIME_OPTIONS)
    done = town.run("--all-homes", check=False)
    assert done.returncode == 1
    assert f"alice/{FILE_NAME}, line 3: its WINDOW_SIZE is not 1 to 100" in done.stderr
    assert rows_of(town.root, "list") == {}
    assert town.results("--all-homes", "--skip-bad") == {"alice": "bad", "bob": "import"}


def test_table_is_cut(town: Town) -> None:
    """A table of many is cut, with what needs a look at its beginning, and JSON has everything."""
    for number in range(120):
        town.person(f"user{number:03d}").put(f'{random_base32()}\n" TOTP_AUTH\n')
    town.person("zoe").put(f'{WEAK}\n" TOTP_AUTH\n')
    said = town.run("--all-homes", "--dry-run").stdout.splitlines()
    assert "zoe" in said[1]
    assert "... and 21 more; all of them: --json" in said
    assert len(town.rows("--all-homes", "--dry-run")) == 121


def random_base32() -> str:
    """Return a secret as the real program makes one."""
    return base64.b32encode(secrets.token_bytes(16)).decode("ascii").rstrip("=")


def test_killed_and_gone_on(town: Town) -> None:
    """An import that is killed with SIGKILL leaves no device without its record, and goes on."""
    people = [town.person(f"user{number:04d}") for number in range(2000)]
    for person in people:
        person.put(f'{random_base32()}\n" TOTP_AUTH\n12345678\n')
    devices = town.root.library / "devices"
    process = subprocess.Popen(
        town.argv("import", "google-authenticator", "--all-homes"), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + PATIENCE
    while len(os.listdir(devices)) < 300:  # noqa: PTH208 - names alone, often
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    names = {path.stem for path in devices.glob("*.yaml")}
    assert 0 < len(names) < len(people)
    town.root.command("list")  # whose commit brings the log up to date
    town.root.command("unlock", "nobody")
    recorded = {one["user"] for one in town.root.audit("EnableMfaDevice")}
    assert names <= recorded
    results = town.results("--all-homes")
    assert {user for user, result in results.items() if result == "already there"} == names
    assert {path.stem for path in devices.glob("*.yaml")} == {person.user for person in people}
    assert not list(devices.glob("*.new"))
    wait_for_step(10)
    last = next(person for person in people if person.user not in names)
    first = next(person for person in people if person.user in names)
    for person in (first, last):
        assert [lets_in(town.root, code, user=person.user) for code in [person.code()] * 2] == [
            True, False,
        ]  # fmt: skip


def write_users_file(root: DataRoot, lines: Sequence[str]) -> Path:
    """Write a users file of pam_oath's."""
    path = root.path / "users.oath"
    path.write_text("".join(f"{line}\n" for line in lines), "ascii")
    path.chmod(0o600)
    return path


def import_oath(root: DataRoot, path: Path, *options: str) -> dict[str, str]:
    """Import a users file; return what became of each user."""
    done = root.command("import", "oath", str(path), *options, "--json")
    return {row["user"]: row["result"] for row in json.loads(done.stdout)}


@each_way
def test_users_file(town: Town, way: str) -> None:
    """Users that the real pam_oath lets in go on with the codes after those it has taken."""
    root = town.root
    seeds = {user: secrets.token_bytes(20) for user in ("alice", "bob", "carol", "dave")}
    path = write_users_file(root, [
        "# users of this host",
        f"HOTP alice - {seeds['alice'].hex()}",
        f"HOTP/T30/6 bob - {seeds['bob'].hex()}",
        f"HOTP/T30/8 carol - {seeds['carol'].hex()}",
        f"HOTP dave 1234 {seeds['dave'].hex()}",
    ])  # fmt: skip
    base32 = {user: base64.b32encode(seed).decode("ascii") for user, seed in seeds.items()}
    module = f"pam_oath.so usersfile={path} window=5"
    wait_for_step(15)
    used = {
        "alice": code_of(base32["alice"], 3, is_event_based=True),
        "bob": code_of(base32["bob"], 1),
    }
    assert [peer_lets_in(town, module, used[user], user) for user in used] == [True, True]
    before = path.read_bytes()
    assert import_oath(root, path) == {
        "alice": "import", "bob": "import", "carol": "import", "dave": "left out",
    }  # fmt: skip
    assert path.read_bytes() == before
    fresh = {
        "alice": code_of(base32["alice"], 4, is_event_based=True),
        "carol": code_of(base32["carol"], digits=8),
    }
    with serving(root, way):
        assert not any(lets_in(root, code, user=user) for user, code in used.items())
        assert all(lets_in(root, code, user=user) for user, code in fresh.items())
    assert set(import_oath(root, path).values()) == {"already there", "left out"}


def test_bad_users_file(root: DataRoot) -> None:
    """A bad line is named without quoting it and stops the import, unless it is skipped."""
    seed = secrets.token_hex(20)
    path = write_users_file(root, [f"HOTP alice - {seed}", f"HOTP {seed}"])
    done = root.command("import", "oath", str(path), check=False)
    assert (done.returncode, "users.oath, line 2: it has not the four" in done.stderr) == (1, True)
    assert seed not in done.stdout + done.stderr
    assert rows_of(root, "list") == {}
    assert import_oath(root, path, "--skip-bad") == {"": "bad", "alice": "import"}


def test_users_file_of_somebody_else(root: DataRoot) -> None:
    """A users file that a user could write gives nobody a device."""
    path = write_users_file(root, [f"HOTP root - {secrets.token_hex(20)}"])
    os.chown(path, FIRST_UID, -1)
    done = root.command("import", "oath", str(path), check=False)
    assert (done.returncode, "belongs to user id" in done.stderr) == (3, True)
    link = root.path / "link"
    link.symlink_to(path)
    os.chown(path, 0, 0)
    assert root.command("import", "oath", str(link), check=False).returncode == 3
    assert rows_of(root, "list") == {}
