# SPDX-License-Identifier: Apache-2.0
"""Policy files on disk."""

import os
from pathlib import Path

from pam_mfa.document import SIZE_MAX
from pam_mfa.errors import UnsafeFileError
from pam_mfa.policy import Policy, parse_policy
from pam_mfa.store.files import read_file

_WRITABLE_BY_OTHERS = 0o022


def read_policy(path: Path) -> Policy:
    """Read a policy file that only its owner can write.

    Raises:
        UnsafeFileError: there is none, or somebody else may have written it.
        DocumentError: its content is wrong; the text names the line and the key.
    """
    owners = {0, os.geteuid()}
    try:
        data = read_file(path, owners=owners, forbidden=_WRITABLE_BY_OTHERS, size_max=SIZE_MAX)
    except FileNotFoundError as error:
        raise UnsafeFileError(
            f"there is no {path}", hint="The installation has one in share/policy.yaml."
        ) from error
    return parse_policy(data, str(path))
