"""Paths, files and programs that the checks of deploy/ share."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/charts/stopover"
RULES = CHART / "files/alerts.yaml"
DASHBOARD = CHART / "files/dashboard.json"


def text(path):
    """The content of a file of the project."""
    return (ROOT / path).read_text()


def program(variable):
    """The program that a variable of the environment names."""
    path = os.environ.get(variable)
    if not path or not pathlib.Path(path).exists():
        raise SystemExit(f"{variable} names no file: run tests/run deploy")
    return path


def run(*command, **options):
    """Runs a program and returns its exit code, stdout and stderr."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=120, **options
    )
    return done.returncode, done.stdout, done.stderr


def free_port():
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_on_signals():
    """SIGTERM and SIGHUP end this program as an exception does, so that what it started ends."""
    for number in [signal.SIGTERM, signal.SIGHUP]:
        signal.signal(number, lambda *_: sys.exit("ended by a signal"))


def helm_template(chart, values, *arguments, release="stopover"):
    """What helm renders, or the error as a ValueError. Values are files."""
    command = [program("HELM"), "template", release, chart, "--namespace", "trino"]
    for file in values:
        command += ["-f", file]
    code, out, error = run(*command, *arguments)
    if code != 0:
        raise ValueError(error.strip())
    return out


def documents(rendered):
    """The objects of a YAML stream."""
    return [document for document in yaml.safe_load_all(rendered) if document]


def find(objects, kind, name=None):
    """The only object of a kind, or the one with this name."""
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects {kind} {name or ''}"
    return found[0]
