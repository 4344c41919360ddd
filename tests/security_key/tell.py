# SPDX-License-Identifier: Apache-2.0
"""``python3 -m security_key.tell SOCKET WORD ...``: say words to a key; see ``control``."""

import json
import sys
from pathlib import Path

from security_key.control import tell


def main() -> int:
    """Print the answer; 0 where it was done."""
    answer = tell(Path(sys.argv[1]), *sys.argv[2:])
    print(json.dumps(answer))  # noqa: T201 - a command's output
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
