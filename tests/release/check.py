"""Makes the files of a release as .github/workflows/release.yml does, and checks them.

Does: pack the daemon, its Debian package, the plugin and the chart into a folder; complete it with
deploy/packages/release-files; check the list of components against Cargo.lock and the plugin's
jars, and the checksums; let lintian read the package. Does not: build for another architecture
(tests/arm64.sh does), push images, or sign. Invariant: the workflow calls the same scripts.

Usage: check.py, with STOPOVER_BINARY, PLUGIN, HELM, CDXGEN and LINTIAN (tests/run release sets
them).
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, text=True, **options)


def make(folder):
    """Returns the Debian package."""
    binary = pathlib.Path(os.environ["STOPOVER_BINARY"])
    plugin = pathlib.Path(os.environ["PLUGIN"])
    run("tar", "-czf", f"{folder}/stopover-linux.tar.gz", "-C", binary.parent, binary.name)
    # Not xz, which takes a minute for a program with debug information.
    fast = {**os.environ, "DEB_COMPRESSION": "gzip"}
    built = run(
        ROOT / "deploy/packages/build-deb", binary, folder, env=fast, stdout=subprocess.PIPE
    )
    shutil.copy(plugin, folder)
    chart = ROOT / "deploy/packages/build-chart"
    run(chart, "registry.example", folder, stdout=subprocess.DEVNULL)
    run(ROOT / "deploy/packages/release-files", folder)
    return pathlib.Path(built.stdout.strip())


def components(path):
    """The components of a list, as purls without qualifiers."""
    listed = json.loads(path.read_text())
    assert listed["bomFormat"] == "CycloneDX", listed["bomFormat"]
    purls = (re.sub(r"[?#].*", "", thing["purl"]) for thing in listed["components"])
    return {urllib.parse.unquote(purl) for purl in purls}


def component_problems(folder):
    listed = components(folder / "stopover-daemon.cdx.json")
    lock = (ROOT / "Cargo.lock").read_text()
    crates = re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"\nsource', lock)
    missing = {f"pkg:cargo/{name}@{version}" for name, version in crates} - listed
    if missing or not crates:
        yield f"the daemon's list of components lacks {sorted(missing)[:5]} …"
    listed = components(folder / "stopover-plugin.cdx.json")
    jars = {jar.name for jar in pathlib.Path(os.environ["PLUGIN"]).with_suffix("").glob("*.jar")}
    assert jars, "the unpacked plugin is missing"
    named = {f"{purl.rsplit('/', 1)[1].replace('@', '-')}.jar" for purl in listed}
    for jar in jars:
        # In Trino's plugins a jar is called by its group, too.
        own = jar.startswith("trino-stopover") or "stopover" in jar
        if not own and not any(jar.endswith(name) for name in named):
            yield f"the plugin's list of components lacks {jar}"


def checksum_problems(folder):
    sums = (folder / "SHA256SUMS").read_text()
    named = {line.split()[1] for line in sums.splitlines()}
    files = {file.name for file in folder.iterdir()} - {"SHA256SUMS"}
    if named != files:
        yield f"SHA256SUMS names {sorted(named)}, there are {sorted(files)}"
    checked = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=False)
    if checked.returncode != 0:
        yield "SHA256SUMS is wrong"


def workflow_problems():
    workflow = (ROOT / ".github/workflows/release.yml").read_text()
    for script in ["build-deb", "build-chart", "release-files"]:
        if f"deploy/packages/{script} " not in workflow:
            yield f"the release workflow does not call {script}"


def lintian_problems(package):
    """Errors and warnings, except those that the package itself overrides, with the reason."""
    command = [os.environ["LINTIAN"], "--no-cfg", "--allow-root", "--fail-on", "error,warning"]
    found = subprocess.run([*command, package], capture_output=True, text=True, check=False)
    print(found.stdout.strip())
    if found.returncode != 0:
        yield f"lintian: {found.stdout}{found.stderr}"


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        package = make(folder)
        problems = [
            *component_problems(folder),
            *checksum_problems(folder),
            *workflow_problems(),
            *lintian_problems(package),
        ]
        for file in sorted(folder.iterdir()):
            print(f"{file.stat().st_size:>12} {file.name}")
    for problem in problems:
        print(f"FAIL {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


main()
