"""Both API documents pass linters, and clients can be made from them."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from dashboard_api.app import create_app
from dashboard_api.settings import ApiSettings
from deploy.local.stack import ROOT

TOOLS = Path(__file__).parent / "tools"
INSTALLED = ROOT / ".wfm" / "contract-tools"
ASYNCAPI = ROOT / "docs" / "asyncapi.json"
METHODS = {"get", "post", "put", "patch", "delete"}


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Return the output of a command; fail with it unless the status is 0."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tools() -> Path:
    """Return the folder of the installed node programs."""
    run([TOOLS / "install.sh"], TOOLS)
    return INSTALLED / "node_modules" / ".bin"


@pytest.fixture(scope="module")
def openapi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the OpenAPI document."""
    file = tmp_path_factory.mktemp("openapi") / "openapi.json"
    file.write_text(json.dumps(create_app(MagicMock(), ApiSettings()).openapi()))
    return file


def test_redocly_finds_nothing(tools: Path, openapi: Path) -> None:
    """The recommended rules, warnings included."""
    command = [tools / "redocly", "lint", "--config", TOOLS / "redocly.yaml", "--format", "json", openapi]
    output = run(command, openapi.parent)
    totals = json.loads(output[output.index("{") : output.rindex("}") + 1])["totals"]
    assert (totals["errors"], totals["warnings"]) == (0, 0), output


def test_spectral_finds_nothing(tools: Path, openapi: Path) -> None:
    """All rules for both documents, warnings included."""
    rules = ["--ruleset", TOOLS / "spectral.yaml", "--fail-severity", "warn"]
    run([tools / "spectral", "lint", *rules, openapi, ASYNCAPI], openapi.parent)


def test_a_typescript_client_is_typed(tools: Path, openapi: Path) -> None:
    """A program over the generated types compiles, and a misspelt field does not."""
    run([tools / "openapi-typescript", openapi, "-o", "schema.d.ts"], openapi.parent)
    (openapi.parent / "client.ts").write_text((TOOLS / "client.ts").read_text())
    run([tools / "tsc", "--noEmit", "--strict", "client.ts"], openapi.parent)


def test_a_python_client_has_every_operation(tools: Path, openapi: Path) -> None:
    """The generator skips none, and what it writes is Python."""
    client = openapi.parent / "client"
    (openapi.parent / "config.yaml").write_text("post_hooks: []\n")
    generator = [INSTALLED / "python" / "bin" / "openapi-python-client", "generate", "--path", openapi]
    output = run(
        [*generator, "--meta", "none", "--config", "config.yaml", "--output-path", client], openapi.parent
    )
    assert "will not be generated" not in output, output
    document = json.loads(openapi.read_text())
    operations = [path for path, item in document["paths"].items() for method in item if method in METHODS]
    modules = [module for module in client.glob("api/*/*.py") if module.name != "__init__.py"]
    assert len(modules) == len(operations)
    for module in client.rglob("*.py"):
        compile(module.read_text(), module, "exec")
