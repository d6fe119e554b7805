"""Programs start with any packages installed, and end with one sentence."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import broker_bridge.__main__
import dashboard_api.__main__
import device.__main__
import device.embed_worker
import fleet.__main__
from broker_bridge.common.programs.program import _expand_home
from broker_bridge.common.programs.version import version
from deploy.local.program import Program
from deploy.local.stack import ROOT, free_port

MODULES = {
    "broker_bridge": broker_bridge.__main__,
    "dashboard_api": dashboard_api.__main__,
    "device": device.__main__,
    "device.embed_worker": device.embed_worker,
    "fleet": fleet.__main__,
}
EVERY_EXTRA = "aiomqtt,apscheduler,cv2,fastapi,httpx,onnxruntime,paho,pymongo,rich,typer,uvicorn"
# What is missing on a camera, and where only the command line is installed.
ON_A_CAMERA = "aiomqtt,fastapi,pymongo,uvicorn"
ON_A_DESK = "aiomqtt,apscheduler,cv2,fastapi,onnxruntime,paho,pymongo,uvicorn"

WITHOUT = """
import contextlib, io, json, runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
ended = []
for argv in {runs!r}:
    sys.argv = argv
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            runpy.run_module(argv[0], run_name="__main__")
        except SystemExit as error:
            status = error.code
    ended.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(ended))
"""


def run_without(packages: str, runs: list[list[str]]) -> list[tuple[int, str, str]]:
    """Return status, output and errors of runs in a process without `packages`."""
    code = WITHOUT.format(names=set(packages.split(",")), runs=runs)
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=True
    )
    return [tuple(each) for each in json.loads(ended.stdout)]


@pytest.mark.parametrize(
    ("modules", "packages"),
    [
        (list(MODULES), EVERY_EXTRA),
        (["broker_bridge", "dashboard_api"], ON_A_CAMERA),
        (["device"], ON_A_DESK),
    ],
    ids=["no extra", "a camera", "a desk"],
)
def test_help_and_version_need_no_optional_package(modules: list[str], packages: str) -> None:
    """The help says how to install what is missing.

    Any other run ends with that sentence and status 2.
    """
    runs = [[module, *args] for module in modules for args in (["--help"], ["--version"], [])]
    ended = iter(run_without(packages, runs))
    for module in modules:
        program = MODULES[module].PROGRAM
        remedy = rf'[\w.]+ is not installed: pip install "\.\[{program.extra}\]" in a checkout of WFM Fleet'
        status, out, err = next(ended)
        assert (status, err) == (0, "")
        assert out.startswith(f"Usage: {program.name} ")
        assert program.about in out
        assert all(command in out for command in program.commands)
        assert re.search(remedy, out)
        assert next(ended) == (0, f"{program.name} {version()}\n", "")
        status, out, err = next(ended)
        assert (status, out) == (2, "")
        assert re.fullmatch(rf"{program.name} cannot run: {remedy}\n", err)


@pytest.mark.parametrize("package", ["cv2", "onnxruntime"])
def test_a_package_that_only_a_run_needs_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API imports the recogniser where photos are enrolled."""
    monkeypatch.setenv("WFM_API__PORT", str(free_port()))
    ((status, out, err),) = run_without(package, [["dashboard_api"]])
    assert (status, out) == (2, "")
    assert err.startswith(f'wfm-api cannot run: {package} is not installed: pip install ".[backend]"')
    assert len(err.splitlines()) == 1


def test_a_python_that_is_too_old_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Some packages cannot be installed on it, so that their names would not help."""
    program = replace(MODULES["broker_bridge"].PROGRAM, least_python=(9, 9))
    with pytest.raises(SystemExit) as ended, program.imports():
        raise ModuleNotFoundError("No module named 'mqtt5'", name="mqtt5")
    assert ended.value.code == 2
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    sentence = f"wfm-bridge cannot run: it needs Python 9.9 or later, and this is {this}\n"
    assert capsys.readouterr().err == sentence


def test_the_extra_of_each_program_exists() -> None:
    """`pip install ".[extra]"` knows each extra that a program names."""
    text = (ROOT / "pyproject.toml").read_text()
    extras = text.split("[project.optional-dependencies]")[1].split("[project.scripts]")[0]
    for module in MODULES.values():
        assert f"\n{module.PROGRAM.extra} = [" in extras


def test_the_short_help_names_every_command() -> None:
    """The help without packages lists the commands of the help with them."""
    for module in MODULES.values():
        groups = [group.name for group in module.app.registered_groups]
        named = [
            each.name or each.callback.__name__.replace("_", "-") for each in module.app.registered_commands
        ]
        single = not groups and len(named) == 1 and module.app.registered_callback is None
        assert sorted(module.PROGRAM.commands) == ([] if single else sorted([*groups, *named]))


def test_a_reader_that_goes_away_ends_a_program_quietly() -> None:
    """`wfm-bridge asyncapi | head -c 1` prints no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        ended = subprocess.run(
            [sys.executable, "-m", "broker_bridge", "asyncapi"],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("argument", ["--config=~/none.json", "~/none.json"])
def test_a_tilde_in_an_argument_is_the_home_folder(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a shell the program itself expands it."""
    monkeypatch.setenv("HOME", "/home/wfm")
    assert _expand_home(argument) == argument.replace("~", "/home/wfm")
    assert _expand_home("a~b") == "a~b"


def test_an_error_of_usage_shows_no_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address that stands where a folder is expected is masked."""
    monkeypatch.setattr(
        sys, "argv", ["wfm-device", "enroll", "--user", "E-1", "--images", "rtsp://admin:se/cret@cam/x"]
    )
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with pytest.raises(SystemExit, match="2"):
        device.__main__.main()
    err = capsys.readouterr().err
    assert "does not exist" in err
    assert "cret" not in err


def test_a_device_shows_no_password_of_its_camera(tmp_path: Path) -> None:
    """The log shows nothing of what stands between `//` and the last `@`."""
    env = {
        "WFM_DEVICE__ID": "cam-1",
        "WFM_DEVICE__SITE": "lobby",
        "WFM_DEVICE__DATA_DIR": str(tmp_path / "data"),
        "WFM_DEVICE__SOURCE": "rtsp://admin:S3cr37/S3cr37#?@S3cr37@127.0.0.1:9/ch1?token=S3cr37",
        "WFM_MQTT__PORT": str(free_port()),
        "WFM_MQTT__PASSWORD": "S3cr37-mqtt",
    }
    program = Program([sys.executable, "-m", "device"], tmp_path / "device.log", env)
    program.start()
    try:
        line = program.wait_for_line("camera cannot be opened")
        assert program.stop() == 0
    finally:
        program.kill()
    assert "rtsp://127.0.0.1:9/ch1 cannot be opened" in line
    assert "%2F for /" in line
    assert "S3cr37" not in program.output()
