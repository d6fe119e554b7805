"""Each check of `make check` that is our own notices what it is there for."""

import pytest

from tests import check_house as house


def lines(count: int) -> str:
    return "x = 1\n" * count


@pytest.mark.parametrize(
    ("check", "path", "text"),
    [
        (house.check_pronouns, "device/a.py", '"""Tell whom."""\n' * 21),
        (house.check_pronouns, "tests/a.py", "# Nobody\n" * 21),
        (house.check_pronouns, "device/a.py", "x = f'nobody {x} nobody'\n" * 11),
        (house.check_docstrings, "device/a.py", f'"""{"x" * 80}."""'),
        (house.check_docstrings, "tests/a.py", f'def f():\n    """{"x" * 81}\n\n    More."""'),
        (house.check_docstrings, "device/a.py", 'class A:\n    """A thing\n    that goes on."""'),
        (house.check_logs, "device/a.py", '_log.info("Started")'),
        (house.check_logs, "device/a.py", '_log.info("client %s started", 1)'),
        (house.check_logs, "device/a.py", '_log.info("client started id=%s late", 1)'),
        (house.check_logs, "device/a.py", '_log.info(f"client started id={x}")'),
        (house.check_sizes, "device/a.py", lines(301)),
        (house.check_sizes, "device/a.py", lines(121)),
        (house.check_sizes, "device/a.py", "def f():\n" + "    x = 1\n" * 61),
    ],
)
def test_a_broken_rule_is_found(check: object, path: str, text: str) -> None:
    """A file that breaks a rule is named."""
    assert callable(check)
    assert check([(path, text)])


@pytest.mark.parametrize(
    ("check", "path", "text"),
    [
        (house.check_pronouns, "device/a.py", "# Nobody\n" * 20),
        (house.check_pronouns, "device/a.py", "nobody = 1\n" * 30),
        (house.check_docstrings, "device/a.py", f'"""{"x" * 79}.\n\nMore than that."""'),
        (house.check_logs, "device/a.py", '_log.info("client started id=%s after=%.1f", 1, 2)'),
        (house.check_logs, "device/a.py", '_log.info("client started; nothing to do")'),
        (house.check_logs, "tests/a.py", '_log.info("Started.")'),
        (house.check_sizes, "device/a.py", lines(120)),
        (house.check_sizes, "tests/a.py", lines(500)),
        (house.check_sizes, "device/a.py", "def f(\n" + "    a=1,\n" * 70 + "):\n    return 1\n"),
    ],
)
def test_a_kept_rule_is_not_found(check: object, path: str, text: str) -> None:
    """A file within the rules is not named."""
    assert callable(check)
    assert check([(path, text)]) == []


def test_a_class_is_defined_once() -> None:
    """Two modules of the product with one class name are found; a test may reuse it."""
    twice = [("device/a.py", "class A: ..."), ("fleet/b.py", "class A: ..."), ("tests/c.py", "class A: ...")]
    assert house.check_classes(twice) == ["class A is defined in device/a.py, fleet/b.py"]
    assert house.check_classes(twice[1:]) == []


def test_a_folder_tells_modules_apart() -> None:
    """One folder and module name twice in one package is found."""
    assert house.check_modules([("device/a/b.py", ""), ("device/c/a/b.py", "")])
    assert house.check_modules([("device/a/b.py", ""), ("device/c/b.py", ""), ("fleet/a/b.py", "")]) == []
