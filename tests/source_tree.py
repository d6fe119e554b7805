"""Read the product's own source: its modules and what they import."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("broker_bridge", "device", "dashboard_api", "fleet")
TOOLS = ("deploy", "benchmarks")
"""Packages of the repository that are not installed."""


def imports(module: str, source: str, *, package: bool = False) -> Iterator[str]:
    """Yield the dotted names that `source` imports at any depth, made absolute.

    `from a.b import c` yields `a.b.c`: whether `c` is a module or a name in one, it lies in `a.b`.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = module.split(".")
            base = here[: len(here) - node.level + package] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def modules(packages: tuple[str, ...] = PACKAGES) -> Iterator[tuple[str, Path]]:
    for package in packages:
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file
