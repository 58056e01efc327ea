"""Follows docs/trino.md word for word on three machines: the set-up, a query, and "Try a failure".

Does: take every file, property and statement from the page, with addresses of loopback for those of
its machines; run `stopover check`, three daemons, a coordinator and two workers; kill a daemon,
then a worker with its daemon, as the page says, and see what it promises. Does not: add a setting,
except those of IN_PLACE and SMALL. Invariant: an edit of the page changes what runs here.

Usage: trino_page.py, with JAVA_HOME, TRINO, PLUGIN, STOPOVER_BINARY and STOPOVER_TEST_VERSITYGW
(tests/run trino-page sets them).
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "deploy"))

import nodes  # noqa: E402
import policies  # noqa: E402
from common import free_port, program, run, text  # noqa: E402
from topology import started  # noqa: E402
from walkthrough import block_after  # noqa: E402

PAGE = "docs/trino.md"
COORDINATOR, *WORKERS = MACHINES = ["11", "12", "13"]
# What a node has already, and what suits small ones by the page's section on sizing.
IN_PLACE = """node.bind-ip=127.0.0.{machine}
http-server.http.port={port}
discovery.uri=http://127.0.0.11:{port}
coordinator={coordinator}
"""
SMALL = "fault-tolerant-execution-task-memory=150MB\n"
# "Raise `stop` if it is over sooner": from an eighth of the page's rows on, for slow machines.
WORK = [0.125, 0.25, 0.5, 1, 2, 4]
# The page says some 20 s on an idle machine. With Trino's defaults it would be more than this.
LONGEST_STANDSTILL = 60


class Machine:
    """One of the page's machines: its folder, and how its files read here."""

    def __init__(self, number, folder, ports):
        self.number, self.ports = number, ports
        self.address = f"127.0.0.{number}"
        self.root = pathlib.Path(folder, number)
        self.etc = self.root / "etc-stopover"
        self.etc.mkdir(parents=True)
        self.log = (self.root / "daemon.log", self.root / "trino.log")

    def place(self, content):
        """A block of the page with the addresses, ports and folders of this test."""
        daemon, trino = self.ports
        content = re.sub(r"\b10\.0\.0\.(1[123]):7077", rf"127.0.0.\1:{daemon}", content)
        content = re.sub(r"\b10\.0\.0\.(1[123]):8080", rf"127.0.0.\1:{trino}", content)
        content = re.sub(r"\b(127\.0\.0\.1|0\.0\.0\.0):7077", f"{self.address}:{daemon}", content)
        return content.replace("/etc/stopover/", f"{self.etc}/")


def block(page, words):
    """A block of the page, without the indentation of a list."""
    lines = [line.strip() for line in block_after(page, words).splitlines()]
    return "\n".join(lines) + "\n"


def exchange_properties(page, machine):
    """The page shows the coordinator's and those of 10.0.0.12; its neighbour's are alike."""
    if machine.number == COORDINATOR:
        return machine.place(block(page, "also plan and close exchanges:"))
    content = block(page, "On the worker 10.0.0.12:")
    assert "10.0.0.12" not in content
    if machine.number == "13":
        content = content.replace("10.0.0.13", "10.0.0.12")
    return machine.place(content)


def write_daemon(page, machine):
    (machine.etc / "stopover.toml").write_text(
        machine.place(block(page, "`/etc/stopover/stopover.toml`:"))
    )
    tokens = machine.etc / "tokens"
    tokens.write_text(block(page, "but the daemon and root may read:"))
    tokens.chmod(0o600)
    (machine.etc / "environment").write_text(keys(page))
    (machine.etc / "environment").chmod(0o600)


def keys(page):
    """The page's variables for the bucket's keys, with those of the store here."""
    lines = block(page, "and no such file:").splitlines()
    names = [line.partition("=")[0] for line in lines]
    assert [name.rpartition("__")[2] for name in names] == ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY"]
    pairs = zip(names, policies.ROOT_KEYS, strict=True)
    return "".join(f"{name}={value}\n" for name, value in pairs)


def write_node(page, machine):
    is_coordinator = machine.number == COORDINATOR
    config = IN_PLACE.format(
        machine=machine.number, port=machine.ports[1], coordinator=str(is_coordinator).lower()
    )
    config += block(page, "in addition to what is there:")
    if is_coordinator:
        config += block(page, "to leave the work to the workers:")
        config += block(page, "coordinator:") + SMALL
    nodes.lay_out(machine.root, config, exchange_properties(page, machine))
    install = block(page, "and the older jars would stay.")
    folder = re.search(r"cp -r (\S+) ", install).group(1)
    command = ["cp", "-r", program("PLUGIN"), str(machine.root / folder)]
    subprocess.run(command, check=True)
    # The second time is an upgrade: nothing may be nested.
    for _ in range(2):
        subprocess.run(["sh", "-euc", install], cwd=machine.root, check=True)
    nested = [path for path in (machine.root / "plugin/stopover").iterdir() if path.is_dir()]
    assert not nested, nested


def store(url):
    """Where the page's bucket is here."""
    base = "STOPOVER_BASE_DIRECTORIES__0__"
    return {
        "PATH": f"{pathlib.Path(program('STOPOVER_BINARY')).parent}:{os.environ['PATH']}",
        f"{base}ENDPOINT": url, f"{base}REGION": "us-east-1", f"{base}ALLOW_HTTP": "true",
        f"{base}PATH_STYLE": "true",
    }  # fmt: skip


def environment_file(machine):
    """What systemd reads from the file that the unit names."""
    unit = text("deploy/stopover.service")
    name = re.search(r"^EnvironmentFile=-/etc/stopover/(\S+)$", unit, re.M).group(1)
    lines = (machine.etc / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


class Cluster:
    """The processes, by machine."""

    def __init__(self, machines, environment, stack):
        self.machines, self.environment, self.stack = machines, environment, stack
        self.daemons, self.trino = {}, {}

    @property
    def coordinator(self):
        return f"127.0.0.{COORDINATOR}:{self.machines[COORDINATOR].ports[1]}"

    def start_daemon(self, number):
        machine = self.machines[number]
        command = [program("STOPOVER_BINARY"), "serve", "--config", machine.etc / "stopover.toml"]
        log = machine.log[0].open("ab")
        environment = {**self.environment, **environment_file(machine)}
        daemon = started(command, env=environment, stdout=subprocess.PIPE, stderr=log)
        self.daemons[number] = self.stack.enter_context(daemon)
        line = self.daemons[number].stdout.readline().decode()
        if not line.startswith("listening on "):
            raise SystemExit(f"the daemon of {number} does not start: {machine.log[0].read_text()}")

    def start_trino(self, number):
        machine = self.machines[number]
        log = machine.log[1].open("ab")
        node = nodes.node(machine.root, number, machine.address, stdout=log, stderr=log)
        self.trino[number] = self.stack.enter_context(node)

    def repair(self):
        """Starts again what was killed."""
        for number in MACHINES:
            if self.daemons[number].poll() is not None:
                self.start_daemon(number)
            if self.trino[number].poll() is not None:
                self.start_trino(number)
        self.wait()

    def wait(self):
        nodes.wait_for_nodes(self.coordinator, self.trino)


def first_query_problems(page, cluster):
    command = block(page, "that needs no catalog:")
    server, sql = re.search(r'--server http://(\S+) .*"(.*)"', command, re.S).groups()
    assert cluster.machines[COORDINATOR].place(server) == cluster.coordinator
    found = sorted(nodes.rows(cluster.coordinator, sql.replace("\\\n", "")))
    expected = [[n, len(range(n or 7, 1_000_001, 7))] for n in range(7)]
    if found != expected:
        yield f"{sql}: {found} instead of {expected}"


class Progress:
    """Watches how long a query makes no progress at a time."""

    def __init__(self, query):
        self.query, self.over, self.longest = query, False, 0.0
        self.since = time.monotonic()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        before, at = None, time.monotonic()
        while not self.over:
            with contextlib.suppress(OSError, ValueError):
                now = sorted((task, status["state"]) for task, status in self.query.tasks().items())
                if now != before:
                    before, at = now, time.monotonic()
            self.longest = max(self.longest, time.monotonic() - max(at, self.since))
            time.sleep(0.5)


def target(query, over):
    """A worker that has finished tasks of the query and runs others; None if it is over."""
    while not over():
        with contextlib.suppress(urllib.error.HTTPError):
            tasks = list(query.tasks().values())
            for worker in WORKERS:
                states = {task["state"] for task in tasks if task["nodeId"] == worker}
                if {"FINISHED", "RUNNING"} <= states:
                    return worker
        time.sleep(0.2)
    return None


def retried_elsewhere(tasks, lost):
    """Second attempts whose first one ran on another worker than the lost one."""
    for name, status in tasks.items():
        partition, attempt = name.rsplit(".", 1)
        first = tasks.get(f"{partition}.0", {}).get("nodeId")
        if attempt != "0" and first not in (None, lost):
            yield f"{name} ran again, though its first attempt was on {first}, not on {lost}"


def fail_once(cluster, sql, expected, kills):
    """Runs the page's statement and kills; returns problems, or None if it was over too early."""
    query, answer = nodes.Query(cluster.coordinator, sql), {}

    def run_to_end():
        try:
            answer["rows"] = query.rows()
        except (nodes.QueryFailed, SystemExit, OSError) as error:
            answer["error"] = error

    thread = threading.Thread(target=run_to_end, daemon=True)
    thread.start()
    lost = target(query, lambda: not thread.is_alive())
    if lost is None:
        return None
    for processes in kills(cluster):
        processes[lost].send_signal(signal.SIGKILL)
    progress = Progress(query)
    before = query.tasks()
    began = time.monotonic()
    thread.join()
    progress.over = True
    after = query.tasks()
    again = [name for name in after if not name.endswith(".0")]
    finished = sum(status["state"] == "FINISHED" for status in before.values())
    print(f"killed at {finished} finished tasks of {len(before)}; tasks run again: {len(again)}; "
          f"{time.monotonic() - began:.0f} s to the end, {progress.longest:.0f} s of them at most "
          f"without progress", flush=True)  # fmt: skip
    problems = [] if answer.get("rows") == expected else [f"{answer} instead of {expected}"]
    if progress.longest > LONGEST_STANDSTILL:
        problems.append(f"no progress for {progress.longest:.0f} s")
    # A lost daemon costs its open sinks; nothing runs again if there were none.
    if cluster.trino[lost].poll() is not None:
        problems += retried_elsewhere(after, lost)
        if not again:
            return None
    return problems


def failure_problems(page, cluster):
    statement = block(page, "it is over sooner:").rstrip(";\n ")
    rows = int(re.search(r"stop => (\d+)", statement).group(1))
    faults = {
        "the daemon beside a worker": lambda c: [c.daemons],
        "a worker and its daemon": lambda c: [c.trino, c.daemons],
    }
    for name, kills in faults.items():
        for work in WORK:
            cluster.repair()
            stop = int(rows * work)
            sql = statement.replace(f"stop => {rows}", f"stop => {stop}")
            began = time.monotonic()
            expected = nodes.plain_rows(cluster.coordinator, sql)
            print(f"{name}, stop => {stop}: without fault tolerance "
                  f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
            problems = fail_once(cluster, sql, expected, kills)
            if problems is not None:
                yield from (f"kill -9 of {name}: {problem}" for problem in problems)
                break
        else:
            yield f"kill -9 of {name}: the query is over too early with any amount of work"


def problems_of(folder):
    page = text(PAGE)
    ports = (free_port(), free_port())
    machines = {number: Machine(number, folder, ports) for number in MACHINES}
    pathlib.Path(folder, "s3").mkdir()
    with policies.server(f"{folder}/s3") as url, contextlib.ExitStack() as stack:
        cluster = Cluster(machines, store(url), stack)
        for number, machine in machines.items():
            write_daemon(page, machine)
            write_node(page, machine)
        first = machines[COORDINATOR]
        *check, serve = first.place(block(page, "or by hand, as root:")).splitlines()
        assert serve.split()[:2] == ["stopover", "serve"], serve
        code, out, error = run("sh", "-euc", "\n".join(check), env=cluster.environment)
        if code != 0 or not any(line.startswith("stopover check ") for line in check):
            yield f"{check}: {out}{error}"
            return
        began = time.monotonic()
        for number in MACHINES:
            cluster.start_daemon(number)
            cluster.start_trino(number)
        cluster.wait()
        yield from first_query_problems(page, cluster)
        print(f"the first query: {time.monotonic() - began:.0f} s after the start", flush=True)
        yield from failure_problems(page, cluster)


if __name__ == "__main__":
    sys.exit(nodes.report(problems_of, "*/*.log", f"{PAGE} holds"))
