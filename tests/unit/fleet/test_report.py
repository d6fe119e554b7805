"""What an import shows: a bar on a terminal, a table, the first refusals, and all of them in a file."""

import json
import stat
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from fleet.errors import CannotRunError
from fleet.import_source import ImportRefusal
from fleet.report import Bar, ImportReport, RefusalFile


def shown(report: ImportReport, out: StringIO) -> str:
    report.print(dry_run=False)
    return out.getvalue()


def test_a_terminal_has_a_bar_and_a_log_has_none() -> None:
    """People done of the total, and how many were refused; standard error of a script stays clean."""
    terminal, log = StringIO(), StringIO()
    for file, is_terminal in ((terminal, True), (log, False)):
        with Bar(Console(file=file, force_terminal=is_terminal, width=120), "importing", 3) as bar:
            bar.advance(2, "1 refused")
    assert "2/3" in terminal.getvalue()
    assert "1 refused" in terminal.getvalue()
    assert log.getvalue() == ""


def test_a_refusal_is_one_line_however_narrow_the_terminal() -> None:
    """For who searches a log for it."""
    out = StringIO()
    report = ImportReport(Console(file=out, width=40), RefusalFile(None))
    report.refuse(
        ImportRefusal("people.csv:17", "EMP-1", "file-invalid", "its type is float64, expected float32")
    )
    line = "people.csv:17: its type is float64, expected float32 (file-invalid)"
    assert line in shown(report, out).splitlines()


def test_hostile_names_of_files_do_not_reach_the_terminal() -> None:
    """Neither control characters nor what rich takes for markup."""
    out = StringIO()
    report = ImportReport(Console(file=out, width=120), RefusalFile(None))
    report.refuse(ImportRefusal("EMP\x1b[2J\n[bold]x.jpg", None, "file-invalid", "it is a link"))
    text = shown(report, out)
    assert "\x1b" not in text
    assert "EMP\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}[bold]x.jpg: it is a link" in text


def test_the_terminal_shows_the_first_and_the_file_has_all(tmp_path: Path) -> None:
    """Ten are shown; the file is its owner's alone."""
    out = StringIO()
    file = tmp_path / "report"
    with RefusalFile.open(file) as refusals:
        report = ImportReport(Console(file=out, width=120), refusals)
        for n in range(25):
            report.refuse(ImportRefusal(f"people.csv:{n}", f"EMP-{n}", "request-invalid", "no"))
    text = shown(report, out)
    assert text.count("people.csv:") == 10
    assert "and 15 more" in text
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 25
    told = {"where": "people.csv:3", "user_id": "EMP-3", "code": "request-invalid", "detail": "no"}
    assert lines[3] == {**told, "refused": True}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_report_goes_through_no_link(tmp_path: Path) -> None:
    """Whoever may write to the folder must not choose which file is emptied."""
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "report").symlink_to(tmp_path / "precious")
    with pytest.raises(CannotRunError, match="cannot be written"):
        RefusalFile.open(tmp_path / "report")
    assert (tmp_path / "precious").read_text() == "kept"
