# SPDX-License-Identifier: Apache-2.0
"""A root with PAM files as distributions ship them, for switches that need no root."""

from pathlib import Path

from pam_mfa.host import pam_reader
from pam_mfa.store.layout import Layout
from pam_mfa.switching.plan import Options, Plan, make_plan
from pam_mfa.switching.stacks import Wish, protect

MODULE = "pam_mfa.so"
FILES = {
    "common-auth": "auth [success=1 default=ignore] pam_unix.so nullok\n"
    "auth requisite pam_deny.so\nauth required pam_permit.so\n",
    "common-account": "account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\n"
    "account requisite pam_deny.so\naccount required pam_permit.so\n",
    "common-session": "session [default=1] pam_permit.so\nsession requisite pam_deny.so\n"
    "session required pam_permit.so\nsession required pam_unix.so\n",
    "common-password": "password required pam_unix.so\n",
    "other": "@include common-auth\n@include common-account\n",
    "sudo": "#%PAM-1.0\n\nsession    required   pam_limits.so\n\n@include common-auth\n"
    "@include common-account\n@include common-session\n",
    "login": "auth optional pam_faildelay.so delay=3000000\nauth requisite pam_nologin.so\n"
    "session required pam_loginuid.so\nsession required pam_env.so readenv=1\n"
    "@include common-auth\nauth optional pam_group.so\n@include common-account\n"
    "@include common-session\n@include common-password\n",
    "su": "auth       sufficient pam_rootok.so\n@include common-auth\n@include common-account\n"
    "@include common-session\n",
    "su-l": "auth include su\naccount include su\npassword include su\nsession include su\n",
    "sshd": "@include common-auth\naccount    required     pam_nologin.so\n"
    "@include common-account\nsession    required     pam_loginuid.so\n"
    "@include common-session\nsession    required     pam_env.so # [1]\n"
    "session    required     pam_env.so user_readenv=1 envfile=/etc/default/locale\n"
    "@include common-password\n",
    # Fedora's manner
    "system-auth": "auth required pam_env.so\nauth sufficient pam_unix.so nullok\n"
    "auth required pam_deny.so\naccount required pam_unix.so\nsession required pam_limits.so\n",
}
SSHD_CONFIG = "Include /etc/ssh/sshd_config.d/*.conf\nKbdInteractiveAuthentication no\nUsePAM yes\n"


class HostTree:
    """A host's files under a directory."""

    def __init__(self, root: Path) -> None:
        """Write them."""
        self.root = root
        self.layout = Layout(root)
        self.services = root / "etc/pam.d"
        self.services.mkdir(parents=True)
        for name, text in FILES.items():
            (self.services / name).write_text(text)
        self.drop_ins = root / "etc/ssh/sshd_config.d"
        self.drop_ins.mkdir(parents=True)
        (root / "etc/ssh/sshd_config").write_text(SSHD_CONFIG)
        self.layout.policy.parent.mkdir()
        modules = root / "usr/lib/x/security"
        modules.mkdir(parents=True)
        (modules / MODULE).write_bytes(b"\x7fELF")

    def plan(self, *services: str, options: Options | None = None) -> Plan:
        """Plan a switch."""
        return make_plan(self.root, services, (), options or Options())

    def snapshot(self) -> dict[str, tuple[bytes, int]]:
        """Return every file under /etc with its content and mode."""
        return snapshot(self.root)

    def service(self, name: str) -> str:
        """Return a service's file."""
        return (self.services / name).read_text()

    def protect(self, name: str, text: str, *phases: str, replaces_password: bool = False) -> str:
        """Return a service's text with the module's lines."""
        wish = Wish(name, MODULE, phases or ("auth",), replaces_password)
        return protect(text, wish, pam_reader(self.root))


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file under a root's /etc with its content and mode."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode)
        for path in sorted((root / "etc").rglob("*"))
        if path.is_file()
    }
