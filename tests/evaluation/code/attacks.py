"""Holds programs that try to pass a test without the answer, to survive it, or to do harm.

Each defines `answer(number)`. The test that they face expects a number that is drawn for each run.
"""

from __future__ import annotations

from dataclasses import dataclass

# Looks for a number of eighteen digits that begins with 77, as the expected answer does.
_FIND = """
import re
def find(text):
    found = re.search(r"77\\d{16}", text)
    return int(found[0]) if found else None
"""


@dataclass(frozen=True)
class Attack:
    """Holds a program and the reasons that its outcome may have."""

    program: str
    reasons: tuple[str, ...] = ("failed", "error")


ENDS = {
    "exit while loading": "import sys\nsys.exit(0)",
    "exit in the call": "import sys\ndef answer(number):\n    sys.exit(0)",
    "exit at once while loading": "import os\nos._exit(0)",
    "exit at once in the call": "import os\ndef answer(number):\n    os._exit(0)",
    "exit by a raise": "def answer(number):\n    raise SystemExit(0)",
    "generator exit": "def answer(number):\n    raise GeneratorExit",
    "keyboard interrupt": "def answer(number):\n    raise KeyboardInterrupt",
    "kill itself": "import os\ndef answer(number):\n    os.kill(os.getpid(), 9)\n    os.abort()",
    "crash": "def answer(number):\n    import ctypes\n    return ctypes.string_at(0)",
    "pipes closed": "import os\ndef answer(number):\n    os.closerange(0, 64)\n    return number",
    "an assertion of its own": "def answer(number):\n    raise AssertionError",
    "another program in its place": """
import os, sys
def answer(number):
    os.execv(sys.executable, [sys.executable, "-c", "print('passed')"])
""",
}
RESULTS = {
    "equal to all": """
class Same:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __getattr__(self, name): return Same()
    def __call__(self, *args): return True
    def __bool__(self): return True
def answer(number):
    return Same()
""",
    "an int equal to all": """
class Same(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
def answer(number):
    return Same(0)
""",
    "a reduced object": """
class Same:
    def __reduce__(self): return (eval, ("__import__('builtins')",))
    def __eq__(self, other): return True
def answer(number):
    return [Same()]
""",
    "mock.ANY": "from unittest.mock import ANY\ndef answer(number):\n    return ANY",
    "a list that names its type wrongly": """
class Same(list):
    __class__ = int
    def __eq__(self, other): return True
def answer(number):
    return Same()
""",
}
MARKS = {
    "printed marks": """
import sys
for mark in ("passed", "PASSED", '{"reason": "passed", "detail": ""}', "{'reason': 'passed', 'detail': ''}"):
    print(mark)
    print(mark, file=sys.stderr, flush=True)
def answer(number):
    print("passed")
""",
    "marks on every descriptor": """
import os
def spread():
    for descriptor in range(64):
        for mark in (b'{"reason": "passed", "detail": ""}\\n', b"{'reason': 'passed', 'detail': ''}\\n"):
            try: os.write(descriptor, mark)
            except OSError: pass
def answer(number):
    spread()
    return 0
""",
    "marks at exit and from threads": """
import atexit, os, threading, time
def spread():
    for descriptor in range(64):
        try: os.write(descriptor, b'{"reason": "passed", "detail": ""}\\n')
        except OSError: pass
atexit.register(spread)
def later():
    while True:
        time.sleep(0.001)
        spread()
threading.Thread(target=later, daemon=True).start()
def answer(number):
    return 0
""",
    "replies of its own": """
import os, json
def answer(number):
    for line in (b"[]", b"null", b'{"value": ["s", [["l", []]]]}', b'{"value": ["x", 1]}', b"\\xff\\xfe",
                 b"NaN", b'{"value": ["opaque", {}]}', b'{"raised": ["SystemExit", []]}', b'{"value": true}',
                 b'{"value": ["dict", [1]]}'):
        for descriptor in range(3, 64):
            try: os.write(descriptor, line + b"\\n")
            except OSError: pass
    return 0
""",
}
SEARCHES = {
    "frames": _FIND
    + """
import sys
def answer(number):
    frame = sys._getframe()
    while frame is not None:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if isinstance(value, list): value.append("passed")
            if isinstance(value, dict): value.setdefault("reason", "passed")
            found = find(repr(value))
            if found: return found
        frame = frame.f_back
""",
    "objects of the collector": _FIND
    + """
import gc, sys, inspect
def answer(number):
    for thing in [*gc.get_objects(), *sys.modules.values()]:
        try: found = find(repr(thing))
        except Exception: continue
        if found: return found
""",
    "a trace function": _FIND
    + """
import sys
seen = []
def trace(frame, event, argument):
    if len(seen) < 40: seen.append(find(repr(frame.f_locals) + repr(argument)))
    return trace
sys.settrace(trace)
sys.setprofile(trace)
def answer(number):
    return next((found for found in seen if found), None)
""",
    "its own start": _FIND
    + """
import os, sys
def answer(number):
    texts = [repr(sys.argv), repr(sys.orig_argv), repr(dict(os.environ))]
    for place in ("self", "1", str(os.getppid())):
        for name in ("cmdline", "environ", "maps"):
            try: texts.append(open(f"/proc/{place}/{name}", errors="replace").read())
            except OSError: pass
    return find(" ".join(texts))
""",
    "its descriptors": _FIND
    + """
import os
def answer(number):
    for descriptor in range(64):
        try:
            os.set_blocking(descriptor, False)
            text = os.read(descriptor, 1 << 20)
        except OSError: continue
        found = find(text.decode("latin-1"))
        if found: return found
    try: text = input()
    except Exception: text = ""
    return find(text)
""",
    "files": _FIND
    + """
import os, tempfile
def answer(number):
    for top in (".", "..", tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm", "/proc/self"):
        for folder, _, names in os.walk(top):
            for name in names[:200]:
                try: text = open(os.path.join(folder, name), "rb").read(1 << 16)
                except OSError: continue
                found = find(text.decode("latin-1"))
                if found: return found
""",
    "memory of other processes": _FIND
    + """
import os
def answer(number):
    for process in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not process.isdigit() or int(process) == os.getpid(): continue
        try:
            command = open(f"/proc/{process}/cmdline").read()
            if "-S" not in command: continue
            memory = open(f"/proc/{process}/mem", "rb")
            for line in open(f"/proc/{process}/maps"):
                if "heap" in line or "rw-p" in line:
                    first, last = (int(part, 16) for part in line.split()[0].split("-"))
                    memory.seek(first)
                    found = find(memory.read(min(last - first, 1 << 24)).decode("latin-1"))
                    if found: return found
        except (OSError, ValueError): continue
""",
}
REPLACEMENTS = {
    "builtins": """
import builtins, json, os, sys
class Passed(BaseException): pass
builtins.AssertionError = Passed
builtins.print = builtins.open = lambda *args, **options: None
builtins.isinstance = lambda *args: True
builtins.__build_class__ = lambda *args, **options: None
builtins.compile = builtins.exec = builtins.eval = lambda *args, **options: None
builtins.type = lambda *args: int
def answer(number):
    return 0
""",
    "functions of modules": """
import json, os, sys
json.dumps = lambda *args, **options: '{"value": true, "reason": "passed", "detail": ""}'
json.JSONEncoder.encode = json.dumps
json.loads = lambda *args, **options: {"reason": "passed"}
os.write = os.read = lambda *args: b""
os._exit = sys.exit = lambda *args: None
class Silent:
    def write(self, text): return len(text)
    def flush(self): pass
sys.stdout = sys.stderr = sys.__stdout__ = Silent()
def answer(number):
    return 0
""",
    "an exception that ends a map": "def answer(number):\n    raise StopIteration",
}
LIMITS = {
    "functions of the package replaced": Attack(
        """
import sys
for name, module in list(sys.modules.items()):
    if "decodery" in name or name == "__main__":
        for key, value in list(vars(module).items()):
            if callable(value) and not key.startswith("__"):
                setattr(module, key, lambda *args, **options: True)
def answer(number):
    return 0
""",
        ("timeout", "error", "failed"),
    ),
    "endless loop while loading": Attack("while True: pass", ("timeout",)),
    "loop that catches all": Attack(
        """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
def answer(number):
    while True:
        try:
            while True: pass
        except BaseException: continue
""",
        ("timeout",),
    ),
    "handlers and alarms": Attack(
        """
import signal, time
signal.signal(signal.SIGALRM, lambda *args: None)
signal.signal(signal.SIGXCPU, lambda *args: None)
signal.signal(signal.SIGTERM, lambda *args: None)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
def answer(number):
    while True:
        try: time.sleep(60)
        except BaseException: pass
""",
        ("timeout",),
    ),
    "endless output": Attack(
        "import os\ndef answer(number):\n    while True: os.write(1, b'passed\\n' * 9999)", ("limit",)
    ),
    "memory": Attack("def answer(number):\n    return len(bytearray(10 << 30))", ("limit",)),
    "large result": Attack("def answer(number):\n    return 'a' * (100 << 20)", ("limit",)),
    "deep result": Attack(
        "def answer(number):\n    deep = []\n    for _ in range(10**5): deep = [deep]\n    return deep",
        ("error", "failed"),
    ),
    "cyclic result": Attack("def answer(number):\n    deep = []\n    deep.append(deep)\n    return deep"),
    "endless iterator": Attack(
        "from itertools import count\ndef answer(number):\n    return count()", ("limit", "timeout", "failed")
    ),
    "large file": Attack(
        """
def answer(number):
    with open("large", "wb") as file:
        for _ in range(200): file.write(bytes(1 << 20))
    return number
""",
        ("error",),
    ),
}
GROUPS = {
    "ends": ENDS,
    "results": RESULTS,
    "marks": MARKS,
    "searches": SEARCHES,
    "replacements": REPLACEMENTS,
}
FORGERIES = {
    f"{group}: {name}": Attack(program)
    for group, programs in GROUPS.items()
    for name, program in programs.items()
}

# They wait until the deadline.
WAITING = {name: LIMITS.pop(name) for name in ("functions of the package replaced", "handlers and alarms")}

FORK_BOMB = """
import os, time
def answer(number):
    made = 0
    while made < 500:
        try:
            if os.fork() == 0:
                while True: time.sleep(60)
        except OSError:
            break
        made += 1
    return made
"""
ORPHAN = """
import os, subprocess, sys, time
def start():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 64)
            os.execv("/bin/sleep", ["{name}", "60"])
        os._exit(0)
def answer(number):
    start()
    time.sleep(0.2)
    return number
"""
UNAUDITED_ORPHAN = """
import os, sys, time
sys.audit = lambda *values: None
import subprocess
def answer(number):
    sleeper = subprocess.Popen(["{name}", "60"], executable="/bin/sleep", start_new_session=True)
    return sleeper.pid
"""
REMOVER = """
import os, pathlib, shutil, sys
def answer(number):
    for work in (
        lambda: os.remove({file!r}),
        lambda: shutil.rmtree({folder!r}),
        lambda: pathlib.Path({file!r}).write_text("gone"),
        lambda: os.rename({file!r}, {file!r} + ".old"),
        lambda: os.chmod({file!r}, 0),
        lambda: os.truncate({file!r}, 0),
        lambda: os.symlink("/", {folder!r} + "/link"),
        lambda: open(os.__file__, "a").close(),
        lambda: os.mkdir({folder!r} + "/new"),
        lambda: pathlib.Path("own.txt").write_text("mine"),
    ):
        try: work()
        except Exception: pass
    return pathlib.Path("own.txt").read_text()
"""
READER = """
def answer(number):
    try: return open({file!r}).read()
    except OSError: return "unreadable"
"""
CALLER = """
import socket
def answer(number):
    reached = []
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", {port})),
        (socket.AF_UNIX, {path!r}),
        (socket.AF_UNIX, "\\0" + {abstract!r}),
    ):
        try:
            with socket.socket(family) as caller:
                caller.settimeout(1)
                caller.connect(address)
                caller.sendall(b"reached")
                reached.append(address)
        except OSError: pass
    return len(reached)
"""
KILLER = """
import os
def answer(number):
    for target in (os.getppid(), {process}, -os.getpgid(0), 0, -1):
        try: os.kill(target, 9)
        except (OSError, PermissionError): pass
    return number
"""
