"""Every common way to write a registry is found, and what only looks like one is not."""

import pytest

from backends.admin.audit.function import Names
from backends.admin.audit.project import audit
from backends.admin.audit.sites import Access

HEAD = "import json, os, shutil, asyncio\nfrom pathlib import Path\nP = 'x/AGENT_REGISTRY.json'\n"
WRITES = {
    "match": "match d:\n  case 1:\n    Path(P).write_text('')\n",
    "group": "try:\n  pass\nexcept* OSError:\n  Path(P).write_text('')\n",
    "replace": "def save(path, data):\n  os.replace('tmp', path)\nsave(P, 1)\n",
    "method": "def save(path, data):\n  Path('tmp').replace(path)\nsave(P, 1)\n",
    "unlink": "Path(P).unlink()\n",
    "rename": "Path(P).rename('b')\n",
    "remove": "os.remove(P)\n",
    "made": "class A:\n  def __init__(self, p):\n    self.p = p\n"
    "  def save(self):\n    Path(self.p).write_text('')\nA(P).save()\n",
    "class": "class A:\n  path = P\n  def save(self):\n    open(self.path, 'w').write('')\n",
    "base": "class B:\n  path = P\nclass A(B):\n  def s(self):\n"
    "    open(self.path, 'w').write('')\n",
    "inner": "class A:\n  path = P\n  def s(self):\n    def t():\n"
    "      open(self.path, 'w').write('')\n    t()\n",
    "property": "class A:\n  @property\n  def path(self):\n    return P\n"
    "  def s(self):\n    open(self.path, 'w').write('')\n",
    "static": "class A:\n  @staticmethod\n  def s(p):\n    open(p, 'w').write('')\nA.s(P)\n",
    "default": "def save(d, path=P):\n  open(path, 'w').write(d)\n",
    "keyword default": "def save(d, *, path=P):\n  open(path, 'w').write(d)\n",
    "thread": "def save(p, d):\n  open(p, 'w').write(d)\nasync def f():\n"
    "  await asyncio.to_thread(save, P, 1)\n",
    "handle": "def put(h, d):\n  json.dump(d, h)\nwith open(P, 'w') as f:\n  put(f, 1)\n",
    "handle write": "def put(h, d):\n  h.write(d)\nwith open(P, 'w') as f:\n  put(h=f, d=1)\n",
    "keywords": "with open(file=P, mode='w') as h:\n  json.dump(obj={}, fp=h)\n",
    "mode": "def f(mode):\n  with open(P, mode) as h:\n    h.write('')\n",
    "os.open": "with os.fdopen(os.open(P, os.O_WRONLY), 'w') as h:\n  h.write('')\n",
    "print": "with open(P, 'w') as h:\n  print('x', file=h)\n",
    "format": "Path('{}/AGENT_REGISTRY.json'.format(1)).write_text('')\n",
    "added": "def f(d):\n  d += '/AGENT_REGISTRY.json'\n  Path(d).write_text('')\n",
    "table": "PATHS = {'a': P}\nPath(PATHS['a']).write_text('')\n",
    "walrus": "if (q := Path(P)):\n  q.write_text('')\n",
    "lock kept": "def lock():\n  return LockedRegistryFile(P)\n"
    "with lock() as (r, h):\n  h.write('')\n",
    "lock handed on": "def put(h, r):\n  json.dump(r, h)\n"
    "with LockedRegistryFile(P) as (r, h):\n  put(h, r)\n",
    "lock object": "with LockedRegistryFile(P) as t:\n  t.store(1)\n",
    "alias": "from json import dump as w\nwith open(P, 'w') as h:\n  w({}, h)\n",
    "lock alias": "from x import LockedRegistryFile as L\nwith L(P) as (r, h):\n  h.write('')\n",
}
READS = {
    "bytes": "json.loads(Path(P).read_bytes().decode())\n",
    "keyword": "with open(P) as h:\n  json.load(fp=h)\n",
    "two locks": "with LockedRegistryFile(P) as (a, _), LockedRegistryFile(P) as (b, _): pass\n",
}
NOTHING = {
    "text": "def f(t):\n  return t.replace('/AGENT_REGISTRY.json', '')\n",
    "list": "def f(names):\n  names.remove('AGENT_REGISTRY.json')\n",
    "text of three": "def f(text):\n  return text.replace('a', 'AGENT_REGISTRY.json', 1)\n",
    "local": "def f(c):\n  if c:\n    P = other()\n  open(P, 'w').write('')\n",
    "message": "print(f'see {1}/AGENT_REGISTRY.json')\n",
    "deep": "x = " + " + ".join(["'a'"] * 600) + "\n",
    "chain": "if a: pass\n" + "elif a: pass\n" * 400,
    "nested calls": "x = []\n" + "a[" * 40 + "0" + "].append(P)" * 0 + "]" * 40 + "\n",
}


def sites(tmp_path, text):
    (tmp_path / "app.py").write_text(HEAD + text)
    found = audit(tmp_path, Names())
    assert found.unreadable == {}
    return found.sites


@pytest.mark.parametrize("form", WRITES)
def test_a_write_is_found(tmp_path, form):
    """Through each construct of the language that a path or a handle may go."""
    assert [s for s in sites(tmp_path, WRITES[form]) if s.access is Access.WRITE]


@pytest.mark.parametrize("form", READS)
def test_a_read_is_found(tmp_path, form):
    """Two on one line are two."""
    found = [s for s in sites(tmp_path, READS[form]) if s.access is Access.READ]
    assert len(found) == (2 if form == "two locks" else 1)


@pytest.mark.parametrize("form", NOTHING)
def test_what_is_none_is_not_named(tmp_path, form):
    """A text that holds the name, a name that is bound here, programs of any shape."""
    assert [s for s in sites(tmp_path, NOTHING[form]) if s.access is not Access.NONE] == []


def test_imported_names_are_followed(tmp_path):
    """As another name, as a module's, as a class's; a name that is not imported is not."""
    (tmp_path / "config.py").write_text(
        "REG = 'x/AGENT_REGISTRY.json'\nclass Paths:\n  REG = 'x/GLOBAL_REGISTRY.json'\n"
    )
    (tmp_path / "app.py").write_text(
        "import config\nfrom config import REG as R, Paths\nopen(R, 'w').write('')\n"
        "open(config.REG, 'w').write('')\nopen(Paths.REG, 'w').write('')\n"
    )
    (tmp_path / "other.py").write_text("open(REG, 'w').write('')\n")
    found = [(s.file, s.line) for s in audit(tmp_path, Names()).sites]
    assert found == [("app.py", 3), ("app.py", 4), ("app.py", 5)]


def test_odd_files_end_no_audit(tmp_path):
    """A pipe and a link are left out, an editor's lock too; what cannot be parsed is named."""
    import os

    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "link.py").symlink_to("/dev/zero")
    (tmp_path / ".#edit.py").symlink_to("nobody@nowhere.1")
    (tmp_path / "minus.py").write_text("-" * 20000 + "1")
    (tmp_path / "lists.py").write_text("x = " + "f(" * 150 + ")" * 150)
    found = audit(tmp_path, Names())
    assert (found.files, set(found.unreadable)) == (2, {"minus.py"})


def test_work_follows_the_length_of_a_program(tmp_path):
    """A call within a subscript within a call is evaluated once."""
    text = "P"
    for _ in range(40):
        text = f"a[x.append({text})].append(P)"
    (tmp_path / "app.py").write_text(HEAD + text)
    audit(tmp_path, Names())
