# SPDX-License-Identifier: Apache-2.0
"""The example role for Ansible, run by ansible-playbook in a fresh root, twice."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from installed import PERIOD, REPOSITORY, new_secret, totp, wait_for_step

from package.fresh_root import PATIENCE, FreshRoot

EXAMPLE = REPOSITORY / "config/ansible"
PLAYBOOK = """
- hosts: all
  roles:
    - role: pam_mfa
      vars:
        pam_mfa_package: /play/pam-mfa.deb
        pam_mfa_fragments:
          10-guests: |
            rules:
              - name: guests
                match: {user: [guest]}
                then: deny
"""
COMMAND = (
    *("ansible-playbook", "--inventory", "localhost,", "--connection", "local"),
    *("--vault-password-file", "/play/password", "--extra-vars", "@/play/vault.yml"),
    *("--extra-vars", "ansible_python_interpreter=/usr/bin/python3", "/play/play.yml"),
)


def prepare(root: FreshRoot, package: Path, secret: str) -> None:
    """Put the role, the package, a playbook and an encrypted vault into a root."""
    play = root.path / "play"
    shutil.copytree(EXAMPLE, play)
    shutil.copyfile(package, play / "pam-mfa.deb")
    (play / "play.yml").write_text(PLAYBOOK)
    (play / "password").write_text("vault password\n")
    vault = play / "vault.yml"
    vault.write_text(json.dumps({"pam_mfa_virtual_devices": {"root": secret}}))
    root.shown = [Path(sys.prefix)]
    program = f"{sys.prefix}/bin/ansible-vault"
    root.run(program, "encrypt", "--vault-password-file", "/play/password", "/play/vault.yml")
    assert secret not in vault.read_text()


def play(root: FreshRoot) -> tuple[dict[str, int], str]:
    """Run the playbook; return its recap and everything it printed."""
    done = root.run(f"{sys.prefix}/bin/{COMMAND[0]}", *COMMAND[1:], check=False)
    recap = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", done.stdout)}
    assert done.returncode == 0, done.stdout + done.stderr
    return recap, done.stdout + done.stderr


def test_syntax_of_the_example() -> None:
    """The example playbook with its role is one that Ansible takes."""
    done = subprocess.run(
        [f"{sys.prefix}/bin/ansible-playbook", "--syntax-check", "--inventory", "localhost,",
         EXAMPLE / "site.yml"],
        capture_output=True, text=True, check=False, timeout=PATIENCE,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_role_twice(base: Path, package: Path) -> None:
    """It installs, sets the policy, and enrolls from a vault; the second run changes nothing."""
    root = FreshRoot(base)
    try:
        wait_for_step(PERIOD / 3)
        secret = new_secret()
        prepare(root, package, secret)
        recap, told = play(root)
        assert recap["changed"] > 0
        assert secret not in told
        rows = json.loads(root.run("pam-mfa", "list", "--json").stdout)
        assert [(row["user"], row["name"]) for row in rows] == [("root", "phone")]
        explained = root.run("pam-mfa", "policy", "explain", "guest", "--service", "sshd").stdout
        assert "guests" in explained
        files = root.files("etc")
        recap, _ = play(root)
        assert (recap["changed"], recap["failed"]) == (0, 0)
        assert root.files("etc") == files
        root.write_service()
        wait_for_step()
        assert root.try_login("root", totp(secret, 1)) == 0
    finally:
        root.remove()
