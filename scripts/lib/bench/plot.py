"""docs/benchmarks.svg: one small bar chart for each row, written by hand."""

from __future__ import annotations

from html import escape
from pathlib import Path

from scripts.lib.bench.definitions import Row
from scripts.lib.bench.report import Run, number

COLOURS = {
    "ours": "#f37726",
    "chp": "#4e4e4e",
    "traefik": "#24a1c1",
    "caddy": "#1f88c0",
    "nginx": "#b5b5b5",
}
COLUMNS = 2
PANEL_WIDTH = 430
LABEL_WIDTH = 118
BAR_WIDTH = 210
BAR_HEIGHT = 17
PANEL_GAP = 26
TITLE_HEIGHT = 26
HEADER_HEIGHT = 48


def write(run: Run, folder: Path) -> Path:
    """Write the chart of all rows with a figure of at least two contenders."""
    rows = [row for row in run.rows if len(_bars(run, row)) > 1]
    file = folder / "benchmarks.svg"
    file.write_text(_svg(run, rows), "utf-8")
    return file


def _bars(run: Run, row: Row) -> list[tuple[str, str, float, str]]:
    """Name, title, value and label of each contender with a figure."""
    bars = []
    for contender in run.contenders:
        figure = "memory" if row.key == "idle" else "cpu_us"
        value = run.results.value(row.key, contender.name, figure)
        if value is not None:
            label = f"{number(value / 1024)} KiB" if row.key == "idle" else f"{number(value)} µs"
            bars.append((contender.name, contender.title, value, label))
    return bars


def _svg(run: Run, rows: list[Row]) -> str:
    panels = [_panel(run, row) for row in rows]
    height, body = HEADER_HEIGHT, []
    for start in range(0, len(panels), COLUMNS):
        line = panels[start : start + COLUMNS]
        for column, (_, text) in enumerate(line):
            body.append(
                f'<g transform="translate({column * PANEL_WIDTH + 16} {height})">{text}</g>'
            )
        height += max(panel_height for panel_height, _ in line) + PANEL_GAP
    width = COLUMNS * PANEL_WIDTH + 16
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="system-ui, sans-serif" '
            'font-size="12">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            '<text x="16" y="28" font-size="16" font-weight="600" fill="#222222">'
            "CPU time for one unit of work (idle WebSockets: memory); shorter is better</text>",
            *body,
            "</svg>",
            "",
        ]
    )


def _panel(run: Run, row: Row) -> tuple[int, str]:
    """Height and content of one chart."""
    bars = _bars(run, row)
    longest = max(value for _, _, value, _ in bars) or 1.0
    parts = [f'<text y="12" font-weight="600" fill="#222222">{escape(row.title)}</text>']
    for index, (name, title, value, label) in enumerate(bars):
        top = TITLE_HEIGHT + index * (BAR_HEIGHT + 4)
        width = max(1.0, value / longest * BAR_WIDTH)
        base = top + BAR_HEIGHT - 5
        weight = ' font-weight="600"' if name == "ours" else ""
        parts.append(
            f'<text x="{LABEL_WIDTH - 8}" y="{base}" text-anchor="end" fill="#444444"{weight}>'
            f"{escape(title)}</text>"
            f'<rect x="{LABEL_WIDTH}" y="{top}" width="{width:.1f}" height="{BAR_HEIGHT}" '
            f'fill="{COLOURS.get(name, "#888888")}"/>'
            f'<text x="{LABEL_WIDTH + width + 6:.1f}" y="{base}" fill="#222222"{weight}>'
            f"{escape(label)}</text>"
        )
    return TITLE_HEIGHT + len(bars) * (BAR_HEIGHT + 4), "".join(parts)
