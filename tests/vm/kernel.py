# SPDX-License-Identifier: Apache-2.0
"""The guest's kernel: Debian's own, unpacked and not installed, with the few modules it needs.

Owns the list of modules and the initial file system, which only finds and mounts the disk, and
starts what `init=` names there, as Debian's own does.
"""

import lzma
import re
import shutil
import struct
from pathlib import Path
from typing import NamedTuple

from vm.host_commands import HostError, run_on_host

METAPACKAGE = "linux-image-amd64"
_DISK_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
_MODULES = (
    *_DISK_MODULES,
    *("virtio_net", "autofs4", "configfs"),
    # Keys: a HID device made by a program, and a USB device behind a host controller of software.
    *("uhid", "hid_generic", "usbhid", "dummy_hcd", "libcomposite", "usb_f_hid"),
)
_XZ_MAGIC = b"\xfd7zXZ\x00"
_ELF_MAGIC = b"\x7fELF"
_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
for module in /modules/*; do /bin/busybox insmod "$module"; done
until [ -b /dev/vda ]; do /bin/busybox usleep 10000; done
mode=rw init=/sbin/init
for word in $(/bin/busybox cat /proc/cmdline); do
  case $word in ro) mode=ro ;; init=*) init=${word#init=} ;; esac
done
/bin/busybox mount -t ext4 -o "$mode,noatime" /dev/vda /root
for place in dev proc sys; do /bin/busybox mount --move "/$place" "/root/$place"; done
exec /bin/busybox switch_root /root "$init"
"""


class Kernel(NamedTuple):
    """A kernel package, unpacked."""

    folder: Path
    release: str


def unpack_kernel(folder: Path) -> Kernel:
    """Download the kernel's package and unpack it below `folder`.

    Raises:
        HostError: apt does not have it.
    """
    folder.mkdir()
    depends = run_on_host(["apt-cache", "depends", METAPACKAGE], timeout=60)
    found = re.search(r"Depends: linux-image-(\S+)", depends)
    if found is None:
        raise HostError(f"apt knows no package {METAPACKAGE}")
    release = found[1]
    run_on_host(["apt-get", "download", "-qq", f"linux-image-{release}"], timeout=300, cwd=folder)
    (package,) = folder.glob("*.deb")
    run_on_host(["dpkg-deb", "--extract", package, folder], timeout=120)
    if not (folder / "lib").exists():  # what modprobe and depmod expect
        (folder / "lib").symlink_to("usr/lib")
    run_on_host(["depmod", "--basedir", folder, release], timeout=120)
    return Kernel(folder, release)


def extract_kernel(image: bytes) -> bytes:
    """Return the ELF kernel inside a bzImage, or the image itself where it is packed otherwise.

    Without hardware virtualization it is the unpacking that takes most of a kernel's start.
    Offsets are those of the kernel's Documentation/arch/x86/boot.rst.
    """
    setup_size = (image[0x1F1] + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[setup_size + offset : setup_size + offset + length]
    if not payload.startswith(_XZ_MAGIC):
        return image
    kernel = lzma.LZMADecompressor().decompress(payload)
    return kernel if kernel.startswith(_ELF_MAGIC) else image


def copy_modules(kernel: Kernel, tree: Path) -> None:
    """Put the modules, and those they need, into the guest's files."""
    source = kernel.folder / "lib/modules" / kernel.release
    target = tree / "usr/lib/modules" / kernel.release
    for module in _needed_modules(kernel, _MODULES):
        copy = target / module.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, copy)
    for index in source.glob("modules.[bo]*"):  # modules.builtin* and modules.order
        shutil.copyfile(index, target / index.name)
    run_on_host(["depmod", "--basedir", tree, kernel.release], timeout=60)


def make_initrd(kernel: Kernel, tree: Path, initrd: Path) -> None:
    """Make the initial file system, with busybox out of the guest's files."""
    folder = kernel.folder / "initrd"
    for name in ("bin", "dev", "modules", "proc", "root", "sys"):
        (folder / name).mkdir(parents=True)
    shutil.copy(tree / "usr/bin/busybox", folder / "bin/busybox")
    (folder / "init").write_text(_INIT)
    (folder / "init").chmod(0o755)
    for number, module in enumerate(_needed_modules(kernel, _DISK_MODULES)):
        copy = folder / "modules" / f"{number:02}-{module.name}"
        content = module.read_bytes()
        copy.write_bytes(lzma.decompress(content) if module.suffix == ".xz" else content)
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))]
    run_on_host(
        ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0", "--file", initrd],
        timeout=60,
        cwd=folder,
        stdin="\n".join([*names, ""]),
    )


def _needed_modules(kernel: Kernel, names: tuple[str, ...]) -> list[Path]:
    """Return these modules' files and those that they need, in the order of loading."""
    listed = run_on_host(
        [
            *("modprobe", "--config", "/dev/null", "--dirname", kernel.folder),
            *("--set-version", kernel.release, "--all", "--show-depends", *names),
        ],
        timeout=60,
    )
    lines = dict.fromkeys(listed.splitlines())
    return [Path(line.split()[1]) for line in lines if line.startswith("insmod ")]
