#!/usr/bin/env python3
"""Draws the bar charts of docs/performance.md. Needs Python 3 and nothing else.

  benches/plots.py                        draws docs/plots/NAME.svg from each docs/plots/NAME.tsv
  benches/plots.py ratios RAW > NAME.tsv  makes such a table from what a benchmark wrote:
                                          benches/exchange/run --raw RAW (tab separated, one line
                                          per workload, side and round)

A table has comment lines (`# title: ...`, `# unit: ...`, `# line: VALUE LABEL` for a reference
line), a header and rows: the first column names the group, each further column is a series.
Numbers only; an empty cell draws no bar.
"""

import csv
import pathlib
import statistics
import sys
from html import escape

PLOTS = pathlib.Path(__file__).resolve().parent.parent / "docs" / "plots"
COLOURS = ["#1f6f8b", "#e0a458", "#8d99ae"]
WIDTH, LEFT, RIGHT, TOP, BAR, GAP = 720, 200, 60, 62, 14, 14


def read_table(path):
    """The options, the names of the series, and the rows as (group, values)."""
    options, lines = {}, []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            name, _, value = line[1:].partition(":")
            options[name.strip()] = value.strip()
        elif line.strip():
            lines.append(line.split("\t"))
    rows = [(row[0], [float(v) if v else None for v in row[1:]]) for row in lines[1:]]
    return options, lines[0][1:], rows


def text(x, y, content, anchor="start", size=12, weight="normal"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}" '
            f'font-weight="{weight}">{escape(content)}</text>')


def draw(options, series, rows):
    """The chart as SVG."""
    line, _, line_label = options.get("line", "").partition(" ")
    values = [v for _, row in rows for v in row if v is not None]
    top = max(values + ([float(line)] if line else [])) * 1.05
    scale = (WIDTH - LEFT - RIGHT) / top
    group_height = BAR * len(series) + GAP
    height = TOP + group_height * len(rows) + 16
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
           'font-family="sans-serif" fill="#222">',
           f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
           text(12, 20, options.get("title", ""), size=14, weight="bold")]
    x = 12
    for colour, name in zip(COLOURS, series):
        out.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{colour}"/>')
        out.append(text(x + 17, 42, name))
        x += 40 + 7 * len(name)
    out.append(text(WIDTH - 12, 42, options.get("unit", ""), "end"))
    for index, (group, row) in enumerate(rows):
        y = TOP + index * group_height
        out.append(text(LEFT - 8, y + (group_height - GAP) / 2 + 4, group, "end"))
        for number, value in enumerate(row):
            if value is None:
                continue
            bar = y + number * BAR
            out.append(f'<rect x="{LEFT}" y="{bar}" width="{value * scale:.1f}" '
                       f'height="{BAR - 2}" fill="{COLOURS[number]}"/>')
            out.append(text(LEFT + value * scale + 4, bar + 10, f"{value:g}", size=11))
    if line:
        x = LEFT + float(line) * scale
        out.append(f'<line x1="{x:.1f}" y1="{TOP - 4}" x2="{x:.1f}" y2="{height - 14}" '
                   'stroke="#b00" stroke-dasharray="4 3"/>')
        out.append(text(x, height - 3, line_label, "middle", 11))
    return "\n".join(out + ["</svg>", ""])


def ratios(path):
    """Medians over the rounds of Stopover's figures, each divided by those of Trino's own."""
    figures = {"time": "total s", "CPU time": "client + daemon CPU s/GB"}
    rounds = {}
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="\t")
        header = []
        for row in reader:
            if row[0] == "workload":  # each workload has its own header
                header = row
                continue
            cells = dict(zip(header, row))
            for name, column in figures.items():
                key = (cells["workload"], name, cells["side"])
                rounds.setdefault(key, []).append(float(cells[column]))
    print("# title: Stopover relative to Trino's own exchange manager")
    print("# unit: ratio, lower is better")
    print("# line: 1 Trino's own")
    print("\t".join(["workload", *figures]))
    for workload in dict.fromkeys(key[0] for key in rounds):
        cells = [workload]
        for name in figures:
            ours, theirs = (rounds.get((workload, name, side)) for side in ("stopover", "stock"))
            pairs = zip(ours or [], theirs or [])
            found = [our / their for our, their in pairs if their > 0]
            cells.append(f"{statistics.median(found):.2f}" if found else "")
        print("\t".join(cells))


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "ratios":
        ratios(sys.argv[2])
    elif len(sys.argv) == 1:
        for path in sorted(PLOTS.glob("*.tsv")):
            path.with_suffix(".svg").write_text(draw(*read_table(path)), encoding="utf-8")
    else:
        sys.exit(__doc__)


main()
