#!/usr/bin/env python3
"""Runs the plugin in each version of Trino whose jars Maven has, and writes the table of
docs/plugin.md.

    tests/versions.py [--only CLASS] [VERSION...]     all versions unless some are named

It needs STOPOVER_BINARY, JAVA_HOME and the plugin's folder, which the step `plugin` of tests/run
builds. A cell of the table is written only by the run that fills it; a run of some versions, or of
one class, leaves the other cells as they are.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
REPORTS = ROOT / "trino-plugin/tests-versions/target/surefire-reports"
PAGE = ROOT / "docs/plugin.md"
BEGIN, END = "<!-- tests/versions.py begins -->\n", "<!-- tests/versions.py ends -->\n"
HEADER = (
    "| Trino | the installed plugin loads and moves pages | joins | aggregations | test library |\n"
    "|---|---|---|---|---|\n"
)
COLUMNS = ["TestInstalledPlugin", "TestVersionJoins", "TestVersionAggregations"]

# The version of Trino: those of trino-testing and trino-tpch, which not every version has.
VERSIONS = {
    "476": ("476", "476"),
    "478": ("478", "478"),
    "479": ("478", "478"),
    "480": ("483", "481"),
    "481": ("483", "481"),
    "482": ("483", "482"),
    "483": ("483", "483"),
}
NEWEST = "483"


def classes(version):
    """Aggregations run on the newest version; the step fte-476 runs them on the oldest."""
    return COLUMNS if version == NEWEST else COLUMNS[:2]


def run(version, names):
    testing, tpch = VERSIONS[version]
    for report in REPORTS.glob("TEST-*.xml"):
        report.unlink()
    command = [
        "mvn", "-B", "-ntp", "-f", str(ROOT / "trino-plugin"), "test", "-P", "fte-versions",
        "-Dskip.unit.tests", "-Dchecks.skip", "-Dsurefire.failIfNoSpecifiedTests=false",
        f"-Dtest={','.join(names)}", f"-Dtrino.suite.version={version}",
        f"-Dtrino.testing.version={testing}", f"-Dtrino.tpch.version={tpch}",
    ]  # fmt: skip
    code = subprocess.run(command, check=False).returncode
    return code, {name: counted(name) for name in names}


def counted(name):
    """How many tests of a class passed, of how many; None if it did not run to its end."""
    report = REPORTS / f"TEST-io.stopover.trino.{name}.xml"
    if not report.exists():
        return None
    suite = ElementTree.parse(report).getroot()
    tests, skipped = int(suite.get("tests")), int(suite.get("skipped"))
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    return f"{tests - skipped - failed} of {tests - skipped}"


def read_table(text):
    rows = {}
    block = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    for line in block.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"\d+", cells[0]):
            rows[cells[0]] = cells[1:]
    return rows


def write_row(version, results):
    text = PAGE.read_text()
    rows = read_table(text)
    cells = rows.get(version, [""] * (len(COLUMNS) + 1))
    for index, name in enumerate(COLUMNS):
        if results.get(name):
            cells[index] = results[name]
    cells[len(COLUMNS)] = f"trino-testing {VERSIONS[version][0]}"
    rows[version] = cells
    table = HEADER + "".join(
        f"| {number} | " + " | ".join(rows[number]) + " |\n" for number in sorted(rows)
    )
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    PAGE.write_text(before + BEGIN + "\n" + table + "\n" + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="*", metavar="VERSION")
    parser.add_argument("--only", choices=COLUMNS)
    arguments = parser.parse_args()
    for version in arguments.versions:
        if version not in VERSIONS:
            parser.error(f"Trino {version} is not among {', '.join(VERSIONS)}")
    failed = []
    for version in arguments.versions or VERSIONS:
        names = [arguments.only] if arguments.only else classes(version)
        code, results = run(version, names)
        write_row(version, results)
        print(f"==== Trino {version}: {results}", flush=True)
        if code != 0 or None in results.values():
            failed.append(version)
    if failed:
        sys.exit(f"failed with Trino {', '.join(failed)}")


if __name__ == "__main__":
    main()
