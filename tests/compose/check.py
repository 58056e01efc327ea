"""Runs what deploy/compose describes, without containers: Trino with two workers, three daemons,
the S3 server and Prometheus with the alerts, all with the files of deploy/compose.

Does: replace the names of containers by addresses of loopback, the folders of containers by
temporary ones, and start what each service starts; run a query with and without Stopover and
compare; see that Prometheus scrapes each daemon, evaluates every rule and counts the bytes; kill a
daemon as compose.yaml proposes, and see the query survive and Prometheus notice. Does not: build
images, or start Grafana (its dashboard's queries are checked by tests/deploy/topology.py).
Invariant: a setting that is not in deploy/compose comes from the images, and is in nodes.py.

Usage: check.py, with JAVA_HOME, TRINO, PLUGIN, PROMETHEUS, STOPOVER_BINARY and
STOPOVER_TEST_VERSITYGW (tests/run compose sets them).
"""

import contextlib
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.request

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "deploy"))

import nodes  # noqa: E402
from common import ROOT, RULES, free_port, program  # noqa: E402
from nodes import wait_for  # noqa: E402
from topology import ask, prometheus, started, until, value  # noqa: E402

COMPOSE = ROOT / "deploy/compose"
NODES = ["coordinator", "worker-1", "worker-2"]
# Each joins and groups, so it has several exchanges.
QUERY = """SELECT o.orderpriority, count(*), sum(l.quantity), min(l.shipdate)
    FROM lineitem l JOIN orders o ON l.orderkey = o.orderkey
    GROUP BY o.orderpriority ORDER BY o.orderpriority"""
LINES_OF_TINY = 60_175


class Services:
    """The services of the compose file, and where each is reached here."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.named = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
        self.addresses = {}

    def place(self, text):
        """A configuration with the addresses of loopback for the names of containers."""

        def address(match):
            return self.addresses[match.group(1)]

        names = "|".join(sorted(self.addresses, key=len, reverse=True))
        return re.sub(rf"\b({names}):\d+\b", address, text)

    def mounted(self, service, target):
        """The file of deploy/compose that a service sees at a path."""
        for volume in self.named[service]["volumes"]:
            source, path = volume.split(":")[:2]
            if path == target:
                return (COMPOSE / source).read_text()
        raise SystemExit(f"compose.yaml mounts nothing at {target} of {service}")


@contextlib.contextmanager
def s3(services):
    """The service `s3`, with the bucket that `bucket` makes."""
    port, data = free_port(), services.folder / "data"
    made = [str(data / word.removeprefix("/data/")) if word.startswith("/data") else word
            for word in services.named["bucket"]["command"]]  # fmt: skip
    subprocess.run(made, check=True)
    replaced = {":7070": f"127.0.0.1:{port}", "/data": str(data)}
    command = [replaced.get(word, word) for word in services.named["s3"]["command"]]
    assert f"127.0.0.1:{port}" in command and str(data) in command, command
    services.addresses["s3"] = f"127.0.0.1:{port}"
    with started([program("STOPOVER_TEST_VERSITYGW"), *command], **quiet(services, "s3")):
        yield


def quiet(services, name):
    log = (services.folder / f"{name}.log").open("ab")
    return {"stdout": log, "stderr": log}


@contextlib.contextmanager
def daemons(services):
    """The services `stopover-1` to `stopover-3`. Yields their processes by name."""
    with contextlib.ExitStack() as stack:
        processes = {}
        for name in [n for n in services.named if n.startswith("stopover-")]:
            service, port = services.named[name], free_port()
            environment = dict(service["environment"])
            path = environment["STOPOVER_CONFIG"]
            file = services.folder / f"{name}.toml"
            config = services.place(services.mounted(name, path))
            assert '"0.0.0.0:7077"' in config
            file.write_text(config.replace("0.0.0.0:7077", f"127.0.0.1:{port}"))
            environment["STOPOVER_CONFIG"] = str(file)
            command = [program("STOPOVER_BINARY"), "serve"]
            options = {"env": environment, **quiet(services, name)}
            processes[name] = stack.enter_context(started(command, **options))
            services.addresses[name] = f"127.0.0.1:{port}"
        for name in processes:
            wait_for(f"{name} is ready", lambda n=name: answers(services, n, "/readyz"))
        yield processes


def answers(services, name, path):
    try:
        with urllib.request.urlopen(f"http://{services.addresses[name]}{path}", timeout=10) as got:
            return got.status == 200
    except OSError:
        return False


def write_node(services, name, port):
    """The folders of a node, as its image has them with the mounted files."""
    root = services.folder / name
    config = services.place(services.mounted(name, "/etc/trino/config.properties"))
    assert "http-server.http.port=8080\n" in config
    # The coordinator knows itself as localhost.
    config = config.replace("localhost:8080", services.addresses["coordinator"])
    config = config.replace("http-server.http.port=8080\n", f"http-server.http.port={port}\n")
    exchange = services.mounted(name, "/etc/trino/exchange-manager.properties")
    nodes.lay_out(root, config, services.place(exchange))
    # As the service `plugin` does: into the folder that the nodes mount.
    nodes.copy_plugin(root)
    return root


@contextlib.contextmanager
def trino(services):
    """The coordinator and both workers."""
    ports = {name: free_port() for name in NODES}
    services.addresses |= {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    with contextlib.ExitStack() as stack:
        processes = {}
        for name in NODES:
            root = write_node(services, name, ports[name])
            node = nodes.node(root, name, "127.0.0.1", **quiet(services, name))
            processes[name] = stack.enter_context(node)
        nodes.wait_for_nodes(services.addresses["coordinator"], processes)
        yield


def rows(services, sql):
    return nodes.rows(services.addresses["coordinator"], sql)


def plain_rows(services):
    return nodes.plain_rows(services.addresses["coordinator"], QUERY)


def query_problems(services, url):
    expected = plain_rows(services)
    if sum(row[1] for row in expected) != LINES_OF_TINY:
        yield f"{expected} does not count {LINES_OF_TINY} lines"
    if value(url, "sum(stopover_pages_written_bytes_total)") != 0:
        yield "a query without fault tolerance writes pages to a daemon"
    for turn in range(3):
        if (found := rows(services, QUERY)) != expected:
            yield f"query {turn}: {found} instead of {expected}"
    for metric in ["stopover_pages_written_bytes_total", "stopover_pages_read_bytes_total"]:
        total = f"sum({metric})"
        if not until(time.monotonic() + 30, lambda: (value(url, total) or 0) > 0):
            yield f"{total} is {value(url, total)} after a query"
    segments = "sum(stopover_segments_written_total)"
    print(f"page bytes {value(url, 'sum(stopover_pages_written_bytes_total)'):.0f}, "
          f"segments {value(url, segments):.0f}, expected rows {len(expected)}")  # fmt: skip


def prometheus_problems(url, number):
    """Targets that are not scraped, and rules that are not evaluated."""
    healthy = "sum(up{job=\"stopover\"})"
    if not until(time.monotonic() + 60, lambda: value(url, healthy) == number):
        yield f"{healthy} is {value(url, healthy)}, not {number}"
    targets = ask(url, "targets")["activeTargets"]
    for target in targets:
        if target["health"] != "up":
            yield f"{target['scrapeUrl']} is {target['health']}: {target['lastError']}"
    wanted = yaml.safe_load(RULES.read_text())["groups"]
    wanted = {rule["alert"] for group in wanted for rule in group["rules"] if "alert" in rule}

    def evaluated():
        rules = [rule for group in ask(url, "rules")["groups"] for rule in group["rules"]]
        alerts = [rule for rule in rules if rule["type"] == "alerting"]
        return {rule["name"] for rule in alerts if rule["health"] == "ok"}

    if not until(time.monotonic() + 30, lambda: evaluated() == wanted):
        yield f"Prometheus evaluates other alerts than alerts.yaml has: {evaluated() ^ wanted}"
    print(f"{len(targets)} targets up, {len(wanted)} alerts evaluated")


def loss_problems(services, processes, url):
    """`docker compose kill stopover-2` while a query runs."""
    expected = plain_rows(services)
    processes["stopover-2"].send_signal(signal.SIGKILL)
    try:
        if (found := rows(services, QUERY)) != expected:
            yield f"without stopover-2: {found} instead of {expected}"
    except nodes.QueryFailed as error:
        yield f"without stopover-2: {error}"
    pending = 'count(ALERTS{alertname="StopoverDown"})'
    if not until(time.monotonic() + 60, lambda: value(url, pending) == 1):
        yield "Prometheus does not notice that stopover-2 is gone"


def problems(folder):
    services = Services(folder)
    with s3(services), daemons(services) as processes:
        targets = [services.addresses[name] for name in processes]
        with prometheus(folder, targets) as url, trino(services):
            yield from prometheus_problems(url, len(targets))
            yield from query_problems(services, url)
            yield from loss_problems(services, processes, url)


if __name__ == "__main__":
    sys.exit(nodes.report(problems, "*.log", "what deploy/compose describes works"))
