"""Processes that have everything imported and fork for each command: of a short command, imports are the larger part.

`make book` keeps one for the work with models and one for pages. `python -m mlprobe_utils.warm MODULE ARGUMENT …` runs
a module as `python -m MODULE` does, in a fork where there is such a process, otherwise by itself. The two speak through
a socket: who asks passes on its standard streams, waits for the exit code, and takes the fork along when it dies.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

FOLDER = "MLPROBE_WARM"  # the environment's variable for where the sockets are
STARTED = b"!"
_KERNEL, _PAGE = "ipykernel_launcher", "mlprobe_utils.run_chapter"
_PAGES = ("chapter", "charts", "scoring", "certainty", "diagnosis_tables", "health_scoring", "rank_table")
_MODELS = ("pipeline", "miniatures.making", "vision_classifier", "baselines.training", "baselines.building")
# what is imported before forking, of modules that run; a page is to know nothing of torch
IMPORTED = {
    "pages": ("ipykernel.kernelapp", "IPython", _PAGE, *(f"mlprobe_utils.{name}" for name in _PAGES)),
    "models": tuple(f"mlprobe_utils.{name}" for name in _MODELS),
}
SERVED = {_KERNEL: "pages", _PAGE: "pages"}
_COMMANDS = ("pipeline", "miniatures", "faults", "discussions", "baselines")
SERVED |= dict.fromkeys((f"mlprobe_utils.{name}" for name in _COMMANDS), "models")


@contextlib.contextmanager
def warm(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """While it lasts, commands find processes to fork in the environment that it yields; kernels of notebooks too.

    Nothing is imported before the first command of a kind asks. Only on Linux: elsewhere, what a library has begun at
    import need not survive a fork.
    """
    if sys.platform != "linux":
        yield environment
        return
    with tempfile.TemporaryDirectory(prefix="warm") as folder, contextlib.ExitStack() as stack:
        spec = {"argv": [sys.executable, "-m", __name__, _KERNEL, "-f", "{connection_file}"]}
        kernel = Path(folder) / "kernels" / "python3" / "kernel.json"
        kernel.parent.mkdir(parents=True)
        kernel.write_text(json.dumps(spec | {"display_name": "Python 3 (ipykernel)", "language": "python"}))
        for name in IMPORTED:
            with socket.socket(socket.AF_UNIX) as listener:  # there before anyone asks
                listener.bind(f"{folder}/{name}")
                listener.listen()
                command = [sys.executable, "-m", __name__, "--serve", name, str(listener.fileno())]
                pipe, fds = subprocess.PIPE, [listener.fileno()]
                server = subprocess.Popen(command, stdin=pipe, pass_fds=fds, env=environment)
            stack.callback(server.wait)
            stack.callback(server.stdin.close)  # tells it to end
        paths = [folder, *filter(None, [environment.get("JUPYTER_PATH")])]
        yield environment | {FOLDER: folder, "JUPYTER_PATH": os.pathsep.join(paths)}


def _serve(name: str, listener: socket.socket) -> dict:
    """Returns in every fork what it is asked to run; the server itself exits once who started it is gone.

    Also where there is an accelerator and torch is imported: its driver does not survive a fork.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for what runs, which tells how it ended
    imported = False
    while True:
        readable, _, _ = select.select([listener, 0], [], [])
        if 0 in readable:
            sys.exit()
        if not imported:
            for module in IMPORTED[name]:
                importlib.import_module(module)
            torch, imported = sys.modules.get("torch"), True
            if torch and torch.accelerator.is_available():
                sys.exit()
            gc.freeze()  # what all forks share is not looked through in each
        connection, _ = listener.accept()
        with connection:
            if os.fork() == 0:
                listener.close()
                return _attend(connection)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _attend(connection: socket.socket) -> dict:
    """Returns what is asked for in a fork of its own; this one waits for that to end and says how it did."""
    text, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as rest:
        request = json.loads(text + rest.readline())
    if (fork := os.fork()) == 0:
        for stream, place in zip(streams, (0, 1, 2), strict=True):
            os.dup2(stream, place)
            os.close(stream)
        connection.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return request

    def take_along() -> None:
        with contextlib.suppress(OSError):
            if not connection.recv(1):
                os.kill(fork, signal.SIGTERM)

    threading.Thread(target=take_along, daemon=True).start()
    with contextlib.suppress(OSError):  # who asked may be gone; the thread knows
        connection.sendall(STARTED)
    code = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % code)
    os._exit(0)


def _ask(module: str, arguments: list[str]) -> int | None:
    """Exit code of a module that a warm process ran, negative that of a signal; None where none has run it."""
    if FOLDER not in os.environ or module not in SERVED:
        return None
    request = {"module": module, "arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    data = json.dumps(request).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answer:
        try:
            connection.connect(f"{os.environ[FOLDER]}/{SERVED[module]}")
            socket.send_fds(connection, [data[:1]], [0, 1, 2])
            connection.sendall(data[1:])
            if answer.read(1) != STARTED:
                return None
        except OSError:
            return None
        return int(answer.readline() or -signal.SIGKILL)


def _run(request: dict) -> None:
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    if sys.argv[1] == "--serve":
        name, listener = sys.argv[2], int(sys.argv[3])
        _run(_serve(name, socket.socket(fileno=listener)))
        return
    module, *arguments = sys.argv[1:]
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the fork gets it too
    code = _ask(module, arguments)
    signal.signal(signal.SIGINT, handler)
    if code is None:
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    elif code < 0:  # as if the signal had come here
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    else:
        sys.exit(code)


if __name__ == "__main__":
    main()
