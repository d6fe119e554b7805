"""Write benchmarks/RESULTS.md, and read from it since when a row is missed.

A run of some groups replaces their sections and leaves the others as they are.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stats import Note, Row, format_ms

RESULTS = Path(__file__).parents[1] / "RESULTS.md"
_HEADING = re.compile(r"^## (\w+), (\d{4}-\d\d-\d\d)$", re.MULTILINE)
_COLUMNS = ("what", "samples", "p50 ms", "p99 ms", "worst ms", "ratio to bare", "must", "state")
_MISSED = "**missed since {}**"
_SINCE = re.compile(r"\*\*missed since (\d{4}-\d\d-\d\d)\*\*")
_STATE = re.compile(r"\s*\b(?:holds|MISSED)\b")
# Figures in a name change from run to run.
_FIGURE = re.compile(r"\d[\d,.]*")

Key = tuple[str, int]


@dataclass(frozen=True)
class Section:
    """One group of an earlier record, with the date of its run."""

    group: str
    date: str
    text: str


def write_record(
    file: Path, machine: Mapping[str, str], groups: Mapping[str, Sequence[Row | Note]], date: str
) -> None:
    """Write the record of a run of `groups`; keep the sections of other groups."""
    earlier = {section.group: section for section in read_sections(file)}
    sections = dict(earlier)
    for group, results in groups.items():
        before = missed_since(earlier[group]) if group in earlier else {}
        sections[group] = Section(group, date, _describe(results, before, date))
    parts = [_head(machine, date)]
    parts += [f"## {section.group}, {section.date}\n\n{section.text}" for section in sections.values()]
    file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def read_sections(file: Path) -> list[Section]:
    """Return the sections of a record, none if there is no file."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return [
        Section(heading[1], heading[2], text[heading.end() : end].strip())
        for heading, end in zip(headings, ends, strict=True)
    ]


def missed_since(section: Section) -> dict[Key, str]:
    """Return since when each missed row of a section is missed."""
    missed = {}
    rows = [_cells(line) for line in section.text.splitlines() if line.startswith("| ")]
    for key, cells in zip(row_keys(cells[0] for cells in rows), rows, strict=True):
        if found := _SINCE.search(cells[-1]):
            missed[key] = found[1]
    return missed


def row_keys(names: Iterator[str]) -> Iterator[Key]:
    """Yield a key for each row that stays the same when its figures change.

    It is the name without figures, and how many rows before it have the same.
    """
    seen: Counter[str] = Counter()
    for name in names:
        plain = _FIGURE.sub("#", name.strip())
        yield plain, seen[plain]
        seen[plain] += 1


def _head(machine: Mapping[str, str], date: str) -> str:
    lines = [
        "# Results of `make bench`",
        "",
        'Written by `make bench ARGS="--record"`. Absolute figures depend on the machine and on what',
        "else runs there; ratios of medians transfer. Where a row has a ratio, ours and the bare library",
        "took turns, at least five each; observations are one stream of ours after one of the bare echo.",
        "",
        f"Last run on {date}:",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_escape(value)} |" for name, value in machine.items()),
    ]
    return "\n".join(lines)


def _describe(results: Sequence[Row | Note], before: Mapping[Key, str], date: str) -> str:
    rows = [one for one in results if isinstance(one, Row)]
    lines = [" | ".join(("", *_COLUMNS, "")).strip(), "|" + "---|" * len(_COLUMNS)]
    # Keys come from the cells as they are written, so that the next run reads the same.
    keys = row_keys(_escape(row.name) for row in rows)
    lines += [_line(row, before.get(key, date)) for row, key in zip(rows, keys, strict=True)]
    lines += ["", *(f"{one.text}." for one in results if isinstance(one, Note))]
    return "\n".join(lines).strip()


def _line(row: Row, since: str) -> str:
    must = row.must
    state = ("holds" if row.holds else _MISSED.format(since)) if must or not row.holds else ""
    latency = row.latency
    times = [format_ms(each) if latency.count else "" for each in (latency.p50, latency.p99, latency.worst)]
    cells = (
        _escape(row.name),
        str(latency.count or ""),
        *times,
        "" if row.ratio is None else f"{row.ratio:.2g}x",
        _escape(_STATE.sub("", must)).rstrip(", "),
        state,
    )
    return f"| {' | '.join(cells)} |"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" |")]


def _escape(text: str) -> str:
    return text.strip().replace("|", "\\|").replace("\n", " ")
