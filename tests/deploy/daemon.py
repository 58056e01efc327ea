"""The daemon, started and probed as the manifests say."""

import contextlib
import os
import pathlib
import re
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import yaml
from common import CHART, documents, find, free_port, helm_template, program, run, text

TOKENS = {
    "worker": "write,read 0f8e6c1d9b2a4f7380c5",
    "coordinator": "coordinate,write,read c3d5e4f6a8b90f8e6c1d",
    "prometheus": "read 77aa1b0c3d5e4f6a8b9c",
}
TOKEN = TOKENS["prometheus"].split()[1]


def pool(*arguments):
    """The container of the chart, with the files of its volumes by path."""
    rendered = helm_template(
        CHART, [CHART / "ci/tokens-values.yaml"], "--kube-version", "1.33",
        "--set", "resources.limits.memory=512Mi", *arguments,
    )  # fmt: skip
    objects = documents(rendered)
    container = find(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    config = find(objects, "ConfigMap", "stopover")["data"]
    files = {f"/etc/stopover/{name}": content for name, content in config.items()}
    files["/etc/stopover-tokens/tokens"] = "\n".join(TOKENS.values()) + "\n"
    return container, files


def sidecar():
    """The container beside Trino."""
    values = yaml.safe_load(text("deploy/trino-values-sidecar.yaml"))
    container = next(c for c in values["initContainers"]["worker"] if c["name"] == "stopover")
    files = values["worker"]["additionalConfigFiles"]
    return container, {f"/etc/stopover/{name}": content for name, content in files.items()}


def compose():
    """A daemon of deploy/compose, with what its file says."""
    variable = {"name": "STOPOVER_CONFIG", "value": "/etc/stopover/stopover.toml"}
    return {"env": [variable]}, {variable["value"]: text("deploy/compose/stopover.toml")}


@contextlib.contextmanager
def running(container, files, base):
    """Runs the daemon of a container below a temporary root, on free ports, with one base directory
    in place of the bucket. Yields its URL and that of its admin port."""
    with tempfile.TemporaryDirectory() as root:
        for path, content in files.items():
            file = pathlib.Path(root + path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
            file.chmod(0o640)
        environment = {"PATH": os.environ["PATH"], "STOPOVER_BASE_DIRECTORIES": base}
        for variable in container["env"]:
            value = variable.get("value", "from-a-secret")
            environment[variable["name"]] = re.sub(r"^/etc/", f"{root}/etc/", value)
        environment["STOPOVER_SERVER__LISTEN"] = "127.0.0.1:0"
        environment["STOPOVER_SERVER__ADMIN_LISTEN"] = admin = f"127.0.0.1:{free_port()}"
        environment["STOPOVER_SERVER__START_TIMEOUT"] = "1s"
        log = open(f"{root}/log", "w+")
        process = subprocess.Popen(
            [program("STOPOVER_BINARY"), "serve"],
            env=environment, cwd=root, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        try:
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                log.seek(0)
                raise RuntimeError(f"the daemon does not start: {log.read()}")
            url = line.split()[2]
            yield url, f"{url.partition(':')[0]}://{admin}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def get(url, token=None):
    """Status and body, without verifying a certificate, as the kubelet does."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(url)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    options = {"context": context} if url.startswith("https") else {}
    try:
        with urllib.request.urlopen(request, timeout=10, **options) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def certificate():
    """The files of a Secret that cert-manager would write."""
    with tempfile.TemporaryDirectory() as folder:
        code, _, error = run(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "30", "-subj", "/CN=stopover", "-keyout", f"{folder}/tls.key",
            "-out", f"{folder}/tls.crt",
        )  # fmt: skip
        assert code == 0, error
        files = {
            name: pathlib.Path(f"{folder}/{name}").read_text() for name in ["tls.crt", "tls.key"]
        }
    files["ca.crt"] = files["tls.crt"]
    return {f"/etc/stopover-tls/{name}": content for name, content in files.items()}


def probe(container, name, admin):
    """Whether a probe of a container succeeds at its admin port."""
    asked = container[name]["httpGet"]
    if asked["port"] not in ("admin", "stopover-admin"):
        return False
    if not admin.startswith(f"{asked.get('scheme', 'HTTP').lower()}://"):
        return False
    return get(admin + asked["path"])[0] == 200


def daemon_starts_with_what_the_manifests_say():
    tls = ["--set", "tls.existingSecret=stopover-tls,tls.clientCertificates=true"]
    (tls_pool, files), secret = pool(*tls), certificate()
    cases = {"pool": pool(), "pool with TLS": (tls_pool, {**files, **secret}), "sidecar": sidecar()}
    cases["compose"] = compose()
    for name, (container, files) in cases.items():
        with tempfile.TemporaryDirectory() as base, running(container, files, base) as (url, admin):
            for kind in ["startupProbe", "livenessProbe", "readinessProbe"]:
                if kind in container and not probe(container, kind, admin):
                    yield f"{name}: {kind} fails at {admin}"
            if name == "sidecar" and get(f"{admin}/metrics")[0] != 200:
                yield "sidecar: Prometheus cannot scrape it"
            if name == "pool":
                unauthorized, allowed = (
                    get(f"{admin}/metrics")[0],
                    get(f"{admin}/metrics", TOKEN)[0],
                )
                if (unauthorized, allowed) != (401, 200):
                    yield f"/metrics answers {unauthorized} without, {allowed} with a token"
            if name == "pool with TLS" and get(f"{url}/metrics", TOKEN)[0] == 200:
                yield "/metrics is answered without a client certificate"


def certificate_of_the_daemon_is_watched():
    container, files = pool("--set", "tls.existingSecret=stopover-tls")
    before = time.time()
    with tempfile.TemporaryDirectory() as base:
        with running(container, {**files, **certificate()}, base) as (url, _):
            scraped = get(f"{url}/metrics", TOKEN)[1]
    values = dict(re.findall(r"^(stopover_(?:clock|credentials_not)\w*)\S* (\S+)$", scraped, re.M))
    days = {name: (float(value) - before) / 86400 for name, value in values.items()}
    expected = {
        "stopover_clock_seconds": 0,
        "stopover_credentials_not_before_seconds": 0,
        "stopover_credentials_not_after_seconds": 30,
    }
    for name, day in expected.items():
        if abs(days.get(name, 1e9) - day) > 0.01:
            yield f"{name} is {values.get(name)}, expected {day} days from now"


def probes_survive_a_base_directory_that_is_away():
    for name, (container, files) in {"pool": pool(), "sidecar": sidecar()}.items():
        with tempfile.TemporaryDirectory() as parent:
            # A file where the folder should be: it cannot be created, and works once that is gone.
            obstacle = pathlib.Path(parent, "spool")
            obstacle.write_text("")
            with running(container, files, str(obstacle)) as (url, admin):
                if not probe(container, "livenessProbe", admin):
                    yield f"{name}: it would be restarted"
                if get(f"{url}/readyz")[0] != 503:
                    yield f"{name}: it is ready without a base directory"
                if "readinessProbe" in container and probe(container, "readinessProbe", admin):
                    yield f"{name}: the readiness probe does not see it"
                obstacle.unlink()
                deadline = time.monotonic() + 45
                while get(f"{url}/readyz")[0] != 200:
                    if time.monotonic() > deadline:
                        yield f"{name}: it does not get ready when the base directory is back"
                        break
                    time.sleep(0.2)
