"""Every command on a page exists as written, and a list names its test."""

import json
import re
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from benchmarks.__main__ import GROUPS
from broker_bridge.contract.channels import CHANNELS
from tests.documented_commands import ROOT, DocumentedCommand, documented_commands

MODULES = {
    "wfm-bridge": "broker_bridge.__main__",
    "wfm-api": "dashboard_api.__main__",
    "wfm-device": "device.__main__",
    "wfm-fleet": "fleet.__main__",
    "wfm-worker": "device.embed_worker",
}
RUN_BY = {
    "make demo": "tests/e2e/test_line.py",
    "make test": ".ci/run",
    "make check": ".ci/run",
    "make bench": "tests/e2e/test_bench.py",
    "python -m": "tests/unit/benchmarks/test_scale_model.py",
    "curl": "tests/integration/dashboard_api",
    "mosquitto_sub": "tests/integration/test_local_stack.py",
    "wfm-bridge": "tests/e2e/test_line.py",
    "wfm-bridge asyncapi": "tests/contract/test_asyncapi.py",
    "wfm-api": "tests/integration/dashboard_api/test_program.py",
    "wfm-api new-key": "tests/integration/dashboard_api/test_program.py",
    "wfm-api list-keys": "tests/integration/dashboard_api/test_program.py",
    "wfm-device": "tests/integration/device/test_device_program.py",
    "wfm-device annotate": "tests/unit/device/recordings/test_annotate.py",
    "wfm-device compare": "tests/unit/device/cli/test_compare.py",
    "wfm-device doctor": "tests/integration/device/test_doctor_command.py",
    "wfm-device enroll": "tests/e2e/test_recognition.py",
    "wfm-device rejected list": "tests/integration/device/test_device_program.py",
    "wfm-device replay": "tests/unit/device/recordings/test_replay.py",
    "wfm-fleet device decommission": "tests/integration/fleet/test_devices.py",
    "wfm-fleet device move": "tests/integration/fleet/test_devices.py",
    "wfm-fleet identity import": "tests/integration/fleet/test_command.py",
    "wfm-fleet identity export": "tests/integration/fleet/test_command.py",
    "wfm-fleet model add": "tests/integration/fleet/test_models.py",
    "wfm-fleet model calibrate": "tests/integration/fleet/test_models.py",
    "wfm-fleet model evaluate": "tests/unit/fleet/model/test_evaluate.py",
    "wfm-fleet model list": "tests/integration/fleet/test_models.py",
    "wfm-fleet model migrate": "tests/integration/fleet/test_migrate.py",
    "wfm-fleet model remove": "tests/integration/fleet/test_models.py",
    "wfm-fleet restore": "tests/integration/fleet/test_restore.py",
    "wfm-fleet simulate tracks": "tests/integration/fleet/test_simulate_tracks.py",
    "wfm-worker": "tests/integration/device/embedding/test_embed_worker.py",
}
NOT_RUN = {
    "make test-long": "the tests of `make test` in their long forms take hours",
    "make clean": "removes the environment that the tests run in",
    "wfm-device build-engine": "needs a GPU; its parts run in tests/unit/device/vision/inference",
    "pip": "the set-up of `make test` installs the project with all its extras",
    "sudo": "prepares a Jetson",
    "nvcc": "asks a Jetson for its CUDA version",
    "/usr/bin/python3": "asks a Jetson for its TensorRT version, and makes the environment there",
    "python -c": "asks a Jetson for its ONNX Runtime",
    "python3 -c": "a filter of the loop beside it",
    "mongodump": "the tools of MongoDB are not installed; the tests copy the collections",
    "mongorestore": "as mongodump; tests/property/test_restores.py drops and inserts collections",
    "for": "a loop over commands that stand in the list",
}
GROUPS_OF_COMMANDS = {"identity", "device", "model", "simulate", "rejected"}
COMMANDS = list(documented_commands())


def program(command: DocumentedCommand) -> str | None:
    """Return the name of our program that a command starts."""
    first, *rest = command.words
    if first == "python" and rest[0] == "-m":
        return next(
            (name for name, module in MODULES.items() if module.removesuffix(".__main__") == rest[1]), None
        )
    return first if first in MODULES else None


def subcommands(command: DocumentedCommand) -> list[str]:
    """Return the words before the first argument that name a subcommand."""
    words = list(command.words[3:] if command.words[0] == "python" else command.words[1:])
    while words[:1] == ["--config"]:
        words = words[2:]
    depth = 0 if not words else 2 if words[0] in GROUPS_OF_COMMANDS else 1
    # `list|requeue` names two subcommands.
    named = [word.partition("|")[0] for word in words[:depth]]
    return [word for word in named if re.fullmatch(r"[a-z][a-z-]*", word)]


def key(command: DocumentedCommand) -> str:
    """Return the entry of the lists that a command belongs to."""
    name = program(command)
    if name:
        return " ".join([name, *subcommands(command)])
    if command.words[0] in ("make", "python", "python3"):
        return " ".join(command.words[:2])
    return command.words[0]


def test_a_test_runs_every_command_or_the_list_says_why_not() -> None:
    """Both lists have nothing that no page shows."""
    found = {key(command) for command in COMMANDS}
    assert found - set(RUN_BY) - set(NOT_RUN) == set()
    assert (set(RUN_BY) | set(NOT_RUN)) - found == set()
    assert [path for path in RUN_BY.values() if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("path", sorted({key(command) for command in COMMANDS if program(command)}))
def test_the_help_of_a_program_has_every_documented_option(path: str) -> None:
    """The program knows the subcommand and each option that a page shows."""
    name, *words = path.split()
    app = import_module(MODULES[name]).app
    answer = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert answer.exit_code == 0, answer.output
    commands = [command for command in COMMANDS if key(command) == path]
    used = {word for command in commands for word in command.words if word.startswith("--")}
    known = set(re.findall(r"--[a-z0-9-]+", answer.output))
    if words:
        # The page gives this option to the program, before the subcommand.
        known.add("--config")
    assert used <= known


def commands_of(name: str) -> list[DocumentedCommand]:
    return [command for command in COMMANDS if command.words[0] == name]


@pytest.mark.parametrize("command", commands_of("make"), ids=lambda command: command.text)
def test_a_make_target_exists(command: DocumentedCommand) -> None:
    """An argument of `make bench` names a group that there is."""
    target, *settings = command.words[1:]
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for setting in settings:
        if found := re.fullmatch(r"ARGS=--only (\w+)", setting):
            assert found[1] in GROUPS
        else:
            assert setting in {
                "ONCE=1",
                "ARGS=--record",
                "ARGS=--short",
                "ARGS=--small",
                "ARGS=--faces FOLDER",
            }


def is_in(document: dict[str, Any], command: DocumentedCommand) -> bool:
    """Return whether the OpenAPI `document` has every part of a request."""
    words = list(command.words)
    target = next(word for word in words if "/api/" in word)
    url = urlsplit(re.sub(r"^(\$API|https://wfm\.example\.com)", "", target))
    body = next((words[words.index(flag) + 1] for flag in ("-d", "--data-binary") if flag in words), None)
    form = {words[place + 1].partition("=")[0] for place, word in enumerate(words) if word == "-F"}
    method = words[words.index("-X") + 1] if "-X" in words else "POST" if body or form else "GET"
    for path, operations in document["paths"].items():
        operation = operations.get(method.lower())
        if operation is None or not re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), url.path):
            continue
        queries = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
        fields = form if body is None or body.startswith("@") else set(json.loads(body))
        used = {name for name, _ in parse_qsl(url.query)}
        return used <= queries and fields <= properties(document, operation)
    return False


def properties(document: dict[str, Any], operation: dict[str, Any]) -> set[str]:
    """Return the fields of a JSON body or a form of an operation."""
    content = operation.get("requestBody", {}).get("content", {})
    media_type = content.get("application/json") or content.get("multipart/form-data", {})
    schema = media_type.get("schema", {})
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return set(schema.get("properties", ()))


def test_every_request_is_in_the_openapi_document(app: FastAPI) -> None:
    """The document has its path, method, query parameters and fields of the body."""
    document = app.openapi()
    requests = commands_of("curl")
    assert len(requests) > 10
    assert [command.text for command in requests if not is_in(document, command)] == []


@pytest.mark.parametrize(
    "command",
    [command for command in commands_of("mosquitto_sub") if "-t" in command.words],
    ids=lambda command: command.text,
)
def test_a_subscription_matches_topics_of_the_contract(command: DocumentedCommand) -> None:
    """A filter without a match would show nothing, for ever."""
    levels = command.words[command.words.index("-t") + 1].split("/")
    patterns = {"#": ".*", "+": "[^/]+"}
    topic_filter = re.compile("/".join(patterns.get(level, re.escape(level)) for level in levels))
    names = {"device_id": "cam-001", "site_id": "lobby", "event_type": "facial_id", "command": "resync"}
    assert any(topic_filter.fullmatch(channel.pattern.format(**names)) for channel in CHANNELS)
