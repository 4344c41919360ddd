# SPDX-License-Identifier: Apache-2.0
"""The guest's image: made once for a recipe, kept in a cache folder, never changed afterwards.

Owns the cache. What is in the image is said in `root_tree.py` and `kernel.py`.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vm.host_commands import HostError, require_programs, run_on_host
from vm.kernel import copy_modules, extract_kernel, make_initrd, unpack_kernel
from vm.root_tree import make_root_tree

CACHE_VARIABLE = "PAM_MFA_VM_CACHE"  # a folder; the default is .cache beside this file
_FOLDER = Path(__file__).resolve().parent
_RECIPE = ("host_commands.py", "image.py", "kernel.py", "root_tree.py")
_DISK_SIZE = 1024**3  # bytes, of which the unused ones take no room


class Image(NamedTuple):
    """A made image: everything that starting a guest takes."""

    folder: Path

    @property
    def kernel(self) -> Path:
        """The kernel, as QEMU loads it."""
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        """The initial file system."""
        return self.folder / "initrd"

    @property
    def disk(self) -> Path:
        """The root file system."""
        return self.folder / "disk"

    @property
    def control_key(self) -> Path:
        """The private key that opens the guest's control port."""
        return self.folder / "control_key"


def make_image() -> Image:
    """Return the image of this recipe, made now if it is not in the cache.

    Raises:
        HostError: this machine cannot make it; the text says why.
    """
    require_programs()
    given = os.environ.get(CACHE_VARIABLE)
    cache = Path(given) if given else _FOLDER / ".cache"
    cache.mkdir(parents=True, exist_ok=True)
    image = Image(cache / _recipe_hash())
    with _locked(cache):
        if not image.folder.exists():
            _build(image, cache)
            if not given:  # ours alone: images of former recipes are of no use to anybody
                _remove_others(image, cache)
    return image


def _build(image: Image, cache: Path) -> None:
    """Make the image beside its place, and put it there whole."""
    _require_possible()
    for leftover in cache.glob("draft-*"):  # of a run that was killed
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix="draft-", dir=cache) as scratch:
        draft = Image(Path(scratch, "image"))
        draft.folder.mkdir()
        _fill(draft, Path(scratch, "tree"), Path(scratch, "kernel"))
        draft.folder.rename(image.folder)


def _remove_others(image: Image, cache: Path) -> None:
    for folder in cache.iterdir():
        if folder.is_dir() and folder != image.folder:
            shutil.rmtree(folder)


def _fill(draft: Image, tree: Path, kernel_folder: Path) -> None:
    key = draft.control_key
    run_on_host(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], timeout=60)
    make_root_tree(tree, key.with_suffix(".pub").read_text())
    kernel = unpack_kernel(kernel_folder)
    copy_modules(kernel, tree)
    make_initrd(kernel, tree, draft.initrd)
    bzimage = kernel.folder / "boot" / f"vmlinuz-{kernel.release}"
    draft.kernel.write_bytes(extract_kernel(bzimage.read_bytes()))
    with draft.disk.open("wb") as disk:
        disk.truncate(_DISK_SIZE)
    # With a journal, as everywhere: without one a power cut leaves names of no files.
    run_on_host(["mke2fs", "-q", "-t", "ext4", "-d", tree, draft.disk], timeout=120)


def _require_possible() -> None:
    """Raise where no image can be made, before anything is downloaded."""
    if platform.machine() != "x86_64" or platform.freedesktop_os_release()["ID"] != "debian":
        raise HostError("the guest is made of Debian's packages for amd64, by a host's own apt")
    if os.geteuid() != 0:
        raise HostError("only root can make the guest's image: run it as root once")


def _recipe_hash() -> str:
    """Return a name for the recipe: another release or another line in it makes another image."""
    recipe = hashlib.sha256(platform.freedesktop_os_release()["VERSION_ID"].encode())
    for name in _RECIPE:
        recipe.update((_FOLDER / name).read_bytes())
    return recipe.hexdigest()[:16]


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Let one run at a time make an image; the lock ends with its process."""
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
