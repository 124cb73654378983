"""The command line: what it accepts, and its error messages."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from cli import main as cli
from cli.version import VERSION
from shared.config.settings import Settings

COMMANDS = (
    "up",
    "api",
    "worker",
    "jobs",
    "chat",
    "tail",
    "cancel",
    "ps",
    "trace",
    "batch",
    "doctor",
)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])

    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"    {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])

    assert caught.value.code == 0
    assert f"usage: tailrace {command}" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["dance"], ["api", "--port", "x"], ["tail"], ["cancel"]])
def test_an_invalid_command_line_gives_exit_code_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)

    assert caught.value.code == 2


@pytest.mark.parametrize("command", ["up", "api", "worker", "doctor", "ps"])
def test_an_unknown_variable_is_one_line_and_exit_code_2(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILRACE_LEASES", "3")

    assert cli.main([command]) == 2
    line = f"tailrace {command}: TAILRACE_LEASES is not a setting; docs/operations.md lists them\n"
    assert capsys.readouterr().err == line


def test_listening_beyond_loopback_without_keys_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["up", "--host", "0.0.0.0"]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert "TAILRACE_API_KEYS" in line and "TAILRACE_AUTH=off" in line


def test_flags_win_over_the_environment() -> None:
    args = cli.build_parser().parse_args(["api", "--port", "9", "--host", "::1"])
    settings = cli.with_flags(Settings(port=1, host="127.0.0.1"), args)

    assert (settings.port, settings.host) == (9, "::1")


def test_a_flag_that_is_left_out_changes_nothing() -> None:
    args = cli.build_parser().parse_args(["up", "--api", "2"])

    assert cli.with_flags(Settings(port=1), args) == Settings(port=1)


def test_a_flag_is_checked_like_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["api", "--port", "70000"]) == 2
    assert "from 0 to 65535" in capsys.readouterr().err


def test_the_open_file_limit_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1_024, 1_048_576), (1_024, 4_096), (1_024, resource.RLIM_INFINITY), (70_000, 80_000)]
    limits_set = []
    for limit in limits:
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: limit)
        monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits_set.append(pair[0]))
        cli.raise_file_limit()

    assert limits_set == [65_536, 4_096, 65_536]


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out == f"tailrace {VERSION}\n"


JSON_COMMANDS = (
    "chat", "tail", "cancel", "ps", "trace", "top", "usage", "forget", "bench", "batch submit",
    "batch redrive", "batch watch", "batch ls", "batch cancel", "batch results", "models ls",
    "models discover", "schedules ls", "schedules show", "schedules delete", "doctor",
)  # fmt: skip


@pytest.mark.parametrize("command", JSON_COMMANDS)
def test_every_client_command_has_a_form_for_programs(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])

    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"completion", "models"}))
def test_help_has_examples_and_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])

    text = capsys.readouterr().out
    assert f"tailrace {command}" in text.partition("examples:\n")[2]
    assert "exit codes: 0 " in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0

    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert "--metrics-port" in text or "metrics-port" in text


def test_bash_accepts_the_completion_and_completes_a_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cli.main(["completion", "bash"])
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    ask = (
        f"source {script}; COMP_WORDS=(tailrace tra); COMP_CWORD=1; COMP_LINE='tailrace tra';"
        " $(complete -p tailrace | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo ${COMPREPLY[@]}"
    )

    run = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=False)

    assert (run.stdout.split(), run.returncode) == (["trace"], 0), run.stderr
