# SPDX-License-Identifier: Apache-2.0
"""SSH keys that live on a security key made of software: OpenSSH's own sk-dummy.

Made and judged by ssh-keygen, with the provider of Debian's package openssh-tests, so that
somebody else's program says what a key is. ``SecurityKeyProvider`` has ssh sign with it.
"""

import subprocess
from pathlib import Path

PROVIDER = Path("/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so")
TYPES = ("ed25519-sk", "ecdsa-sk")
PATIENCE = 60.0  # seconds


def make_sk_key(path: Path, kind: str = "ed25519-sk", *options: str) -> Path:
    """Make a key on the security key, its handle at ``path``; ``options`` are as for ``-O``."""
    words = [word for option in options for word in ("-O", option)]
    _keygen("-t", kind, "-w", str(PROVIDER), "-N", "", "-C", "laptop", "-f", str(path), *words)
    return path


def make_plain_key(path: Path) -> Path:
    """Make a key that lives in a file, as most do."""
    _keygen("-t", "ed25519", "-N", "", "-C", "laptop", "-f", str(path))
    return path


def certify(authority: Path, key: Path, user: str, *options: str) -> Path:
    """Have an authority sign a key for a user; return the certificate."""
    words = [word for option in options for word in ("-O", option)]
    public_key = public_half(key)
    _keygen("-s", str(authority), "-I", "laptop", "-n", user, *words, str(public_key))
    return key.with_name(f"{key.name}-cert.pub")


def public_half(key: Path) -> Path:
    """Return the path of a key's public half."""
    return key.with_name(f"{key.name}.pub")


def fingerprint_of(public_key: Path) -> str:
    """Return what ``ssh-keygen -l`` calls a key."""
    return _keygen("-l", "-f", str(public_key)).split()[1]


def _keygen(*words: str) -> str:
    done = subprocess.run(
        ["ssh-keygen", "-q", *words] if "-l" not in words else ["ssh-keygen", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return done.stdout
