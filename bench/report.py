"""Results as a table for people. Pure: values in, text out."""

from collections.abc import Mapping, Sequence

Rows = Sequence[Mapping[str, object]]


def render(part: str, result: Mapping[str, object]) -> str:
    """Return one part as Markdown."""
    lines = [f"## {part}", ""]
    for name, value in result.items():
        if name == "notes" or not isinstance(value, list):
            continue
        lines += [f"### {name}", "", *_table(value), ""]
    lines += [f"- {name}: {value}" for name, value in result.items() if isinstance(value, str | int | float)]
    notes = result.get("notes")
    lines += [f"- {note}" for note in notes] if isinstance(notes, list) else []
    return "\n".join(lines).rstrip() + "\n"


def _table(rows: Rows) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("parts", "failed")))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    drawn = [
        "| "
        + " | ".join(_pad(cell, width, at) for at, (cell, width) in enumerate(zip(line, widths, strict=True)))
        + " |"
        for line in cells
    ]
    rule = (
        "|" + "|".join("-" * (width + 1) + ("-" if at == 0 else ":") for at, width in enumerate(widths)) + "|"
    )
    below = [f"  {row['proxy']}: {_parts(row['parts'])}" for row in rows if "parts" in row]
    below += [f"  {row['proxy']} FAILED: {row['failed']}" for row in rows if "failed" in row]
    return [drawn[0], rule, *drawn[1:], *([""] if below else []), *below]


def _pad(cell: str, width: int, at: int) -> str:
    return cell.ljust(width) if at == 0 else cell.rjust(width)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " to ".join(_cell(one) for one in value)
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _parts(parts: object) -> str:
    assert isinstance(parts, Mapping)
    return "CPU µs " + ", ".join(f"{name} {value}" for name, value in parts.items())
