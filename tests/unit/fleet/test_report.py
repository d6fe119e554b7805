"""The import report: a bar, a table, the first refusals and a file of all."""

import json
import stat
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from fleet.errors import CannotRunError
from fleet.import_source import ImportRefusal
from fleet.report import ImportReport, ProgressBar, RefusalFile


def shown(report: ImportReport, out: StringIO) -> str:
    report.print(dry_run=False)
    return out.getvalue()


def test_a_terminal_shows_a_bar_and_a_pipe_does_not() -> None:
    """The bar shows items done of the total and the number of refusals."""
    terminal, log = StringIO(), StringIO()
    for file, is_terminal in ((terminal, True), (log, False)):
        with ProgressBar(Console(file=file, force_terminal=is_terminal, width=120), "importing", 3) as bar:
            bar.advance(2, "1 refused")
    assert "2/3" in terminal.getvalue()
    assert "1 refused" in terminal.getvalue()
    assert log.getvalue() == ""


def test_a_refusal_is_one_line_on_a_narrow_terminal() -> None:
    """A search for a refusal in a log finds the whole line."""
    out = StringIO()
    report = ImportReport(Console(file=out, width=40), RefusalFile(None))
    report.add_refusal(
        ImportRefusal("people.csv:17", "EMP-1", "file-invalid", "its type is float64, expected float32")
    )
    line = "people.csv:17: its type is float64, expected float32 (file-invalid)"
    assert line in shown(report, out).splitlines()


def test_control_characters_of_file_names_are_not_printed() -> None:
    """Control characters are replaced, and rich's markup is printed as text."""
    out = StringIO()
    report = ImportReport(Console(file=out, width=120), RefusalFile(None))
    report.add_refusal(ImportRefusal("EMP\x1b[2J\n[bold]x.jpg", None, "file-invalid", "it is a link"))
    text = shown(report, out)
    assert "\x1b" not in text
    assert "EMP\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}[bold]x.jpg: it is a link" in text


def test_the_terminal_shows_ten_refusals_and_the_file_has_all(tmp_path: Path) -> None:
    """Only the owner can read the file."""
    out = StringIO()
    file = tmp_path / "report"
    with RefusalFile.open(file) as refusals:
        report = ImportReport(Console(file=out, width=120), refusals)
        for n in range(25):
            report.add_refusal(ImportRefusal(f"people.csv:{n}", f"EMP-{n}", "request-invalid", "no"))
    text = shown(report, out)
    assert text.count("people.csv:") == 10
    assert "and 15 more" in text
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 25
    refusal = {"where": "people.csv:3", "user_id": "EMP-3", "code": "request-invalid", "detail": "no"}
    assert lines[3] == {**refusal, "refused": True}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_report_file_is_not_opened_through_a_link(tmp_path: Path) -> None:
    """A writer of the folder cannot choose the file that is overwritten."""
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "report").symlink_to(tmp_path / "precious")
    with pytest.raises(CannotRunError, match="cannot be written"):
        RefusalFile.open(tmp_path / "report")
    assert (tmp_path / "precious").read_text() == "kept"
