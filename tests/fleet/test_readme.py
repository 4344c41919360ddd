# SPDX-License-Identifier: Apache-2.0
"""The README's page on many servers, followed word for word, up to logins by real PAM."""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from authenticator import enroll
from database import Database, run, running_database
from host_program import Status, attempt
from installed import REPOSITORY, DataRoot
from serving import DAEMON, ON_DEMAND, serving

from pam_mfa.policy import Offline, parse_store

ROLES = ("web_host", "mfa_desk")  # by the page
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Page(NamedTuple):
    """What the page has one type in, in its order."""

    on_server: str  # commands for the database's owner
    access: str  # for pg_hba.conf
    policy: str
    commands: str  # on an administrators' host


def read_page() -> Page:
    """Return the page's blocks."""
    text = (REPOSITORY / "README.md").read_text("utf-8")
    section = text.partition("## Many servers\n")[2].partition("\n## ")[0]
    blocks = [match[2] for match in _FENCE.finditer(section)]
    beginnings = ("createdb ", "hostssl ", "store:\n", "pam-mfa store status")
    return Page(*(next(one for one in blocks if one.startswith(begin)) for begin in beginnings))


@pytest.fixture
def server(page_server: Database) -> Database:
    """Give that database with nobody in it."""
    page_server.empty()
    return page_server


@pytest.fixture(scope="module")
def page_server(prefix: Path) -> Iterator[Database]:
    """Give a database that was set up by the page's own commands."""
    page = read_page()
    with running_database(ROLES) as database:
        path = f"{prefix}/bin:/usr/bin:/bin"
        run(
            "env", f"PGHOST={database.folder}", f"PGPORT={database.port}", f"PATH={path}",
            "sh", "-e", "-c", page.on_server,
        )  # fmt: skip
        access = page.access.replace("10.0.0.0/8", "127.0.0.0/8")
        (database.data / "pg_hba.conf").write_text(f"local all all trust\n{access}", "ascii")
        database.stop()
        database.start()
        database.name = "pam_mfa"
        yield database


def join_fleet(root: DataRoot, database: Database, *, is_desk: bool) -> None:
    """Write the page's policy for a host, and put its certificates where that says."""
    folder = root.policy.parent / "fleet"
    folder.mkdir()
    names = {"ca": "ca", "host": "web_host", "desk": "mfa_desk"}
    owner = pwd.getpwnam("pam-mfa")
    for name, source in names.items():
        for suffix in ("crt", "key") if name != "ca" else ("crt",):
            file = folder / f"{name}.{suffix}"
            shutil.copyfile(database.folder / f"{source}.{suffix}", file)
            file.chmod(0o600)
            os.chown(file, owner.pw_uid, owner.pw_gid)
    words = read_page().policy.replace("/etc/pam_mfa/fleet", str(folder))
    words = words.replace("db1.example,db2.example", f"localhost:{database.port}")
    if not is_desk:
        words = words.partition("  administrator:")[0]
    with root.policy.open("a", encoding="utf-8") as policy:
        policy.write(f"\n{words}")


def copy_key(source: DataRoot, target: DataRoot) -> None:
    """Copy the fleet's key to another host, as the page says."""
    subprocess.run(
        ["cp", "--preserve=all", source.library / "seal.key", target.library / "seal.key"],
        check=True,
    )


def test_page_from_the_first_command_to_a_login(
    server: Database, root: DataRoot, prefix: Path
) -> None:
    """A device that is enabled on one host lets in once, by a daemon and on demand, at others."""
    hosts = [DataRoot(prefix) for _ in range(2)]
    try:
        join_fleet(root, server, is_desk=True)
        for host in hosts:
            join_fleet(host, server, is_desk=False)
        assert "has no seal key yet" in hosts[0].command("store", "status", check=False).stderr
        phone = enroll(root, "alice")
        for host in hosts:
            copy_key(root, host)
        commands = read_page().commands.splitlines()
        assert commands[0].startswith("pam-mfa store status")
        assert (
            "fleet production, as the role web_host" in hosts[0].command("store", "status").stdout
        )
        code = phone.code()
        with serving(hosts[0], DAEMON):
            first = attempt(hosts[0], "alice", code)
            again = attempt(hosts[0], "alice", code, code, code)
        with serving(hosts[1], ON_DEMAND):
            elsewhere = attempt(hosts[1], "alice", code, code, code)
            later = attempt(hosts[1], "alice", phone.code(1))
        assert [first.status, again.status, elsewhere.status, later.status] == [
            Status.SUCCESS, Status.AUTH_ERR, Status.AUTH_ERR, Status.SUCCESS,
        ]  # fmt: skip
        assert hosts[1].reasons()[0] == "code_reused"
        assert not any((host.library / "devices/alice.yaml").exists() for host in (root, *hosts))
        assert "alice" in root.command("status", "alice").stdout
    finally:
        for host in hosts:
            host.remove()


def test_host_whose_database_is_gone(server: Database, root: DataRoot) -> None:
    """While the database is down nobody is in, and every command says why; then all is well."""
    join_fleet(root, server, is_desk=True)
    shutil.rmtree(root.library / "devices")
    phone = enroll(root, "bob")
    server.stop()
    try:
        status = root.command("store", "status", check=False)
        listing = root.command("list", "bob", check=False)
        examined = root.command("doctor", check=False).stdout
        refused = [attempt(root, "bob", phone.code()).status]
        with serving(root, DAEMON):
            refused.append(attempt(root, "bob", phone.code()).status)
    finally:
        server.start()
    assert "fault   fleet: the database pam_mfa at localhost" in examined
    assert (status.returncode, listing.returncode) == (3, 3)
    assert "the database pam_mfa at localhost" in status.stderr
    assert refused == [Status.AUTHINFO_UNAVAIL] * 2
    assert attempt(root, "bob", phone.code()).status == Status.SUCCESS
    assert "pam_mfa at localhost answers in" in root.command("doctor", check=False).stdout
    assert "in the database of a fleet" in root.command().stdout


def test_what_a_host_may_do_without_its_database() -> None:
    """What the page says of hosts that are cut off is what a policy can say."""
    text = (REPOSITORY / "README.md").read_text("utf-8")
    (more,) = (match[2] for match in _FENCE.finditer(text) if "  offline:" in match[2])
    policy = f"{read_page().policy}{more.removeprefix('store:')}"
    rules = parse_store(policy.encode(), "policy.yaml")
    assert rules.offline == Offline(("fido", "ssh-key"), 86400.0, ("alice", "bob"))
