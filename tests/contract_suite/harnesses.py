"""A harness as the author of a store would bring it."""

import os
from pathlib import Path

from contract_tests.harness import Harness


class Elsewhere(Harness):
    """A file in a folder that has to be made first; notes what was made and taken away."""

    def note(self, what):
        with Path(os.environ["HARNESS_NOTES"]).open("a") as file:
            file.write(f"{what} {self.workspace}\n")

    def set_up(self):
        (self.workspace / "server").mkdir()
        self.note("made")

    def tear_down(self):
        (self.workspace / "server").rename(self.workspace / "gone")
        self.note("gone")

    def environment(self):
        return {"REGISTRY_BACKEND": f"sqlite://{self.workspace}/server/{self.name}.sqlite3"}


class NoHarness:
    """Something else."""
