"""Check the rules of the house that no linter knows; `make check` runs it.

Prose: a budget for pronouns that hide a missing noun, short first lines of docstrings, one form of log lines.
Names: a class name is defined once, a folder and module name stand together once in each package.
Size: the median and the longest module, the longest function.
"""

import ast
import re
import subprocess
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from statistics import median

from tests.log_form import LOG_MESSAGE

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("broker_bridge", "device", "dashboard_api", "fleet")

PRONOUNS = re.compile(r"\b(who|whom|whoever|nobody|somebody|everybody)\b", re.IGNORECASE)
MOST_PRONOUNS = 20
FIRST_LINE = 80
MOST_MEDIAN = 120
MOST_MODULE = 300
MOST_FUNCTION = 60
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}

Source = tuple[str, str]
"""A path relative to the root, and the text of the file."""


def sources() -> list[Source]:
    """Return every Python file that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = sorted(path for path in listed.stdout.splitlines() if (ROOT / path).exists())
    return [(path, (ROOT / path).read_text(encoding="utf-8")) for path in paths]


def is_product(path: str) -> bool:
    return path.split("/", maxsplit=1)[0] in PRODUCT


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment and string of a module.

    A string without a blank is a key or an id.
    """
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    for token in tokenize.generate_tokens(StringIO(text).readline):
        if token.type in kinds and " " in token.string:
            yield token.start[0], token.string


def check_pronouns(files: Iterable[Source], most: int = MOST_PRONOUNS) -> list[str]:
    """Return where the budget's pronouns stand, if they are more than `most` in all."""
    found = [
        f"{path}:{line}: {match.group(0)!r}: name the thing that acts"
        for path, text in files
        if path not in ("tests/check_house.py", "tests/unit/test_check_house.py")
        for line, string in prose(text)
        for match in PRONOUNS.finditer(string)
    ]
    return found if len(found) > most else []


def check_docstrings(files: Iterable[Source]) -> list[str]:
    """Return the docstrings with a first line that is too long or has no period."""
    found = []
    for path, text in files:
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            line = getattr(node, "lineno", 1)
            if len(first) > FIRST_LINE:
                found.append(f"{path}:{line}: the docstring's first line has {len(first)} characters")
            elif first and not first.endswith((".", "?", "!", ":")):
                found.append(f"{path}:{line}: the docstring's first line does not end a sentence")
    return found


def check_classes(files: Iterable[Source]) -> list[str]:
    """Return the class names that two modules of the product define."""
    places = defaultdict(list)
    for path, text in files:
        if is_product(path):
            for node in ast.parse(text).body:
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(path)
    return [
        f"class {name} is defined in {', '.join(found)}" for name, found in places.items() if len(found) > 1
    ]


def check_modules(files: Iterable[Source]) -> list[str]:
    """Return the modules that share folder and module name within one package."""
    places = defaultdict(list)
    for path, _ in files:
        if is_product(path) and not path.endswith("__init__.py"):
            parts = path.split("/")
            package, folder, module = parts[0], parts[-2], parts[-1]
            places[package, folder, module].append(path)
    return [
        f"two modules with one name: {' and '.join(found)}" for found in places.values() if len(found) > 1
    ]


def check_logs(files: Iterable[Source]) -> list[str]:
    """Return the log calls of the product that are not `component event key=%s ...`."""
    found = []
    for path, text in files:
        if not is_product(path):
            continue
        for node in ast.walk(ast.parse(text)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            if node.func.attr in LOG_METHODS and isinstance(owner, ast.Name) and owner.id == "_log":
                message = node.args[0]
                text_of = message.value if isinstance(message, ast.Constant) else None
                if not (isinstance(text_of, str) and LOG_MESSAGE.match(text_of)):
                    found.append(f"{path}:{node.lineno}: a log line is '<component> <event> key=%s ...'")
    return found


def check_sizes(files: Iterable[Source]) -> list[str]:
    """Return long modules, long functions, and a median module past 120 lines."""
    lengths, found = Counter[str](), []
    for path, text in files:
        if not is_product(path):
            continue
        lengths[path] = len(text.splitlines())
        if lengths[path] > MOST_MODULE:
            found.append(f"{path}: {lengths[path]} lines, at most {MOST_MODULE}")
        if path.endswith("bootstrap.py"):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # The signature of a command is its options.
                length = (node.end_lineno or 0) - node.body[0].lineno + 1
                if length > MOST_FUNCTION:
                    found.append(
                        f"{path}:{node.lineno}: {node.name} has {length} lines, at most {MOST_FUNCTION}"
                    )
    sizes = [length for path, length in lengths.items() if length > 1]
    if sizes and median(sizes) > MOST_MEDIAN:
        found.append(f"the median module has {median(sizes):g} lines, at most {MOST_MEDIAN}")
    return found


CHECKS = (check_pronouns, check_docstrings, check_classes, check_modules, check_logs, check_sizes)


def main() -> int:
    """Print every broken rule; return 1 if there is one."""
    files = sources()
    broken = [sentence for check in CHECKS for sentence in check(files)]
    print("\n".join(broken) or f"the house is in order: {len(files)} files")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
