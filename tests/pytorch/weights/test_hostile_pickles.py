"""Malicious checkpoints run no code, do not hang, and do not get the memory that they claim.

They are read in another process with an audit hook. The hook sees what Python does for code that a
pickle calls: opening files, importing, starting processes.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch

from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.weights.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

READ = """
import encodings.cp437, json, resource, sys
from pathlib import Path
from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.weights.checkpoint import read_checkpoint

path = Path(sys.argv[1])
seen = []
ACTS = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.", "exec",
        "compile", "os.remove", "os.rename", "os.mkdir", "ctypes.", "shutil.", "import")

def watch(event, arguments):
    if event.startswith(ACTS) or (event == "open" and str(arguments[0]) != str(path)):
        seen.append(f"{event} {str(arguments)[:200]}")

resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
sys.addaudithook(watch)
try:
    found = len(read_checkpoint(path).state_dict)
    said = f"read {found}"
except WeightsError as error:
    said = str(error)
print(json.dumps({"said": said, "seen": list(seen)}))
"""
MEMORY = 6 << 30
"""The limit of the address space in bytes; torch alone takes about four gigabytes."""
SENTINEL = "effdet_deploy_was_here"


def call(name: str, *arguments: object) -> bytes:
    """Return a pickle of protocol 2 that calls the global ``name``, given as ``module name``."""
    module, _, qualified = name.rpartition(" ")
    packed = pickle.dumps(arguments, protocol=2)[2:-1]
    return b"\x80\x02c" + f"{module}\n{qualified}\n".encode() + packed + b"R."


def stacked(name: str, *arguments: object) -> bytes:
    """Return the pickle of :func:`call` in protocol 4, whose STACK_GLOBAL takes dotted names."""
    module, _, qualified = name.rpartition(" ")
    packed = pickle.dumps(arguments, protocol=2)[2:-1]
    words = b"".join(b"\x8c" + bytes([len(each)]) + each.encode() for each in (module, qualified))
    return b"\x80\x04" + words + b"\x93" + packed + b"R."


TOUCH = f"touch {SENTINEL}"
PYTHON = f"open({SENTINEL!r}, 'w').close()"
REFUSED_BY_NAME = {
    "os.system": call("os system", TOUCH),
    "posix.system": call("posix system", TOUCH),
    "nt.system": call("nt system", TOUCH),
    "subprocess.Popen": call("subprocess Popen", ["touch", SENTINEL]),
    "subprocess.check_output": call("subprocess check_output", ["touch", SENTINEL]),
    "builtins.eval": call("builtins eval", PYTHON),
    "builtins.exec": call("builtins exec", PYTHON),
    "__builtin__.eval": call("__builtin__ eval", PYTHON),
    "builtins.getattr": call("builtins getattr", "x", "y"),
    "builtins.__import__": call("builtins __import__", "antigravity"),
    "builtins.open": call("builtins open", SENTINEL, "w"),
    "importlib.import_module": call("importlib import_module", "antigravity"),
    "runpy._run_code": call("runpy _run_code", PYTHON, {}),
    "pty.spawn": call("pty spawn", "sh"),
    "ctypes.CDLL": call("ctypes CDLL", "libc.so.6"),
    "pickle.loads": call("pickle loads", call("os system", TOUCH)),
    "marshal.loads": call("marshal loads", b""),
    "socket.create_connection": call("socket create_connection", ("localhost", 1)),
    "webbrowser.open": call("webbrowser open", "x"),
    "shutil.rmtree": call("shutil rmtree", SENTINEL),
    "torch.load": call("torch load", SENTINEL),
    "torch.hub.load": call("torch.hub load", "a/b", "c"),
    "torch.utils.cpp_extension.load_inline": call("torch.utils.cpp_extension load_inline", "x", ""),
    "numpy.load": call("numpy load", SENTINEL),
    "pandas.read_pickle": call("pandas read_pickle", SENTINEL),
    "operator.attrgetter": call("operator attrgetter", "system"),
    "types.FunctionType": call("types FunctionType", None, {}),
    "torch.os.system": stacked("torch os.system", TOUCH),
    "torch.serialization.os.system": stacked("torch.serialization os.system", TOUCH),
}
"""Pickles, each under the name that its refusal must contain."""

ORDERED = b"ccollections\nOrderedDict\n"
MALFORMED = {
    "a codec that unpacks": call("_codecs encode", "x" * 100, "zlib"),
    "BUILD on a class": b"\x80\x02" + ORDERED + b"}X\x04\x00\x00\x00__eqX\x01\x00\x00\x00ysb.",
    "attributes of a class are set": b"\x80\x02"
    + ORDERED
    + b"N}X\x08\x00\x00\x00__init__X\x01\x00\x00\x00ys\x86b.",
    "a stand-in gets a __reduce__": b"\x80\x02cno.such\nClass\n)R}"
    b"X\n\x00\x00\x00__reduce__ccopyreg\n_rec\nsb.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a dict in itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "lists of lists that double": b"\x80\x02]q\x00"
    + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60))
    + b".",
    "a million tuples": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
    "a million tuples as a key": b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.",
    "a million tuples in a set": b"\x80\x04\x8f()" + b"\x85" * 1_000_000 + b"\x90.",
    "a memo index out of range": b"\x80\x02]r\xff\xff\xff\xff.",
    "a string longer than the file": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "bytes longer than memory": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"a.",
    "a number of two gigabytes": b"\x80\x02\x8b\xff\xff\xff\x7f1.",
    "a bytearray of a terabyte": call("builtins bytearray", 1 << 40),
    "a list times a number": call("operator mul", [0], 1 << 40),
    "an extension code": b"\x80\x02\x82\x01.",
    "a number as persistent ID": b"\x80\x02K\x01Q.",
    "a module as persistent ID": b"\x80\x02(X\x06\x00\x00\x00moduleX\x02\x00\x00\x00osNNtQ.",
    "a storage that is not there": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x009X\x03\x00\x00\x00cpuK\x04tQ.",
    "no STOP": b"\x80\x02]",
    "POP on an empty stack": b"\x80\x020000.",
    "STOP above a MARK": b"\x80\x02(t0(.",
}


def write(path: Path, pickled: bytes, **extra: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3")
        for name, content in extra.items():
            archive.writestr(f"archive/{name}", content)


def read(path: Path, memory: int = MEMORY) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(memory)],
        capture_output=True,
        text=True,
        cwd=path.parent,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (path.parent / SENTINEL).exists()
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The messages and actions for every hostile file; all files are read in one process."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, pickled in enumerate([*REFUSED_BY_NAME.values(), *MALFORMED.values()]):
        write(folder / f"{number}.pth", pickled)
    loop = READ.replace("path = Path(sys.argv[1])", "folder = Path(sys.argv[1])")
    head, _, tail = loop.partition("try:\n")
    body = "try:\n" + tail
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    program = (
        head.replace("str(arguments[0]) != str(path)", "not str(arguments[0]).endswith('.pth')")
        + "for path in sorted(folder.glob('*.pth'), key=lambda each: int(each.stem)):\n"
        + indented.replace("list(seen)", "[*seen, *(seen.clear() or [])]")
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), str(MEMORY)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (folder / SENTINEL).exists()
    said = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip([*REFUSED_BY_NAME, *MALFORMED], said, strict=True))


@pytest.mark.parametrize("name", REFUSED_BY_NAME)
def test_a_name_that_could_run_code_is_refused_and_nothing_runs(answers, name):
    assert f"holds '{name}', which could run code" in answers[name]["said"]
    assert answers[name]["seen"] == []


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_pickle_runs_nothing_and_gives_a_message(answers, name):
    said = answers[name]["said"]
    assert "holds no weights" in said or "damaged or incomplete" in said
    assert answers[name]["seen"] == []


@pytest.mark.parametrize("name", REFUSED_BY_NAME)
def test_the_hostile_pickles_are_complete(name):
    """Every file is a complete pickle, so it is refused for its name and not for damage."""
    operations = [each.name for each, _, _ in pickletools.genops(io.BytesIO(REFUSED_BY_NAME[name]))]
    assert operations[-1] == "STOP"
    assert "REDUCE" in operations


def test_a_pickle_that_unpacks_to_more_than_any_checkpoint_has_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("archive/data.pkl", "w") as entry,
    ):
        for _ in range(300):
            entry.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    assert "larger than any checkpoint's" in read(path)["said"]


def test_compressed_tensors_are_refused_and_not_unpacked(tmp_path):
    state = io.BytesIO()
    torch.save({"class_net.predict.conv_pw.weight": torch.zeros(1 << 18)}, state)
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(state) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry), zipfile.ZIP_DEFLATED)
    assert "compressed" in read(path)["said"]


def test_a_legacy_file_that_claims_more_than_it_has_is_refused(tmp_path):
    path = tmp_path / "legacy.pth"
    torch.save({"a": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    claim = struct.pack("<q", 1 << 55)
    path.write_bytes(content[:-24] + claim + content[-16:])
    assert "ends too early" in read(path)["said"]


def answer(path: Path) -> str:
    try:
        read_checkpoint(path)
    except WeightsError as error:
        return str(error)
    return "weights"


def test_a_mutated_checkpoint_gives_weights_or_a_message(tmp_path):
    """Single bytes of the pickle are changed, with a seed; no other exception may be raised."""
    state = io.BytesIO()
    weights = {"class_net.predict.conv_pw.weight": torch.ones(2, 2), "b": torch.zeros(3)}
    torch.save({"state_dict": weights, "epoch": 3, "args": ("x", None, 1.5)}, state)
    with zipfile.ZipFile(state) as archive:
        entries = {each: archive.read(each) for each in archive.namelist()}
    pickled = next(each for each in entries if each.endswith("data.pkl"))
    random = torch.Generator().manual_seed(7)
    path = tmp_path / "mutated.pth"
    for _ in range(400):
        content = bytearray(entries[pickled])
        place = int(torch.randint(len(content), (1,), generator=random))
        content[place] = int(torch.randint(256, (1,), generator=random))
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in entries.items():
                archive.writestr(name, bytes(content) if name == pickled else value)
        assert "\n" not in answer(path)
