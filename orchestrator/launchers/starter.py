"""Wait for the word, then become the agent's program. Run as a file; nothing of ours is imported.

Standard input gives two lines: the launch as JSON ``{argv, environment, files}`` and ``go``.
Without the second line the process ends: whoever reserved the agent has died or has changed its
mind, and a program that nobody recorded must not run. ``files`` are inherited descriptors of the
prompt, the log, the log of errors and the working directory: no path is looked up again.
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


def main() -> int:
    """Return an exit code; where all is well this process goes on as the agent."""
    with os.fdopen(0, "rb", buffering=0, closefd=False) as told:
        launch = json.loads(_line(told.read) or "{}")
        if _line(told.read) != b"go":
            return NOT_STARTED
    prompt, log, errors, folder = launch["files"]
    try:
        os.fchdir(folder)
        for descriptor, standard in ((prompt, 0), (log, 1), (errors, 2)):
            os.dup2(descriptor, standard)
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
