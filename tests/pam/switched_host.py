# SPDX-License-Identifier: Apache-2.0
"""A data root with a host's PAM files in it, on which the installed program switches services."""

import shutil
import subprocess
from pathlib import Path

from host_tree import FILES
from installed import DataRoot

STACK = "auth [success=1 default=ignore] pam_permit.so\nauth requisite pam_deny.so\n"


class Host:
    """A data root that has a host's PAM files, too, and switches with the installed program."""

    def __init__(self, root: DataRoot) -> None:
        """Write the files."""
        self.root = root
        shutil.copytree(Path("/etc/pam.d"), root.path / "etc/pam.d", symlinks=True)
        for name, text in FILES.items():
            # libpam looks up a plain name in the machine's own directory, confdir or not.
            text_here = text.replace("@include ", f"@include {root.path}/etc/pam.d/")
            (root.path / "etc/pam.d" / name).write_text(text_here)
        # A path in a root's file is the root's own: this one is found there, too.
        (root.path / "var/tmp").mkdir()
        for place in (root.path, root.prefix.parent):
            (root.path / "var/tmp" / place.name).symlink_to(place)
        # pam_permit, for nobody has a password: what is asked beyond it is the code.
        (root.path / "etc/pam.d/common-auth").write_text(STACK)
        (root.path / "etc/passwd").write_text("nobody:x:65534:65534::/:/bin/sh\n")
        (root.path / "etc/group").write_text("sudo:x:27:nobody\n")
        root.services = root.path / "etc/pam.d"

    def switch(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run pam-mfa switch."""
        return self.root.command("switch", *words, check=check)

    def switch_on(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Switch services on without a question, by the module that is installed."""
        module = f"{self.root.prefix}/lib/security/pam_mfa.so"
        return self.switch("on", *words, "--yes", "--module", module,
                           "--argument", f"root={self.root.path}", check=check)  # fmt: skip
