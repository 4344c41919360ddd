# SPDX-License-Identifier: Apache-2.0
"""Writes the completion of ``pam-mfa`` for bash, zsh and fish, as click makes it.

``write_scripts.py LIBRARY DIRECTORY``: the packages that ``pam_mfa`` needs, and the
directory share. The scripts ask the program itself, so they know each command that it has.
"""

import sys
from pathlib import Path

NAME = "pam-mfa"
PLACES = {
    "bash": f"bash-completion/completions/{NAME}",
    "zsh": f"zsh/vendor-completions/_{NAME}",
    "fish": f"fish/vendor_completions.d/{NAME}.fish",
}


def main(library: str, target: str) -> None:
    """Write each shell's file into the place where the shell looks for it."""
    sys.path.insert(0, library)
    for shell, place in PLACES.items():
        path = Path(target, place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script(shell), "ascii")


def script(shell: str) -> str:
    """Return a shell's completion script."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - see main()

    from pam_mfa.cli.__main__ import commands  # noqa: PLC0415

    completion = get_completion_class(shell)
    if completion is None:
        raise LookupError(f"click knows no completion for {shell}")
    made = completion(commands, {}, NAME, "_PAM_MFA_COMPLETE")
    # Not made.source(): for bash that runs the building machine's bash, to ask for its version.
    return made.source_template % made.source_vars()


if __name__ == "__main__":
    main(*sys.argv[1:])
