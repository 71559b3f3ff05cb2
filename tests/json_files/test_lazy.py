"""A part made on first use: kept, and made without a lock that a forked child would inherit."""

import os
import threading
import time
import warnings

from backends.json_files.lazy import lazy


class Whole:
    made = 0
    making, go_on = threading.Event(), threading.Event()

    @lazy
    def part(self):
        """A part."""
        type(self).made += 1
        return object()

    @lazy
    def slow(self):
        self.making.set()
        self.go_on.wait(20)
        return 1


def test_a_part_is_made_once_and_again_after_it_was_dropped():
    whole, before = Whole(), Whole.made
    first = whole.part
    assert whole.part is first
    del whole.part
    assert whole.part is not first
    assert Whole.made == before + 2
    assert Whole.part.__doc__ == "A part."


def test_a_forked_child_does_not_wait_for_a_part_that_a_thread_was_making():
    maker = threading.Thread(target=lambda: Whole().slow)
    maker.start()
    assert Whole.making.wait(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        child = os.fork()
    if not child:
        Whole.making = Whole.go_on = threading.Event()  # those of the parent may be held
        Whole.go_on.set()
        os._exit(0 if Whole().slow == 1 else 1)
    deadline, ended = time.monotonic() + 20, 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    Whole.go_on.set()
    maker.join()
    if not ended:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended == child
    assert os.waitstatus_to_exitcode(status) == 0
