"""Follows docs/kubernetes.md as far as that goes without a cluster.

Does: run the commands that make tokens with a stand-in for kubectl that records what it is given;
compare that with what the charts read; start a daemon with these tokens; render the chart with the
values of the page. Does not: talk to a cluster or a registry. Invariant: what the page names exists.
"""

import os
import pathlib
import re
import subprocess
import tempfile

import policies
import yaml
from common import CHART, ROOT, documents, find, helm_template, program, run, text

PAGE = "docs/kubernetes.md"
# What kubectl calls deploy/trino-worker is no file.
WORKLOAD = r"\bdeploy(?:ment)?/(trino-\w+)(?![\w.-])"


def blocks(page):
    """The indented blocks of a page, each with the line before it."""
    found, before, block = [], "", []
    for line in [*page.splitlines(), ""]:
        if line.startswith("    ") or (block and not line.strip()):
            block.append(line[4:])
            continue
        if block:
            found.append((before, "\n".join(block).strip() + "\n"))
            block = []
        before = line.strip() or before
    return found


def block_after(page, words):
    """The block after the paragraph that ends with these words."""
    found = [block for before, block in blocks(page) if before.endswith(words)]
    assert len(found) == 1, f"{len(found)} blocks after {words!r}"
    return found[0]


def files_exist(page):
    page = re.sub(WORKLOAD, "", page)
    for path in set(re.findall(r"(?<![\w/.-])((?:deploy|tests)/[\w./-]*\w)", page)):
        if not (ROOT / path).exists():
            yield f"{PAGE} names {path}, which does not exist"


def containers(deployment):
    pod = deployment["spec"]["template"]["spec"]
    return {c["name"] for c in [*pod["containers"], *pod.get("initContainers", [])]}


def workloads_exist(page):
    """Deployments and containers that commands for the sidecar name."""
    rendered = documents(text("tests/golden/trino-chart-sidecar.yaml"))
    for name, container in re.findall(WORKLOAD + r"(?: -c ([\w-]+))?", page):
        known = [o["metadata"]["name"] for o in rendered if o["kind"] == "Deployment"]
        if name not in known:
            yield f"{PAGE} names the deployment {name}, there are {known}"
        elif container and container not in containers(find(rendered, "Deployment", name)):
            yield f"{PAGE} names the container {container}, which {name} has not"
    version = find(rendered, "ConfigMap", "trino-worker")["metadata"]["labels"]["helm.sh/chart"]
    for used in re.findall(r"trino/trino --version (\S+)", page):
        if version != f"trino-{used}":
            yield f"{PAGE} installs chart {used}, {version} was rendered"


def metrics_exist(page):
    catalog = text("docs/metrics.md")
    pattern = re.search(r"grep -E '(\S+)'", page).group(1)
    names = re.findall(r"^\| `(stopover_\w+)`", catalog, re.M)
    if not any(re.search(pattern, name) for name in names):
        yield f"no metric matches {pattern}"


def secrets(page):
    """What the commands for tokens would create: the content of each key of each Secret."""
    with tempfile.TemporaryDirectory() as folder:
        stub = pathlib.Path(folder, "kubectl")
        stub.write_text('#!/bin/sh\n{ echo "$*"; case "$*" in *stdin*) cat;; esac; echo; } '
                        f'>>"{folder}/$6"\n')  # fmt: skip
        stub.chmod(0o755)
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        script = block_after(page, "for the daemons:")
        subprocess.run(["bash", "-euc", script], env=environment, check=True)
        made = {}
        for file in pathlib.Path(folder).glob("stopover-*"):
            command, _, stdin = file.read_text().partition("\n")
            if literal := re.search(r"--from-literal=(\w+)=(\S+)", command):
                made[file.name] = {literal.group(1): literal.group(2)}
            else:
                key = re.search(r"--from-file=(\w+)=/dev/stdin", command).group(1)
                made[file.name] = {key: stdin.strip() + "\n"}
        return made


def references(thing):
    """The Secrets that a manifest reads, by their names; with the key, where it names one."""
    if isinstance(thing, list):
        for item in thing:
            yield from references(item)
    elif isinstance(thing, dict):
        if isinstance(thing.get("secretName"), str):
            yield thing["secretName"], None
        if {"name", "key"} <= thing.keys():
            yield thing["name"], thing["key"]
        for item in thing.values():
            yield from references(item)


def pool_problems(page):
    made = secrets(page)
    with tempfile.TemporaryDirectory() as folder:
        values = pathlib.Path(folder, "my-pool.yaml")
        values.write_text(block_after(page, "`my-pool.yaml`:"))
        monitoring = pathlib.Path(folder, "monitoring.yaml")
        monitoring.write_text(block_after(page, "the pool's chart installs all of it:"))
        rendered = helm_template(CHART, [values, monitoring], "--kube-version", "1.33")
        pool = documents(rendered)
        trino = documents(text("tests/golden/trino-chart-pool.yaml"))
        used = {*references(pool), *references(trino)}
        used = {(name, key) for name, key in used if name.startswith("stopover-")}
        for name, key in sorted(used, key=str):
            if name not in made or (key and key not in made[name]):
                yield f"{name} {key or ''} is read, but {PAGE} makes {sorted(made)}"
        for name in made:
            if name not in {used_name for used_name, _ in used}:
                yield f"{PAGE} makes the Secret {name}, which nothing reads"
        yield from token_problems(made, folder)


def token_problems(made, folder):
    """Whether a daemon accepts the tokens with their scopes."""
    tokens = pathlib.Path(folder, "tokens")
    tokens.write_text(made["stopover-tokens"]["tokens"])
    options = [
        "--base-directory", f"{folder}/base", "--set", f"server.token_file={tokens}",
        "--listen", "127.0.0.1:0",
    ]  # fmt: skip
    command = [program("STOPOVER_BINARY"), "serve", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    daemon = subprocess.Popen(command, env={}, **pipes)
    try:
        address = daemon.stdout.readline().split()[2]
        for owner, path, body, wanted in [
            ("coordinator", "/v1/exchanges/q-1", b'{"partitions": 1, "ordered": false}', 201),
            ("worker", "/v1/exchanges/q-2", b'{"partitions": 1, "ordered": false}', 403),
            ("prometheus", "/metrics", None, 200),
            ("prometheus", "/v1/exchanges", None, 403),
            ("admin", "/v1/exchanges", None, 200),
        ]:
            if owner == "admin":
                token = re.search(r"^admin (\S+)$", tokens.read_text(), re.M).group(1)
            else:
                token = made[f"stopover-{owner}"]["token"]
            got = policies.status("PUT" if body else "GET", address + path, token, body)
            if got != wanted:
                yield f"the token of {owner} gets {got} for {path}, not {wanted}"
    finally:
        daemon.terminate()
        daemon.wait(60)


def stackable_problems(page):
    spec = yaml.safe_load(block_after(page, "`deploy/trino-values-sidecar.yaml`:"))["spec"]
    override = spec["workers"]["configOverrides"]["exchange-manager.properties"]
    sidecar = yaml.safe_load(text("deploy/trino-values-sidecar.yaml"))
    lines = sidecar["worker"]["additionalConfigFiles"]["exchange-manager.properties"].split()
    if [f"{key}={value}" for key, value in override.items()] != lines:
        yield f"Stackable's override is {override}, the values have {lines}"
    given = {v["name"] for v in spec["workers"]["podOverrides"]["spec"]["volumes"]}
    for container in sidecar["initContainers"]["worker"]:
        for mount in container["volumeMounts"]:
            if mount["name"] not in given:
                yield f"Stackable's pods lack the volume {mount['name']} of {container['name']}"


def trial_problems(page):
    """Whether the query that survives a lost worker, and its times, are those of docs/trino.md."""
    trino = text("docs/trino.md")
    statement = " ".join(block_after(trino, "it is over sooner:").rstrip(";\n ").split())
    if statement not in " ".join(page.split()):
        yield f"{PAGE} has another query than docs/trino.md: {statement}"
    times = block_after(trino, "coordinator:").split()
    for name in ["sidecar", "pool"]:
        values = re.sub(r"^  #(  \S+=\S+)$", r"  \1", text(f"deploy/trino-values-{name}.yaml"),
                        flags=re.M)  # fmt: skip
        given = yaml.safe_load(values)["server"]["coordinatorExtraConfig"].split()
        if given[1:] != times:
            yield f"deploy/trino-values-{name}.yaml has the times {given[1:]}, not {times}"


def each_way_makes_its_namespace(page):
    """Story: who followed only the pool's section had neither namespace nor repository of charts."""
    for section in ["Sidecar", "Pool"]:
        commands = re.search(rf"^## {section}\n(.*?)^## ", page, re.M | re.S).group(1)
        for wanted in ["kubectl create namespace trino", "helm repo add trino "]:
            made, used = commands.find(wanted), re.search(r"-n trino|trino/trino", commands).start()
            if not 0 <= made < used:
                yield f"{PAGE}, {section}: {wanted!r} is missing before what needs it"


def ports_are_awaited(page):
    """Story: curl was faster than the forwarding that the line before had started."""
    for _, block in blocks(page):
        forwarding, _, rest = block.partition("port-forward")
        if rest and re.search(r"&$", rest, re.M):
            for command in re.findall(r"\bcurl .*", rest):
                if "--retry-connrefused" not in command:
                    yield f"{PAGE}: {command!r} does not wait for the port"


def identities_problems():
    """Uncommented, the values of the sidecar give each cloud's identity to the pods."""
    values = text("deploy/trino-values-sidecar.yaml")
    offered = dict(re.findall(r"^  #  (\S+/\S+): (\S+)$", values, re.M))
    for annotation in [
        "eks.amazonaws.com/role-arn",
        "iam.gke.io/gcp-service-account",
        "azure.workload.identity/client-id",
    ]:
        if annotation not in offered:
            yield f"deploy/trino-values-sidecar.yaml offers no {annotation}"
    lines = "\n".join(f"    {name}: {value}" for name, value in offered.items())
    values = values.replace("  annotations: {}\n", f"  annotations:\n{lines}\n")
    given = yaml.safe_load(re.sub(r"^  #labels:", "  labels:", values, flags=re.M))
    if given["serviceAccount"]["annotations"] != offered:
        yield f"the service account has {given['serviceAccount']['annotations']}"
    for node in ["coordinator", "worker"]:
        if given[node].get("labels") != {"azure.workload.identity/use": "true"}:
            yield f"the {node} cannot be labelled for Azure: {given[node].get('labels')}"


def sidecar_upgrade_problems():
    """What the first of two upgrades sets: other images for the workers, nothing else."""
    page, before = text("docs/upgrading.md"), text("deploy/trino-values-sidecar.yaml")
    block = block_after(page, "versions (step 5 above):")
    variables, command = block.split("\n", 1)
    sets = re.findall(r'--set "([^"]+)"', command)
    images = dict(re.findall(r"(\w+)=(\S+)", variables))
    for name, value in images.items():
        sets = [one.replace(f"${name}", value) for one in sets]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "templates").mkdir()
        (root / "Chart.yaml").write_text("apiVersion: v2\nname: values\nversion: 0.1.0\n")
        # A manifest that is the values themselves.
        (root / "templates/values.yaml").write_text("{{ toYaml .Values }}\n")
        arguments = [argument for one in sets for argument in ("--set", one)]
        (after,) = documents(
            helm_template(root, [ROOT / "deploy/trino-values-sidecar.yaml"], *arguments)
        )
    expected = yaml.safe_load(before)
    plugin, daemon = expected["initContainers"]["worker"] = [
        dict(container) for container in expected["initContainers"]["worker"]
    ]
    plugin["image"] = f"{images['R']}/stopover-plugin:{images['NEW']}"
    daemon["image"] = f"{images['R']}/stopover:{images['NEW']}"
    if after != expected:
        yield f"docs/upgrading.md changes other values: {command}"


def shell_is_valid(page):
    for _, block in blocks(page):
        if re.match(r"(helm|kubectl|docker|R=|W=)", block):
            code, _, error = run("bash", "-n", "-c", block)
            if code != 0:
                yield f"{block}: {error}"


def kubernetes_page_can_be_followed():
    page = text(PAGE)
    for check in [
        files_exist,
        workloads_exist,
        metrics_exist,
        each_way_makes_its_namespace,
        ports_are_awaited,
        shell_is_valid,
        stackable_problems,
        trial_problems,
        pool_problems,
    ]:
        yield from check(page)
    yield from identities_problems()
    yield from sidecar_upgrade_problems()
