"""The layout of the source: no import circle, no crowded folder."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.source_tree import PACKAGES, ROOT, TOOLS, imports, modules

MOST_FILES = 15


def import_graph(sources: Mapping[str, str], packages: frozenset[str]) -> dict[str, set[str]]:
    """Return the modules among `sources` that each imports, at any depth of code."""
    return {
        module: {
            target
            for name in imports(module, source, package=module in packages)
            if (target := _module_of(name, sources)) and target != module
        }
        for module, source in sources.items()
    }


def _module_of(name: str, sources: Mapping[str, str]) -> str | None:
    """Return the module that holds the dotted `name`, which may be a module itself."""
    while name and name not in sources:
        name = name.rpartition(".")[0]
    return name or None


def circles(graph: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Yield groups of modules that import each other.

    They are the strongly connected components (Tarjan 1972).
    """
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []

    def visit(module: str) -> Iterator[list[str]]:
        order[module] = low[module] = len(order)
        path.append(module)
        for target in sorted(graph[module]):
            if target not in order:
                yield from visit(target)
                low[module] = min(low[module], low[target])
            elif target in path:
                low[module] = min(low[module], order[target])
        if low[module] == order[module]:
            group = path[path.index(module) :]
            del path[-len(group) :]
            if len(group) > 1:
                yield sorted(group)

    for module in graph:
        if module not in order:
            yield from visit(module)


def our_graph() -> dict[str, set[str]]:
    files = dict(modules(PACKAGES + TOOLS))
    packages = frozenset(module for module, file in files.items() if file.name == "__init__.py")
    return import_graph(
        {module: file.read_text(encoding="utf-8") for module, file in files.items()}, packages
    )


def test_no_modules_import_each_other() -> None:
    """The imports of our modules, lazy and type-checking ones too, form no circle."""
    assert list(circles(our_graph())) == []


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"a": "import b", "b": ""}, []),
        ({"a": "import b", "b": "import a"}, [["a", "b"]]),
        ({"a": "import b", "b": "def late():\n    import a"}, [["a", "b"]]),
        ({"a": "import b", "b": "if TYPE_CHECKING:\n    from a import A"}, [["a", "b"]]),
        ({"a": "import b", "b": "import c", "c": "import a", "d": "import a"}, [["a", "b", "c"]]),
        (
            {"p": "from .a import A", "p.a": "from . import b", "p.b": "from p import A"},
            [["p", "p.a", "p.b"]],
        ),
        ({"p": "from .a import A", "p.a": "from . import b", "p.b": ""}, []),
    ],
)
def test_a_circle_is_found(sources: dict[str, str], found: list[list[str]]) -> None:
    """The search sees plain, lazy, type-checking and package circles, and no others."""
    assert list(circles(import_graph(sources, frozenset({"p"})))) == found


def python_files(root: Path) -> dict[str, int]:
    """Count the Python files in each folder of our code, without `__init__.py`."""
    return Counter(
        str(file.parent.relative_to(root))
        for package in PACKAGES + TOOLS
        for file in (root / package).rglob("*.py")
        if file.name != "__init__.py"
    )


def crowded(root: Path) -> dict[str, int]:
    return {folder: count for folder, count in python_files(root).items() if count > MOST_FILES}


def test_no_folder_is_crowded() -> None:
    """No folder of our code has more than 15 Python files."""
    assert crowded(ROOT) == {}


def test_a_crowded_folder_is_found(tmp_path: Path) -> None:
    """Sixteen files in a folder are too many, fifteen beside `__init__.py` are not."""
    for folder, count in (("device/a", 16), ("device/b", 15)):
        (tmp_path / folder).mkdir(parents=True)
        for n in range(count):
            (tmp_path / folder / f"m{n}.py").touch()
        (tmp_path / folder / "__init__.py").touch()
    assert crowded(tmp_path) == {"device/a": 16}
