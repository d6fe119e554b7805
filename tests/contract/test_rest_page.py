"""docs/rest.md has every code of the REST API and every setting with its default."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_bridge.common.settings import Section
from broker_bridge.contract import errors
from broker_bridge.registry.detected_persons.settings import SearchSettings, TrackingSettings
from broker_bridge.registry.settings import RegistrySettings
from dashboard_api.settings import ApiSettings
from deploy.local.stack import ROOT
from device.vision.photos.errors import PHOTO_INVALID, PHOTO_NO_FACE, PHOTO_POOR, PHOTO_SEVERAL_FACES

PAGE = (ROOT / "docs" / "rest.md").read_text(encoding="utf-8")
CODE = re.compile(r"[a-z]+(?:-[a-z]+)*")
RAISED = {"Problem": 1, "ContractError": 0}
"""The place of the code among the arguments."""


def sources() -> Iterator[Path]:
    for folder in ("broker_bridge/registry", "dashboard_api"):
        yield from (ROOT / folder).rglob("*.py")


def raised(tree: ast.Module, constants: dict[str, str]) -> Iterator[str]:
    """Return the codes in `Problem(status, code, ...)` and `ContractError(code, ...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED:
            position = RAISED[node.func.id]
            code = node.args[position] if len(node.args) > position else None
            if isinstance(code, ast.Constant) and isinstance(code.value, str):
                yield code.value
            elif isinstance(code, ast.Name) and code.id in constants:
                yield constants[code.id]


def constants(trees: list[ast.Module]) -> dict[str, str]:
    found = {name: value for name, value in vars(errors).items() if name.isupper()}
    for node in (statement for tree in trees for statement in tree.body if isinstance(statement, ast.Assign)):
        if isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant):
            found[node.targets[0].id] = node.value.value
    return found


def test_every_code_of_an_answer_is_explained() -> None:
    """The code is explained on this page or on the page of the wire."""
    trees = [ast.parse(file.read_text()) for file in sources()]
    codes = {code for tree in trees for code in raised(tree, constants(trees))}
    assert {"key-missing", "person-merged", "picture-refused", "registry-busy"} <= codes
    codes |= {PHOTO_INVALID, PHOTO_NO_FACE, PHOTO_POOR, PHOTO_SEVERAL_FACES}
    table = PAGE[PAGE.index("## Problems") : PAGE.index("## Settings")]
    named = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    explained = {code for cell in named for code in re.findall(r"`([a-z-]+)`", cell)}
    wire = {value for name, value in vars(errors).items() if name.isupper()}
    assert {code for code in codes if CODE.fullmatch(code)} - wire <= explained


@pytest.mark.parametrize("section", [ApiSettings, RegistrySettings, TrackingSettings, SearchSettings])
def test_every_setting_is_documented_with_its_default(section: type[Section]) -> None:
    """The form is `name` (default)."""
    shown = dict(re.findall(r"`(\w+)` \(([^)]*)\)", PAGE))
    for name, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, dict):
            documented = ", ".join(default.values()) or "none"
        else:
            documented = "none" if default is None else str(default).lower()
        assert shown.get(name) == documented, name
