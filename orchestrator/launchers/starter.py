"""Wait for the word, then become the agent's program. Run as a file; nothing of ours is imported.

Standard input gives two lines: the launch as JSON ``{argv, cwd, environment, prompt, log, errors}``
and ``go``. Without the second line the process ends: whoever reserved the agent has died or has
changed its mind, and a program that nobody recorded must not run.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # nothing is imported that is not needed: an agent waits for it
    from collections.abc import Callable

NOT_STARTED = 125
NOT_FOUND = 127
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW


def main() -> int:
    """Return an exit code; where all is well this process goes on as the agent."""
    with os.fdopen(0, "rb", buffering=0, closefd=False) as told:
        launch = json.loads(_line(told.read) or "{}")
        if _line(told.read) != b"go":
            return NOT_STARTED
    try:
        os.chdir(launch["cwd"])
        os.dup2(os.open(launch["log"], _APPEND, 0o600), 1)
        os.dup2(os.open(launch["errors"], _APPEND, 0o600), 2)
        os.dup2(os.open(launch["prompt"], os.O_RDONLY | os.O_NOFOLLOW), 0)
        os.closerange(3, 256)
        os.execvpe(launch["argv"][0], launch["argv"], launch["environment"])  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"cannot start {launch['argv'][0]}: {error}\n")
        return NOT_FOUND


def _line(read: Callable[[int], bytes]) -> bytes:
    """Read a line byte by byte: what follows it belongs to nobody, and nothing may be buffered."""
    line = b""
    while (byte := read(1)) and byte != b"\n":
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
