"""The commands: what cannot be used is told in one line with exit status 2, never a traceback."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wm_tf import cli, storage
from wm_tf.config import ControllerConfig, preset
from wm_tf.pipeline.run import Run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def refused(capsys: Capture, *arguments: str | Path) -> str:
    """Runs a command that must end with status 2; returns what it says on stderr."""
    try:
        status = cli.main([str(argument) for argument in arguments])
    except SystemExit as error:  # of the parser of flags
        status = error.code  # type: ignore[assignment]
    captured = capsys.readouterr()
    assert status == 2, captured
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def refused_in_a_line(capsys: Capture, *arguments: str | Path) -> str:
    message = refused(capsys, *arguments)
    *progress, line = message.splitlines()
    assert line.startswith("wm_tf: ")
    assert all(shown.startswith("evaluate: ") for shown in progress)
    return line


def commands_with(argument: str) -> list[str]:
    return [
        name
        for name, command in cli.COMMANDS.items()
        if any(field.name == argument for field in dataclasses.fields(command))
    ]


ON_A_TASK = commands_with("task")
ON_A_RUN = commands_with("run")


def test_an_unknown_command_is_refused(capsys: Capture) -> None:
    message = refused_in_a_line(capsys, "drive", "car_racing")
    assert "unknown command 'drive': expected one of collect, " in message


@pytest.mark.parametrize("command", ON_A_TASK)
def test_an_unknown_task_is_refused(capsys: Capture, command: str, tmp_path: Path) -> None:
    place = ("--run" if command in ON_A_RUN else "--models", tmp_path)
    message = refused_in_a_line(capsys, command, "car_rowing", *place)
    assert "unknown task 'car_rowing': expected one of car_racing, take_cover" in message


@pytest.mark.parametrize("command", ON_A_TASK)
def test_a_missing_task_is_refused(capsys: Capture, command: str) -> None:
    assert "car_racing or take_cover" in refused(capsys, command)


@pytest.mark.parametrize("command", commands_with("preset"))
def test_an_unknown_preset_is_refused(capsys: Capture, command: str, run: Path) -> None:
    message = refused(capsys, command, "car_racing", "--run", run, "--preset", "laptop")
    assert "laptop" in message
    assert all(name in message for name in ("paper", "desktop", "smoke"))
    assert not run.exists()


def test_an_unknown_flag_is_refused(capsys: Capture, run: Path) -> None:
    message = refused(capsys, "collect", "car_racing", "--run", run, "--episode-count", "3")
    assert "--episode-count" in message


@pytest.mark.parametrize(
    ("command", "flag", "value", "accepted"),
    [
        ("collect", "--episodes", "0", "above 0"),
        ("collect", "--noise", "-1", "at least 0"),
        ("collect", "--noise", "nan", "at least 0"),
        ("collect", "--workers", "0", "1 to 1024"),
        ("collect", "--workers", "1000000000", "1 to 1024"),
        ("collect", "--timeout", "0", "a number of seconds above 0"),
        ("collect", "--timeout", "nan", "a number of seconds above 0"),
        ("collect", "--quiet-fraction", "1.5", "at most 1"),
        ("collect", "--round", "-1", "at least 0"),
        ("encode", "--round", "-1", "at least 0"),
        ("reproduce", "--iterations", "0", "at least 1"),
        ("sweep", "--episodes", "0", "at least 1"),
        ("sweep", "--temperatures", "0", "above 0"),
        ("sweep", "--temperatures", "1e39", "above 0"),
        ("train-controller", "--temperature", "1e-40", "above 0"),
        ("train-controller", "--patience", "3000000000", "at most 2147483647"),
        ("ablate", "--episodes", "0", "at least 1"),
        ("collect", "--seed", "-1", "from 0 to 9223372036854775807"),
        ("train-vision", "--batch-size", "0", "above 0"),
        ("train-vision", "--frame-stride", "0", "above 0"),
        ("train-vision", "--learning-rate", "inf", "above 0"),
        ("train-memory", "--sequence-length", "0", "above 0"),
        ("train-memory", "--dropout", "-0.1", "below 1"),
        ("train-memory", "--dropout", "1", "below 1"),
        ("train-controller", "--temperature", "0", "above 0"),
        ("train-controller", "--temperature", "-1", "above 0"),
        ("train-controller", "--sigma", "0", "above 0"),
        ("train-controller", "--population", "3", "at least 4"),
        ("train-controller", "--generations", "0", "above 0"),
    ],
)
def test_a_number_that_cannot_be_used_is_refused(
    capsys: Capture, run: Path, command: str, flag: str, value: str, accepted: str
) -> None:
    message = refused(capsys, command, "car_racing", "--run", run, flag, value)
    message = " ".join(message.replace("│", " ").split())  # out of the frame of a flag's error
    assert flag in message
    assert accepted in message
    assert f"got {value}" in message or f"got {float(value):g}" in message.replace(".0", "")


def test_nobody_is_immortal_where_nobody_dies(capsys: Capture, run: Path) -> None:
    message = refused(capsys, "collect", "car_racing", "--run", run, "--immortal")
    assert "--immortal: expected a task whose players die, got car_racing" in message


def test_a_seed_that_tensorflow_does_not_take_is_refused(capsys: Capture, tmp_path: Path) -> None:
    for command in ("collect", "train-vision"):
        message = refused_in_a_line(
            capsys, command, "car_racing", "--run", tmp_path / "none", "--seed", str(2**63)
        )
        assert f"--seed: expected a number from 0 to {2**63 - 1}, got {2**63}" in message
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("flags", [("--executor", "dask"), ("--scheduler", "tcp://here:8786")])
@pytest.mark.parametrize("command", ["collect", "train-controller", "evaluate", "reproduce"])
def test_half_a_cluster_is_refused(
    capsys: Capture, tmp_path: Path, command: str, flags: tuple[str, str]
) -> None:
    place = ("--models", tmp_path) if command == "evaluate" else ("--run", tmp_path)
    message = refused_in_a_line(capsys, command, "car_racing", *place, *flags)
    assert "--executor dask and --scheduler ADDRESS: expected both or neither" in message


@pytest.mark.parametrize("episodes", ["0", "-5", "1000000000000"])
def test_evaluating_no_episodes_or_no_end_of_them_is_refused(
    capsys: Capture, saved_models: Path, episodes: str
) -> None:
    message = refused_in_a_line(
        capsys, "evaluate", "car_racing", "--models", saved_models, "--episodes", episodes
    )
    assert f"--episodes: expected a number from 1 to 1000000, got {episodes}" in message


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (("serve",), "kserve", "serve"),
        (("export-data", "car_racing"), "minari", "data"),
        (("import-data", "car_racing"), "minari", "data"),
    ],
)
def test_a_command_without_its_extra_is_refused(
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    module: str,
    extra: str,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = refused_in_a_line(capsys, *arguments)
    assert message == f"wm_tf: {module} is not installed: pip install -e '.[{extra}]'"


def test_flags_may_stand_before_the_task(capsys: Capture, run: Path) -> None:
    message = refused_in_a_line(capsys, "train-vision", "--epochs", "2", "car_racing", "--run", run)
    assert "holds no episodes" in message


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("train-vision",), "rollouts/00: holds no episodes"),
        (("encode",), "rollouts/00: holds no episodes"),
        (("train-memory",), "rollouts/00: holds no episodes"),
        (("train-controller",), "holds no checkpoint of the vision model; train it first"),
        (("train-controller", "--env", "real"), "holds no checkpoint of the vision model"),
        (("collect", "--policy", "controller"), "no controller to collect with"),
        (("export",), "holds no checkpoint"),
    ],
)
def test_a_stage_without_those_before_it_is_refused(
    capsys: Capture, run: Path, arguments: tuple[str, ...], reason: str
) -> None:
    message = refused_in_a_line(
        capsys, arguments[0], "car_racing", "--run", run, *arguments[1:], "--preset", "smoke"
    )
    assert reason in message
    assert not any(run.rglob("*"))  # no run was begun


REAL_GRADIENTS = ("--env", "real", "--method", "gradients")
TUNING = ("--env", "real", "--round", "9")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("train-controller", "car_racing", "--method", "gradients"), ("gradients", 0.5)),
        (("train-controller", "take_cover", "--method", "evolution"), ("evolution", 0.1)),
        (("train-controller", "take_cover", "--method=evolution"), ("evolution", 0.1)),
        (("train-controller", "take_cover", "--env", "real"), ("evolution", 0.1)),
        (("train-controller", "take_cover", *REAL_GRADIENTS), ("gradients", 0.05)),
        (("train-controller", "car_racing", *REAL_GRADIENTS), ("gradients", 0.05)),
        (("train-controller", "car_racing", *REAL_GRADIENTS, "--sigma", "1"), ("gradients", 1.0)),
        (("train-controller", "car_racing", *TUNING), ("gradients", 0.05)),
        (("train-controller", "car_racing", *TUNING, "--method=evolution"), ("evolution", 0.08)),
        (("train-controller", "car_racing", *TUNING, "--search=actuators"), ("evolution", 0.08)),
        (("train-controller", "take_cover", "--search=scaled"), ("evolution", 0.1)),
        (("sweep", "take_cover"), ("gradients", 0.5)),
        (("ablate", "take_cover"), ("evolution", 0.1)),
        (("ablate", "take_cover", "--sigma", "0.2"), ("evolution", 0.2)),
    ],
    ids=str,
)
def test_each_method_has_its_own_sigma(
    arguments: tuple[str, ...], expected: tuple[str, float]
) -> None:
    command = cli._parse(list(arguments))
    assert isinstance(command, cli.TrainController | cli.Sweep | cli.Ablate)
    assert (command.hyper.method, command.hyper.sigma) == expected


@pytest.mark.parametrize(
    ("arguments", "fresh"),
    [
        ((), True),
        (("--init", "saved_models"), False),
        (("--search=actuators",), False),
        (("--init", "saved_models", "--fresh"), True),
    ],
    ids=str,
)
def test_what_begins_with_a_controller_is_not_fresh(
    arguments: tuple[str, ...], fresh: bool
) -> None:
    command = cli._parse(["train-controller", "car_racing", "--round", "9", *arguments])
    assert isinstance(command, cli.TrainController)
    assert command.hyper.fresh == fresh


@pytest.mark.parametrize("flags", [("--search", "actuators"), ("--method", "evolution")])
def test_a_round_with_fine_tuning_has_other_methods_too(
    capsys: Capture, tmp_path: Path, flags: tuple[str, str]
) -> None:
    train = ("train-controller", "car_racing", "--run", tmp_path, "--env", "real", "--round", "9")
    assert "expected only" not in refused_in_a_line(capsys, *train, *flags)  # for want of V


def test_real_rollouts_need_not_be_shared_among_ms() -> None:
    arguments = ("--round", "2", "--env", "real", "--rollouts", "5")
    command = cli._parse(["train-controller", "take_cover", *arguments])
    assert isinstance(command, cli.TrainController)
    assert (command.hyper.rollouts, command.hyper.members) == (5, 1)


def test_an_ablation_is_no_matter_of_gradients(capsys: Capture, tmp_path: Path) -> None:
    message = refused_in_a_line(
        capsys, "ablate", "car_racing", "--method", "gradients", "--run", tmp_path
    )
    assert "--method: expected evolution, got gradients" in message


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (("--temperature", "1.3"), "--temperature 1.3"),
        (("--dropout", "0.3"), "--dropout 0.3"),
        (("--members", "4"), "--members 4"),
        (("--goal", "700"), "--goal 700.0"),
        (("--goal", "700", "--goal-rise", "7"), "--goal 700.0"),
    ],
)
@pytest.mark.parametrize("round_index", ["0", "9"])
def test_flags_of_dreams_are_refused_in_the_real_environment(
    capsys: Capture, tmp_path: Path, flags: tuple[str, ...], name: str, round_index: str
) -> None:
    train = ("train-controller", "car_racing", "--run", tmp_path, "--round", round_index)
    message = refused_in_a_line(capsys, *train, "--env", "real", *flags)
    assert f"{name}: expected only with --env dream" in message
    without = refused_in_a_line(capsys, *train, "--env", "real")  # for want of V, alone
    assert "expected only" not in without


@pytest.mark.parametrize(
    ("command", "flags", "reason"),
    [
        ("export", ("--format", "tflite", "--run", "r"), "--run r: expected only with --format s"),
        ("export", ("--format", "tflite", "--skip-corrupt"), "--skip-corrupt: expected only with"),
        ("export", ("--models", "m"), "--models m: expected only with --format tflite"),
        ("sweep", ("--temperature", "1.2"), "--temperature 1.2: expected --temperatures"),
        ("sweep", ("--search", "actuators"), "--search actuators: all of a study begin with zeros"),
        (
            "ablate",
            ("--search", "actuators"),
            "--search actuators: all of a study begin with zeros",
        ),
        ("collect", ("--noise", "0.5"), "--noise 0.5: expected only with --policy controller"),
        ("collect", ("--quiet-fraction", "0.1"), "--quiet-fraction 0.1: expected only with --pol"),
        ("train-memory", ("--random-share", "0.5"), "--random-share 0.5: expected only after rou"),
        ("ablate", ("--hidden", "9"), "--hidden 9: that is what the ablation compares"),
        ("ablate", ("--sees", "latent"), "--sees latent: that is what the ablation compares"),
        (
            "evaluate",
            ("--env", "dream", "--executor", "dask", "--scheduler", "tcp://nobody:1"),
            "--executor dask: expected only with --env real",
        ),
    ],
)
def test_flags_that_would_mean_nothing_are_refused(
    capsys: Capture, command: str, flags: tuple[str, ...], reason: str
) -> None:
    assert reason in refused_in_a_line(capsys, command, "car_racing", *flags)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fcntl")
@pytest.mark.parametrize("command", ["export", "encode", "import-models"])
def test_what_another_command_reads_is_not_replaced(
    capsys: Capture, tmp_path: Path, command: str
) -> None:
    with storage.only_writer(tmp_path):  # as a training does
        message = refused_in_a_line(capsys, command, "car_racing", "--run", tmp_path)
    assert f"{tmp_path}: another command is at work on this run" in message


def test_a_folder_of_a_tasks_name_is_no_task() -> None:
    command = cli._parse(["train-controller", "--run", "car_racing", "take_cover"])
    assert isinstance(command, cli.TrainController)
    assert command.hyper == preset("take_cover", "desktop").round(0).controller


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("train-vision", "car_racing", "--round", "1"), "--epochs: expected at least 1, got 0"),
        (("train-memory", "car_racing", "--epochs", "0"), "--epochs: expected at least 1, got 0"),
        (
            ("train-controller", "car_racing", "--fresh", "--init", "saved_models"),
            "--fresh begins with zeros, --init with a controller",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(
    capsys: Capture, run: Path, arguments: tuple[str, ...], reason: str
) -> None:
    assert reason in refused_in_a_line(capsys, *arguments, "--run", run)
    assert not run.exists()


def test_a_run_of_another_task_is_refused(capsys: Capture, run: Path) -> None:
    Run.open(run, preset("take_cover", "smoke")).begin()
    message = refused_in_a_line(capsys, "collect", "car_racing", "--run", run)
    assert "a run of task 'take_cover', expected 'car_racing'" in message


def test_a_damaged_run_is_refused(capsys: Capture, run: Path) -> None:
    run.mkdir()
    (run / "config.json").write_text('{"task": "car_racing"}')
    assert "config.json: damaged" in refused_in_a_line(
        capsys, "collect", "car_racing", "--run", run
    )


EVALUATE = ("evaluate", "car_racing", "--episodes", "1", "--models")


def test_a_score_that_cannot_be_written_is_refused_before_it_is_played(
    capsys: Capture, saved_models: Path, tmp_path: Path
) -> None:
    line = refused_in_a_line(capsys, *EVALUATE, saved_models, "--json", tmp_path)
    assert line == f"wm_tf: --json: expected the name of a file, got {str(tmp_path)!r}"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("real", "--temperature", "1.2"), "--temperature 1.2: expected only with --env dream"),
        (("dream", "--frames", "fast"), "--frames fast: expected only with --env real"),
        (("dream", "--frames", "official"), "--frames official: expected only with --env real"),
        (("dream", "--precision", "auto"), "--precision auto: expected only with --env real"),
        (("dream", "--workers", "1"), "--workers 1: expected only with --env real"),
        (("dream", "--timeout", "9"), "--timeout 9.0: expected only with --env real"),
        (
            ("real", "--policy", "random", "--precision", "float32"),
            "--precision float32: the random policy does not look",
        ),
    ],
)
def test_flags_of_the_other_environment_are_refused(
    capsys: Capture, saved_models: Path, arguments: tuple[str, ...], reason: str
) -> None:
    assert reason in refused_in_a_line(capsys, *EVALUATE, saved_models, "--env", *arguments)


def test_missing_models_are_refused(capsys: Capture, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert str(missing) in refused_in_a_line(capsys, *EVALUATE, missing)


@pytest.mark.parametrize(
    ("env", "change", "reason"),
    [
        (("dream",), {"task": "take_cover"}, "models of task 'take_cover', expected 'car_racing'"),
        (("dream",), {"format_version": 99}, "format version 99, expected 1"),
        (("dream",), {"files": {}}, "incomplete models"),
        (("real", "--workers", "1"), {"format_version": 99}, "format version 99, expected 1"),
    ],
)
def test_models_that_are_not_right_are_refused(
    capsys: Capture,
    altered_models: Callable[..., Path],
    env: tuple[str, ...],
    change: dict[str, object],
    reason: str,
) -> None:
    models = altered_models(**change)
    assert reason in refused_in_a_line(capsys, *EVALUATE, models, "--env", *env)


def test_a_wrong_checksum_is_refused(capsys: Capture, altered_models: Callable[..., Path]) -> None:
    models = altered_models()
    latents = models / "car_racing" / "initial_latents.npz"
    storage.write_bytes(latents, latents.read_bytes() + b"x")
    message = refused_in_a_line(capsys, *EVALUATE, models, "--env", "dream")
    assert "initial_latents.npz" in message


def test_sound_models_are_verified(capsys: Capture, saved_models: Path) -> None:
    assert cli.main(["verify", str(saved_models)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"car_racing {part}: OK" for part in ("files", "vision", "memory", "controller")
    ]


def test_what_is_wrong_with_models_is_told(
    capsys: Capture, altered_models: Callable[..., Path]
) -> None:
    models = altered_models()
    for name in ("README.md", "golden.npz"):
        (models / "car_racing" / name).unlink()
    assert cli.main(["verify", str(models)]) == 2
    captured = capsys.readouterr()
    for line, name in zip(captured.out.splitlines(), ("README.md", "golden.npz"), strict=True):
        assert line == f"car_racing files: {models / 'car_racing' / name}: no such file"
    assert captured.err == f"wm_tf: {models}: 2 findings\n"


def test_info_shows_models_and_scores(capsys: Capture, altered_models: Callable[..., Path]) -> None:
    command = "python -m wm_tf evaluate car_racing --env real --frames fast --episodes 48 --seed 7"
    score = {
        "env": "real", "frames": "fast", "seed": 7, "episodes": 48, "mean": 678.3, "std": 192.7,
        "se": 28.1, "command": command,
    }  # fmt: skip
    for scores, expected in (([], "have not been scored"), ([score], command)):
        models = altered_models(scores=scores)
        assert cli.main(["info", "car_racing", "--models", str(models)]) == 0
        shown = capsys.readouterr().out
        assert expected in shown
        assert all(text in shown for text in ("step, dream", "CarRacing-v3 0", "hidden size 256"))
        assert ("678.3 +/- 192.7" in shown) == ("28.1" in shown) == bool(scores)
        shutil.rmtree(models)


def test_the_defaults_of_flags_are_the_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[cli.TrainController] = []
    monkeypatch.setattr(cli.TrainController, "__call__", lambda command: seen.append(command))
    for arguments in (
        ["car_racing"],
        ["car_racing", "--round", "1"],
        ["take_cover", "--preset", "paper"],
        ["car_racing", "--preset", "smoke", "--sigma", "0.7", "--horizon", "11"],
        ["car_racing", "--env", "real", "--round", "20"],
        ["car_racing", "--env", "real"],
        ["car_racing", "--env", "real", "--round", "8"],
        ["take_cover", "--env", "real"],
    ):
        assert cli.main(["train-controller", *arguments]) == 0
    desktop = preset("car_racing", "desktop")
    assert seen[0].hyper == desktop.round(0).controller
    assert seen[1].hyper == desktop.round(1).controller
    assert seen[2].hyper == preset("take_cover", "paper").round(0).controller
    assert seen[3].hyper.sigma == 0.7
    assert seen[3].hyper.horizon == 11
    assert seen[3].hyper.population == preset("car_racing", "smoke").round(0).controller.population
    assert seen[4].hyper == desktop.round(20).tuning
    assert seen[5].hyper == desktop.round(0).controller  # a round without fine-tuning
    # In the real environment C goes on, by CMA-ES where there is no fine-tuning.
    assert desktop.round(8).controller.fresh and not seen[6].hyper.fresh
    assert seen[7].hyper.method == "evolution"
    assert seen[7].hyper.sigma == ControllerConfig().sigma


def test_commands_go_on_with_what_the_run_was_begun_with(
    monkeypatch: pytest.MonkeyPatch, run: Path
) -> None:
    Run.open(run, preset("car_racing", "smoke", seed=5)).begin()
    seen: list[cli.TrainController] = []
    monkeypatch.setattr(cli.TrainController, "__call__", lambda command: seen.append(command))
    for flags in ([], ["--preset", "paper", "--seed", "6"]):
        assert cli.main(["train-controller", "car_racing", "--run", str(run), *flags]) == 0
    for command, name, seed in zip(seen, ("smoke", "paper"), (5, 6), strict=True):
        assert command.hyper == preset("car_racing", name).round(0).controller
        assert command.open().config == preset("car_racing", name, seed)


def test_help_lists_every_command(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(["--help"])
    assert error.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wm_tf", "collect", "nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "wm_tf: unknown task 'nowhere': expected one of car_racing, take_cover\n"
