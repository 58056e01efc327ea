"""The topology of deploy/compose without containers and without Trino.

An S3 server, three daemons with the configuration of compose, and Prometheus with the alerts. The
dashboard's queries are sent to it: what a catalog cannot tell, such as labels that do not join,
shows there.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import policies
from common import DASHBOARD, ROOT, RULES, free_port, program

DAEMONS = 3
# What may be without data while nothing fails, nobody waits and nothing has a certificate.
QUIET = {
    "Requests that failed", "Requests of Trino that failed", "Bytes that wait for memory",
    "Certificates and credentials", "restarts",
}  # fmt: skip


@contextlib.contextmanager
def started(command, **options):
    process = subprocess.Popen([str(part) for part in command], **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def daemons(s3):
    """Yields the address of each."""
    environment = {
        "PATH": os.environ["PATH"],
        "STOPOVER_CONFIG": str(ROOT / "deploy/compose/stopover.toml"),
        "STOPOVER_SERVER__LISTEN": "127.0.0.1:0",
        "STOPOVER_BASE_DIRECTORIES__0__ENDPOINT": s3,
        "STOPOVER_BASE_DIRECTORIES__0__ACCESS_KEY_ID": policies.ROOT_KEYS[0],
        "STOPOVER_BASE_DIRECTORIES__0__SECRET_ACCESS_KEY": policies.ROOT_KEYS[1],
    }
    with contextlib.ExitStack() as stack:
        addresses, processes = [], []
        for _ in range(DAEMONS):
            command = [program("STOPOVER_BINARY"), "serve"]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
            processes.append(stack.enter_context(started(command, env=environment, **pipes)))
        for process in processes:
            addresses.append(process.stdout.readline().split()[2].removeprefix("http://"))
        yield addresses, processes


@contextlib.contextmanager
def prometheus(folder, targets):
    """Yields its URL. The configuration is that of compose, with these targets, each second."""
    config = (ROOT / "deploy/compose/prometheus.yaml").read_text()
    for number, target in enumerate(targets, 1):
        assert f"stopover-{number}:7077" in config
        config = config.replace(f"stopover-{number}:7077", target)
    config = config.replace("scrape_interval: 5s", "scrape_interval: 1s")
    config = config.replace("evaluation_interval: 15s", "evaluation_interval: 1s")
    file = pathlib.Path(folder, "prometheus.yaml")
    file.write_text(config.replace("/etc/prometheus/alerts.yaml", str(RULES)))
    listen = f"127.0.0.1:{free_port()}"
    command = [
        program("PROMETHEUS"), f"--config.file={file}", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={listen}", "--log.level=error",
    ]  # fmt: skip
    with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        yield f"http://{listen}"


def ask(prometheus_url, path, **parameters):
    """The data of an answer; None while Prometheus is starting."""
    query = urllib.parse.urlencode(parameters)
    try:
        with urllib.request.urlopen(
            f"{prometheus_url}/api/v1/{path}?{query}", timeout=10
        ) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        return json.load(error)
    except OSError:
        return None


def until(deadline, condition):
    """Whether the condition came true in time."""
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.3)
    return True


def value(url, expression):
    """The only value of an expression, if it has one."""
    result = (ask(url, "query", query=expression) or {}).get("result", [])
    return float(result[0]["value"][1]) if len(result) == 1 else None


def dashboard_has_data_of_running_daemons():
    with tempfile.TemporaryDirectory() as folder, policies.server(folder) as s3:
        pathlib.Path(folder, "data/spool").mkdir()
        with daemons(s3) as (addresses, processes), prometheus(folder, addresses) as url:
            deadline = time.monotonic() + 60
            if not until(deadline, lambda: value(url, "count(stopover_build_info)") == DAEMONS):
                yield f"Prometheus sees {value(url, 'count(stopover_build_info)')} daemons"
                return
            writer, reader = (f"http://{address}" for address in addresses[:2])
            for number in range(3):
                policies.life_of_an_exchange(writer, f"q-{number}", reader)
                time.sleep(1)
            written = "sum(increase(stopover_segments_written_bytes_total[1m]))"
            until(deadline, lambda: (value(url, written) or 0) > 0)
            yield from dashboard_problems(url)
            processes[2].kill()
            pending = 'ALERTS{alertname="StopoverDown",alertstate="pending"}'
            if not until(time.monotonic() + 30, lambda: value(url, f"count({pending})") == 1):
                yield "a daemon that is gone raises no alert"


def dashboard_problems(url):
    """Queries of the dashboard that Prometheus refuses, and panels without data."""
    dashboard = json.loads(DASHBOARD.read_text())
    fill = {"$__rate_interval": "30s", "$__range": "1m", "$job": ".+", "$instance": ".+"}
    for panel in dashboard["panels"]:
        empty = True
        for target in panel.get("targets", []):
            expression = target["expr"]
            for variable, text in fill.items():
                expression = expression.replace(variable, text)
            answer = ask(url, "query", query=expression)
            if "result" not in (answer or {}):
                yield f"{panel['title']}: {expression}: {answer}"
            elif answer["result"]:
                empty = False
        if panel["type"] != "row" and empty and panel["title"] not in QUIET:
            yield f"{panel['title']} shows nothing"
