"""A harness such as the author of a store would write."""

import os
from pathlib import Path

from contract_tests.harness import Harness


class Elsewhere(Harness):
    """A store in a folder that must be created first; notes each ``set_up`` and ``tear_down``."""

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
    """A class that does not derive from Harness."""
