from xml.etree import ElementTree as ET

import pytest

from tests.docs import terminal


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    terminal.write(folder := tmp_path_factory.mktemp("pictures"))
    return folder


@pytest.mark.parametrize("name", terminal.COMMANDS)
def test_a_picture_shows_what_the_command_prints(drawn, name):
    """Text in place of a picture of text, no path of this machine, and nothing from another host.
    The picture in the docs is of the same command."""
    text = " ".join(ET.parse(drawn / f"{name}.svg").getroot().itertext())
    words = text.replace("\xa0", " ")
    assert "builder-1" in words or name != "top"
    assert "TASK-20261201" in words or name != "tasks"
    assert "2 agents are working on 1 task" in words or name != "status"
    svg = (drawn / f"{name}.svg").read_text()
    assert "/tmp" not in svg
    assert svg.count("http") == 1  # the name space
    kept = (terminal.PICTURES / f"{name}.svg").read_text().replace("&#160;", " ")
    assert " ".join(terminal.COMMANDS[name]) in kept
