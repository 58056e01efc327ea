"""Nodes of Trino as processes, and queries over HTTP, for the checks that follow a page.

Does: lay out a node's folder, start its JVM, run queries, list a query's tasks, report what a check
found. Does not: decide a setting: the callers take them from the files and pages that they check.
Invariant: a node listens on the address and port that its caller chose.
"""

import contextlib
import json
import pathlib
import shutil
import sys
import tempfile
import time
import urllib.request

from common import end_on_signals, program
from topology import started, until

# What Trino's image sets and documentation leaves as it is, with less memory.
JVM = [
    "-Xmx1400m", "--add-modules=jdk.incubator.vector", "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow", "-Djdk.attach.allowAttachSelf=true",
    "-XX:+EnableDynamicAgentLoading", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError",
    "-XX:G1HeapRegionSize=16M",
]  # fmt: skip
CATALOG = "connector.name=tpch\ntpch.splits-per-node=4\n"
# A start takes 50 s on an idle machine with two cores.
START_SECONDS = 1200
QUERY_SECONDS = 900
# What Trino calls a worker that does not answer in time.
BUSY = ["TOO_MANY_REQUESTS_FAILED", "REMOTE_HOST_GONE", "PAGE_TRANSPORT_TIMEOUT"]
PLAIN_TRIES = 8


def wait_for(what, condition, seconds=300):
    if not until(time.monotonic() + seconds, condition):
        raise SystemExit(f"in {seconds} s not: {what}")


def lay_out(root, config, exchange):
    """The folder of a node without the plugin."""
    server = pathlib.Path(program("TRINO"))
    for folder in ["etc/catalog", "plugin", "data"]:
        (root / folder).mkdir(parents=True)
    (root / "etc/config.properties").write_text(config)
    (root / "etc/exchange-manager.properties").write_text(exchange)
    (root / "etc/catalog/tpch.properties").write_text(CATALOG)
    (root / "lib").symlink_to(server / "lib")
    (root / "plugin/tpch").symlink_to(server / "plugin/tpch")


def copy_plugin(root):
    shutil.copytree(program("PLUGIN"), root / "plugin/stopover")


def node(root, name, address, **options):
    """A context in which the node runs; it yields the process."""
    command = [
        pathlib.Path(program("JAVA_HOME"), "bin/java"), *JVM, "-Dnode.environment=docker",
        f"-Dnode.id={name}", f"-Dnode.data-dir={root}/data", f"-Dnode.internal-address={address}",
        "-Dconfig=etc/config.properties", "-cp", "lib/*", "io.trino.server.TrinoServer",
    ]  # fmt: skip
    return started(command, cwd=root, **options)


def wait_for_nodes(coordinator, processes):
    """Until the coordinator at this address knows all nodes. `processes` are these by name.

    It asks without fault tolerance, so that nothing goes through a daemon.
    """
    sql = "SELECT count(*) FROM system.runtime.nodes"

    def complete():
        ended = [name for name, process in processes.items() if process.poll() is not None]
        if ended:
            raise SystemExit(f"ended while starting: {ended}")
        with contextlib.suppress(OSError, QueryFailed):
            return rows(coordinator, sql, retry_policy="NONE") == [[len(processes)]]
        return False

    wait_for(f"Trino has {len(processes)} nodes", complete, START_SECONDS)


def get(url, body=None, headers=None):
    request = urllib.request.Request(url, body, {"X-Trino-User": "test", **(headers or {})})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


class QueryFailed(Exception):
    """Trino's name and message of the error."""

    def __init__(self, error):
        super().__init__(f"{error['errorName']}: {error['message']}")
        self.name = error["errorName"]


class Query:
    """A statement that runs at the coordinator of this address."""

    def __init__(self, coordinator, sql, **session):
        self.coordinator = coordinator
        headers = {"X-Trino-Catalog": "tpch", "X-Trino-Schema": "tiny"}
        headers["X-Trino-Session"] = ",".join(f"{name}={text}" for name, text in session.items())
        page = get(f"http://{coordinator}/v1/statement", sql.encode(), headers)
        self.id, self.page = page["id"], page

    def rows(self):
        """What it returns; a QueryFailed if it fails."""
        found, deadline = [], time.monotonic() + QUERY_SECONDS
        while True:
            if "error" in self.page:
                raise QueryFailed(self.page["error"])
            found += self.page.get("data", [])
            if "nextUri" not in self.page:
                return found
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.id} takes minutes: {self.page.get('stats')}")
            self.page = get(self.page["nextUri"])

    def tasks(self):
        """The status of each of its tasks, wherever Trino's answer has it."""
        found, waiting = [], [get(f"http://{self.coordinator}/v1/query/{self.id}")]
        while waiting:
            thing = waiting.pop()
            if isinstance(thing, dict):
                found += [thing["taskStatus"]] if "taskStatus" in thing else []
                waiting += thing.values()
            elif isinstance(thing, list):
                waiting += thing
        return {status["taskId"]: status for status in found}


def rows(coordinator, sql, **session):
    return Query(coordinator, sql, **session).rows()


def plain_rows(coordinator, sql):
    """The rows without fault tolerance, to compare with.

    It runs again if a worker was too busy to answer the coordinator in time: without fault
    tolerance that fails a query, which is not what is tested here.
    """
    for _ in range(PLAIN_TRIES):
        try:
            return rows(coordinator, sql, retry_policy="NONE")
        except QueryFailed as error:
            if error.name not in BUSY:
                raise
            print(f"once more without fault tolerance: {error}", flush=True)
    raise SystemExit(f"the machine is too busy for a query without fault tolerance: {sql}")


def report(problems, logs, holds):
    """Prints what a check in a temporary folder finds, with the ends of its logs; the exit code."""
    end_on_signals()
    with tempfile.TemporaryDirectory() as folder:
        found = []
        try:
            found.extend(problems(folder))
        except (SystemExit, QueryFailed) as error:
            found.append(str(error))
        for problem in found:
            print(f"FAIL {problem}", file=sys.stderr)
        if found:
            for log in sorted(pathlib.Path(folder).glob(logs)):
                end = log.read_text(errors="replace")[-3000:]
                print(f"--- {log.relative_to(folder)}\n{end}", file=sys.stderr)
    print("FAIL" if found else f"ok: {holds}")
    return 1 if found else 0
