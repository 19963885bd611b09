"""Programs of the environment that start in a moment: forks of a Python that has the libraries.

`python warm_python.py FOLDER` imports them, and puts `python`, `dvc`, `mlflow` and the like into
FOLDER. Each of these hands its arguments, folder, environment and files to the one that waits here,
and ends as it does. Nothing of the project is imported before the fork.
"""

import array
import atexit
import contextlib
import gc
import importlib
import importlib.metadata
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path

#: What takes seconds to import.
LIBRARIES = (
    *("torch", "torchvision", "pytorch_lightning", "timm", "segmentation_models_pytorch"),
    *("mlflow", "mlflow.cli", "mlflow.pyfunc", "dvc.cli", "dvc.repo", "hydra", "matplotlib.pyplot"),
)
#: Programs that are started warm; `python` besides.
PROGRAMS = ("dvc", "mlflow", "atrous-predict", "atrous-export", "atrous-register")

CLIENT = """#!{python} -IS
import array, json, os, socket, sys
if {cold}:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
link.connect({address!r})
files = array.array("i", (0, 1, 2))
link.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
call = [{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]
link.sendall(json.dumps(call).encode() + b"\\n")
sys.exit(int(link.makefile().readline() or "1"))
"""


def put_programs(folder: Path, address: Path) -> None:
    """Write the programs that ask the server at `address` into `folder`."""
    for name in ("python", *PROGRAMS):
        path = folder / name
        cold = "sys.argv[1:2] != ['-m']" if name == "python" else "False"
        path.write_text(
            CLIENT.format(python=sys.executable, address=str(address), name=name, cold=cold)
        )
        path.chmod(0o755)


def serve(address: Path) -> None:
    """Take calls until the process is ended; each is a fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(address))
        listening.listen()
        print("ready", flush=True)
        while True:
            link, _ = listening.accept()
            if not os.fork():
                listening.close()
                _answer(link)
            link.close()


def _answer(link: socket.socket) -> None:
    """Fork the program, wait for it, and say how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    files = array.array("i")
    _, sent, *_ = link.recvmsg(1, socket.CMSG_SPACE(3 * files.itemsize))
    files.frombytes(sent[0][2])
    name, words, folder, environment = json.loads(link.makefile().readline())
    program = os.fork()
    if not program:
        os.setsid()
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        code = _run(name, words)
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
        # What libraries do at the end, but not the seconds of taking them apart.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    ended = os.pidfd_open(program)
    ready, _, _ = select.select([ended, link.fileno()], [], [])
    if ended not in ready:  # the caller was killed
        os.killpg(program, signal.SIGTERM)
    _, status = os.waitpid(program, 0)
    with contextlib.suppress(BrokenPipeError):
        link.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run(name: str, words: list[str]) -> int:
    """What the program does, in this process; its exit code."""
    sys.path[:0] = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(":"))]
    try:
        if name == "python":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            return 0
        script, *_ = importlib.metadata.entry_points(group="console_scripts", name=name)
        sys.argv = [name, *words]
        return int(script.load()() or 0)
    except SystemExit as left:
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for library in LIBRARIES:
        importlib.import_module(library)
    # The forks share these pages: nothing collects them.
    gc.collect()
    gc.freeze()
    put_programs(place, place / "address")
    serve(place / "address")
