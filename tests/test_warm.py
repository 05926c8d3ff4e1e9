"""Commands in forks of a process that has everything imported: as if each had been started by itself."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlprobe_utils import warm as module
from mlprobe_utils.warm import FOLDER, SERVED, warm

KERNEL = "ipykernel_launcher"
SPEC = ("name: python3", "display_name: Python 3", "language: python")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere commands run by themselves")


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """The environment of commands, with processes to fork."""
    outputs = {"MLPROBE_OUTPUTS": str(tmp_path_factory.mktemp("outputs")), "PYTHONWARNINGS": "ignore"}
    with warm(os.environ | outputs) as environment:
        yield environment


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "mlprobe_utils.warm", name, *arguments]


def run(environment: dict, name: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command(name, *arguments), env=environment, capture_output=True, text=True, **options)


def children(process: int) -> list[int]:
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def servers() -> list[int]:
    return [child for child in children(os.getpid()) if b"--serve" in Path(f"/proc/{child}/cmdline").read_bytes()]


def runs(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(happened) -> None:
    end = time.time() + 60
    while not happened():
        assert time.time() < end
        time.sleep(0.05)


def test_a_served_command_and_one_by_itself_say_the_same(surroundings, tmp_path):
    cold = {name: value for name, value in surroundings.items() if name != FOLDER}
    asked = ("mlprobe_utils.run_chapter", "nonesuch", "out.ipynb")
    results = [run(environment, *asked, cwd=tmp_path) for environment in (surroundings, cold)]
    for done in results:
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr == results[0].stderr
    assert "unknown notebook 'nonesuch'" in results[0].stderr
    for name in ("pipeline", "baselines"):
        assert run(surroundings, f"mlprobe_utils.{name}").returncode == 2  # argparse


def test_a_page_is_made_in_its_folder_with_its_parameters_in_a_kernel_of_its_own(surroundings, tmp_path):
    """The kernel is warm too, and knows no torch; where the command was given is where its file lands."""
    script = tmp_path / "page.py"
    head = ["# ---", "# jupyter:", "#   kernelspec:", *(f"#     {line}" for line in SPEC), "# ---"]
    cells = [
        '# %% tags=["parameters"]',
        "number: int = 1",
        "# %%",
        "import os, sys",
        'print(sorted({"pandas", "altair", "torch"} & {*sys.modules}), number, os.environ["MARK"], os.getppid())',
    ]
    script.write_text("\n".join([*head, *cells]))
    call = f"""
import sys
from pathlib import Path
from mlprobe_utils import run_chapter
run_chapter.script_of = lambda name: Path({str(script)!r})
run_chapter.run_chapter("page", {{"number": 7}}, Path("made.ipynb"))
"""
    done = subprocess.run([sys.executable, "-c", call], env=surroundings | {"MARK": "here"}, cwd=tmp_path)
    assert done.returncode == 0
    (said,) = re.findall(r"\['altair', 'pandas'\] 7 here (\d+)", (tmp_path / "made.ipynb").read_text())
    assert int(said) not in {os.getpid(), *servers()}
    wait_until(lambda: not runs(int(said)))  # the process that waited for the kernel


def test_what_is_not_served_and_what_no_one_answers_runs_by_itself(surroundings, tmp_path):
    assert "timeit" not in SERVED
    done = run(surroundings, "timeit", "-n", "1", "-r", "1", "print('run')")
    assert done.returncode == 0
    assert "run" in done.stdout
    nobody = surroundings | {FOLDER: str(tmp_path)}
    assert "unknown notebook" in run(nobody, "mlprobe_utils.run_chapter", "nonesuch", "out.ipynb").stderr
    with module.socket.socket(module.socket.AF_UNIX) as listener:  # someone hangs up
        listener.bind(str(tmp_path / "pages"))
        listener.listen()
        waiting = subprocess.Popen(
            command("mlprobe_utils.run_chapter", "nonesuch", "out.ipynb"), env=nobody, stderr=subprocess.PIPE, text=True
        )
        listener.accept()[0].close()
        assert "unknown notebook" in waiting.communicate()[1]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_that_is_killed_takes_its_fork_along(surroundings, tmp_path, end):
    connection = tmp_path / "connection.json"
    asked = subprocess.Popen(command(KERNEL, "-f", str(connection)), env=surroundings)
    fork = fork_that_holds(connection)
    asked.send_signal(end)
    assert asked.wait() == -end
    wait_until(lambda: not runs(fork))


def test_a_fork_that_is_killed_ends_its_command_in_the_same_way(surroundings, tmp_path):
    connection = tmp_path / "connection.json"
    asked = subprocess.Popen(command(KERNEL, "-f", str(connection)), env=surroundings)
    os.kill(fork_that_holds(connection), signal.SIGKILL)
    assert asked.wait(timeout=60) == -signal.SIGKILL


def fork_that_holds(connection: Path) -> int:
    """The kernel that wrote its connection file: the fork of a fork of a server."""
    wait_until(lambda: connection.is_file() and connection.read_text().endswith("}"))
    (fork,) = [own for server in servers() for child in children(server) for own in children(child) if runs(own)]
    return fork


def test_no_process_is_left_behind(tmp_path):
    before = children(os.getpid())
    with warm(dict(os.environ)) as environment:
        own = [child for child in children(os.getpid()) if child not in before]
        assert len(own) == 2
        assert run(environment, "mlprobe_utils.run_chapter", "nonesuch", "out.ipynb").returncode == 2
        folder = environment[FOLDER]
    assert not any(map(runs, own))
    assert not os.path.exists(folder)


def test_where_processes_do_not_survive_a_fork_commands_run_by_themselves(monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "darwin")
    with warm({"A": "B"}) as environment:
        assert environment == {"A": "B"}
