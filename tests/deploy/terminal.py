"""Long commands show their progress where stderr is a terminal, and nothing elsewhere."""

import os
import pty
import re
import signal
import subprocess
import tempfile
import time
import urllib.request

from common import program, run

# Short, so that a watch is.
LEASE = ["--set", "lease.duration=6s", "--set", "lease.sweep_interval=1s"]


class Terminal:
    """A program whose stderr is a terminal of 80 columns."""

    def __init__(self, *arguments):
        self.ours, theirs = pty.openpty()
        environment = {"TERM": "xterm", "COLUMNS": "80", "PATH": os.environ["PATH"]}
        command = [program("STOPOVER_BINARY"), *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdout=pipe, stderr=theirs, env=environment, text=True
        )
        os.close(theirs)

    def shown(self, seconds=60):
        """All that it writes to the terminal until it ends."""
        text, deadline = b"", time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                part = os.read(self.ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            text += part
        self.process.wait(60)
        os.close(self.ours)
        return text.decode(errors="replace")


def request(method, url, body=b"", kind="application/json"):
    headers = {"Content-Type": kind}
    request = urllib.request.Request(url, body or None, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def drain_problems(folder):
    """A daemon that is stopped while a sink is open, which finishes after three seconds."""
    options = ["--base-directory", f"{folder}/drain", "--listen", "127.0.0.1:0"]
    terminal = Terminal("serve", *options, *LEASE, "--set", "server.drain_timeout=45s")
    address = terminal.process.stdout.readline().split()[2]
    exchange = f"{address}/v1/exchanges/q-1"
    request("PUT", exchange, b'{"partitions": 1, "ordered": false}')
    listed = ["exchanges", "--address", address.removeprefix("http://")]
    if "listing exchanges" not in (shown := Terminal(*listed).shown()):
        yield f"exchanges shows no progress: {shown!r}"
    code, out, error = run(program("STOPOVER_BINARY"), *listed)
    if code != 0 or "q-1" not in out or error:
        yield f"exchanges ends with {code}: {out}{error}"
    pages = f"{exchange}/sinks/0/0/pages?partition=0"
    request("POST", pages, b"a page", "application/octet-stream")
    terminal.process.send_signal(signal.SIGINT)
    time.sleep(3)
    request("POST", f"{exchange}/sinks/0/0/finish")
    shown = terminal.shown()
    if not re.search(r"waiting for open sinks, 4\d s at most \[[=> ]+\] 0/1", shown):
        yield f"a drain shows no bar: {shown!r}"
    if terminal.process.returncode != 0:
        yield f"a drain whose sinks finish ends with {terminal.process.returncode}"


def progress_is_shown_on_terminals_only():
    with tempfile.TemporaryDirectory() as folder:
        yield from drain_problems(folder)
        # What that daemon used.
        base = ["--base-directory", f"{folder}/drain"]
        for command, bar in [
            (["check", *base], r"probing base directories \[[=> ]+\] [01]/1"),
            (["gc", *base, *LEASE, "--watch", "3s"], r"watching \[[=> ]+\] [0-3]/3 s"),
            (["bench", *base, "--duration", "200ms", "--size", "64KiB"], r"throughput \[[=> ]+\]"),
        ]:
            shown = Terminal(*command).shown()
            if not re.search(bar, shown):
                yield f"{command[0]} shows no {bar} on a terminal: {shown!r}"
            code, out, error = run(program("STOPOVER_BINARY"), *command)
            if code != 0 or re.search(r"\[[=> ]+\]|\x1b", out + error):
                yield f"{command[0]} ends with {code}, or shows a bar elsewhere: {out}{error}"
