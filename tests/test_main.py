"""The command line: every command says what it is given, and what it runs is there."""

import importlib
import inspect
import re

import pytest

from mlprobe_utils import __main__ as command_line


@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_every_command_has_help_of_its_own(name, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        command_line.main([name, "--help"])
    assert command_line.COMMANDS[name][0] in " ".join(capsys.readouterr().out.split())


def test_what_commands_import_when_they_run_is_there():
    source = inspect.getsource(command_line)
    imported = re.findall(r"^ +from (mlprobe_utils[\w.]*) import (.+)$", source, re.MULTILINE)
    imported += [(f"mlprobe_utils.{module}", name) for module, name in re.findall(r'"([\w.]+)\.(run_\w+)"', source)]
    imported += [(f"mlprobe_utils.{module}", "") for module in re.findall(r'heavy\("([\w.]+)"', source)]
    assert len(imported) > 20
    for module, names in imported:
        found = importlib.import_module(module)
        for name in filter(None, names.split(", ")):
            assert hasattr(found, name) or importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize("given", [[], ["prob"], ["model"], ["model", "x", "--datasets", "y", "--split", "z"]])
def test_a_wrong_command_line_is_one_message_that_names_the_mend(given, capsys):
    with pytest.raises(SystemExit) as end:
        command_line.main(given)
    assert end.value.code == 2
    *usage, last = capsys.readouterr().err.strip().splitlines()
    assert usage[0].startswith("usage: mlprobe")
    assert re.search("error: .*(required|choose from)", last)
