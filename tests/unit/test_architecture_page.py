"""docs/architecture.md names the files, symbols and folders that exist."""

import ast
import re
from pathlib import Path

import pytest

from tests.source_tree import PACKAGES, ROOT, imports, modules

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LIVES = ("The life of a recognition event", "The life of an enrollment change")


def section(title: str) -> str:
    """Return the text below a heading."""
    return PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def life(title: str) -> list[tuple[str, str]]:
    """Return file and symbol of each row."""
    rows: list[tuple[str, str]] = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", section(title), re.MULTILINE)
    assert len(rows) >= 12
    return rows


def defined(file: Path) -> set[str]:
    """Return the names that a module defines at its top level."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@pytest.mark.parametrize("title", LIVES)
def test_every_step_of_a_life_is_in_its_file(title: str) -> None:
    """Each file of a life exists and defines the symbol beside it."""
    wrong = [(file, symbol) for file, symbol in life(title) if symbol not in defined(ROOT / file)]
    assert wrong == []


@pytest.mark.parametrize("title", LIVES)
def test_every_file_of_a_life_is_used_by_its_program(title: str) -> None:
    """The `__main__` of a program imports each file of a life, directly or not."""
    graph = {module: _targets(module, file) for module, file in modules()}
    for file, _ in life(title):
        module = file.removesuffix(".py").replace("/", ".")
        assert module in _reachable(f"{file.split('/')[0]}.__main__", graph), file


def _targets(module: str, file: Path) -> set[str]:
    package = file.name == "__init__.py"
    return set(imports(module, file.read_text(encoding="utf-8"), package=package))


def _reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    """Return the modules that `start` imports at any distance."""
    found, queue = {start}, [start]
    while queue:
        for name in graph[queue.pop()]:
            target = name
            while target and target not in graph:
                target = target.rpartition(".")[0]
            if target and target not in found:
                found.add(target)
                queue.append(target)
    return found


def test_every_path_on_the_page_exists() -> None:
    """Each path in backticks, in the tables and in the text, is a file or a folder."""
    paths = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.[a-z]+)?)`", PAGE)
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_tree_names_every_folder() -> None:
    """The folders in the page's tree are exactly the folders of the packages."""
    found: set[str] = set()
    parents: list[str] = []
    for line in section("The tree").split("```")[1].splitlines():
        names = re.match(r"( *)((?:[a-z_]+/ ?)+)", line)
        if not names:
            continue
        depth = len(names.group(1)) // 2
        if depth > 3:
            continue
        folders = names.group(2).split()
        for folder in folders:
            parents[depth:] = [folder.rstrip("/")]
            found.add("/".join(parents))
    ours = {path for path in found if path.split("/")[0] in PACKAGES}
    there = {
        str(file.parent.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert ours == there
