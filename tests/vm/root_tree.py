# SPDX-License-Identifier: Apache-2.0
"""The guest's files: the host's own Debian release by mmdebstrap, with accounts and a few units.

Owns what is installed and set in the image. The product is not in it: `product.py` puts that into
a guest that runs. Packages come from wherever the host's apt takes Debian from.
"""

import platform
from pathlib import Path

from vm.host_commands import TIED_TO_PARENT, HostError, run_on_host

HOST_NAME = "mfa-guest"
CONTROL_PORT = 2022  # of an sshd without PAM, so that no mistake in a PAM stack shuts us out
ADDRESS = "10.0.2.15/24"  # what QEMU's user network expects of its guest
PASSWORDS = {"alice": "correct horse", "bob": "fresh paint"}
ADMINISTRATORS = ("alice",)  # may use sudo
PACKAGES = (
    # The system, and what logs people in.
    *("systemd", "systemd-sysv", "udev", "dbus", "libpam-systemd", "kmod", "iproute2", "procps"),
    *("login", "passwd", "sudo", "openssh-server", "openssh-client", "python3"),
    # Who speaks to security keys, and a software key's cryptography.
    *("fido2-tools", "libpam-u2f", "pamu2fcfg", "python3-cryptography"),
    # A host program that is not root's, and the initial file system's only program.
    *("pamtester", "busybox-static"),
    # Loads AppArmor profiles; the kernel has AppArmor on by itself.
    "apparmor",
)
_UNWANTED_FILES = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
# Timers that would work behind a test's back, and mounts and modules that only cost boot time.
_MASKED_UNITS = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("fstrim.timer", "e2scrub_reap.service", "systemd-pstore.service", "systemd-binfmt.service"),
    *("proc-sys-fs-binfmt_misc.automount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount"),
    *("modprobe@drm.service", "modprobe@dm_mod.service", "modprobe@loop.service"),
    *("modprobe@efi_pstore.service", "modprobe@fuse.service", "serial-getty@.service"),
    # Debian's own profiles; and every record of the kernel's audit in the journal.
    *("apparmor.service", "systemd-journald-audit.socket"),
)
_CONTROL_SSH = "/etc/ssh/control_sshd_config"
_FILES = {
    "etc/hostname": f"{HOST_NAME}\n",
    "etc/hosts": f"127.0.0.1 localhost {HOST_NAME}\n",
    "etc/fstab": "/dev/vda / ext4 rw,noatime 0 0\n",
    "etc/sudoers.d/no-lecture": "Defaults lecture=never\n",
    # A purged package's script of debhelper's takes this folder away where it is empty.
    "etc/apparmor.d/disable/not-empty": "",
    _CONTROL_SSH[1:]: f"""\
Port {CONTROL_PORT}
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AuthorizedKeysFile /etc/ssh/control_key.pub
PidFile none
""",
    "etc/systemd/system/control-network.service": f"""\
[Unit]
Description=The tests' way to this guest: network
DefaultDependencies=no

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/modprobe virtio_net
ExecStart=/sbin/ip link set lo up
ExecStart=/sbin/ip link set eth0 up
ExecStart=/sbin/ip address add {ADDRESS} dev eth0

[Install]
WantedBy=sysinit.target
""",
    "etc/systemd/system/control-ssh.service": f"""\
[Unit]
Description=The tests' way to this guest: shell
DefaultDependencies=no
Requires=control-network.service
After=control-network.service

[Service]
ExecStartPre=/bin/mkdir -p /run/sshd
ExecStart=/usr/sbin/sshd -D -f {_CONTROL_SSH}

[Install]
WantedBy=sysinit.target
""",
}


def make_root_tree(tree: Path, control_key: str) -> None:
    """Make the guest's files in the folder `tree`, for the public key of whoever runs the tests.

    Raises:
        HostError: a package cannot be had, or the host's apt does not know this Debian.
    """
    run_on_host(["apt-get", "update", "-qq"], timeout=120)
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in _UNWANTED_FILES]
    run_on_host(
        [
            # Its processes and its mounts in the tree end with this one, however that ends.
            *TIED_TO_PARENT,
            *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
            *(f"--include={','.join(PACKAGES)}", *excluded, ""),
            tree,
            *apt_sources(),
        ],
        timeout=300,
    )
    for name, text in _FILES.items():
        (tree / name).write_text(text)
    (tree / "etc/ssh/control_key.pub").write_text(control_key)
    for unit in _MASKED_UNITS:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    _finish_inside(tree)


def _finish_inside(tree: Path) -> None:
    """Enable the units and make the accounts, by the tree's own programs."""
    _inside(tree, "systemctl", "enable", "control-network.service", "control-ssh.service")
    # Without an identity systemd would take every boot for the first one.
    _inside(tree, "systemd-machine-id-setup")
    for user in PASSWORDS:
        _inside(tree, "useradd", "--create-home", "--shell", "/bin/bash", user)
        (tree / "home" / user / ".hushlogin").touch()
    for user in ADMINISTRATORS:
        _inside(tree, "usermod", "--append", "--groups", "sudo", user)
    lines = [f"{user}:{password}\n" for user, password in PASSWORDS.items()]
    _inside(tree, "chpasswd", stdin="".join(lines))


def _inside(tree: Path, *command: str, stdin: str = "") -> None:
    run_on_host(["chroot", tree, *command], timeout=60, stdin=stdin)


def apt_sources() -> list[str]:
    """Return the host's apt sources of the distribution itself, as sources.list(5) lines.

    Other sources of the host (vendors' packages) are of no use in the guest.
    """
    fields = ("$(ORIGIN)", "$(REPO_URI)", "$(RELEASE)", "$(COMPONENT)", "$(ARCHITECTURE)")
    listed = run_on_host(
        ["apt-get", "indextargets", "--format", "\t".join(fields), "Created-By: Packages"],
        timeout=60,
    )
    rows = [line.split("\t") for line in listed.splitlines()]
    distribution = platform.freedesktop_os_release()["ID"]
    lines = [
        f"deb {uri} {release} {component}"
        for origin, uri, release, component, architecture in rows
        if origin.lower() == distribution and architecture == "amd64"
    ]
    if not lines:
        raise HostError(f"apt has no source of {distribution}: see /etc/apt/sources.list.d")
    return lines
