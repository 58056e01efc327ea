"""Manifests: the chart of a pool, and the values for Trino's official chart."""

import difflib
import os
import re

import jsonschema
import kubernetes_validate
import yaml
from common import CHART, DASHBOARD, ROOT, RULES, documents, find, helm_template, program, run, text

# The oldest version that the chart supports, and the newest whose schemas there are.
KUBERNETES = ["1.29", "1.37"]
TRINO_VALUES = ["sidecar", "pool"]


def strict(schema):
    """A schema of a custom resource with unknown members refused, as the API server prunes them."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("pattern"), str) and "(?i)" in schema["pattern"]:
        # Go accepts this anywhere, Python at the beginning.
        schema["pattern"] = "(?i)" + schema["pattern"].replace("(?i)", "")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        schema.setdefault("additionalProperties", False)
    return schema


def operator_schemas():
    """The schemas of ServiceMonitor, PodMonitor and PrometheusRule by apiVersion and kind."""
    schemas = {}
    for name in ["servicemonitors", "podmonitors", "prometheusrules"]:
        definition = yaml.safe_load(open(f"{program('CRDS')}/monitoring.coreos.com_{name}.yaml"))
        spec = definition["spec"]
        for version in spec["versions"]:
            kind = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            schemas[kind] = schema
    return schemas


def schema_problems(objects, version, schemas):
    """What of the objects violates its schema."""
    for thing in objects:
        name = f"{thing['kind']} {thing['metadata']['name']}"
        schema = schemas.get((thing["apiVersion"], thing["kind"]))
        try:
            if schema:
                jsonschema.validate(thing, schema)
            else:
                kubernetes_validate.validate(thing, version, strict=True)
        except jsonschema.ValidationError as error:
            yield f"{name}, Kubernetes {version}: {list(error.path)}: {error.message}"
        except kubernetes_validate.ValidationError as error:
            yield f"{name}, Kubernetes {version}: {list(error.path)}: {error.message}"


def chart_has_the_version_of_the_daemon():
    daemon = re.search(r'^version = "(.*)"', text("Cargo.toml"), re.M).group(1)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    if chart["appVersion"] != daemon:
        yield f"appVersion is {chart['appVersion']}, Cargo.toml says {daemon}"
    row = f"| {daemon.rpartition('.')[0]} |"
    if row not in text("docs/upgrading.md"):
        yield f"docs/upgrading.md has no row {row}"
    for values in TRINO_VALUES:
        for image, tag in re.findall(
            r"image: (\S+):(\S+)", text(f"deploy/trino-values-{values}.yaml")
        ):
            if tag != daemon:
                yield f"deploy/trino-values-{values}.yaml: {image}:{tag} is not {daemon}"


def golden_of_chart(values):
    """What the chart renders for values, with the names of large files in place of their content."""
    rendered = helm_template(CHART, [values], "--kube-version", KUBERNETES[0])
    for file, indentation in [(DASHBOARD, "    "), (RULES, "  ")]:
        lines = file.read_text().split("\n")
        content = "".join(f"\n{indentation}{line}" for line in lines)
        rendered = rendered.replace(content.rstrip(), f"\n{indentation}# {file.name}")
    return rendered


def chart_renders_what_was_reviewed():
    """Story: templates could have lost security contexts, spreading or the peers of the network
    policy, and no test would have failed."""
    bless = os.environ.get("STOPOVER_TEST_BLESS")
    expected = set()
    for values in sorted((CHART / "ci").glob("*.yaml")):
        golden = ROOT / f"tests/golden/chart-{values.stem.removesuffix('-values')}.yaml"
        expected.add(golden)
        rendered = golden_of_chart(values)
        if bless:
            golden.write_text(rendered)
        before = golden.read_text() if golden.exists() else ""
        if rendered != before:
            lines = difflib.unified_diff(before.splitlines(), rendered.splitlines(), lineterm="")
            changed = "\n".join(list(lines)[2:30])
            yield f"{golden.name} differs; if that is intended, STOPOVER_TEST_BLESS=1:\n{changed}"
    for golden in set((ROOT / "tests/golden").glob("chart-*.yaml")) - expected:
        yield f"{golden.name} is of no file in ci/"


def every_manifest_of_the_chart_fits_the_schemas():
    schemas = operator_schemas()
    for values in sorted((CHART / "ci").glob("*.yaml")):
        code, out, error = run(
            program("HELM"),
            "lint",
            "--strict",
            CHART,
            "-f",
            values,
            "--kube-version",
            KUBERNETES[0],
        )
        if code != 0:
            yield f"{values.name}: helm lint: {out}{error}"
        for version in KUBERNETES:
            try:
                rendered = helm_template(CHART, [values], "--kube-version", version)
            except ValueError as error:
                yield f"{values.name}: {error}"
                continue
            objects = documents(rendered)
            for problem in schema_problems(objects, version, schemas):
                yield f"{values.name}: {problem}"
            yield from rules_of_ours(values.name, objects)


def rules_of_ours(name, objects):
    """What a schema cannot say of the pool."""
    pool, service = find(objects, "StatefulSet")["spec"], find(objects, "Service")["spec"]
    pod = pool["template"]["spec"]
    container = pod["containers"][0]
    labels = pool["template"]["metadata"]["labels"]
    selectors = [("Service", service["selector"]), ("StatefulSet", pool["selector"]["matchLabels"])]
    for kind in ["PodDisruptionBudget", "NetworkPolicy"]:
        spec = find(objects, kind)["spec"]
        selector = spec.get("selector") or spec["podSelector"]
        selectors.append((kind, selector["matchLabels"]))
    for kind, selector in selectors:
        if not selector.items() <= labels.items():
            yield f"{name}: {kind} selects {selector}, the pods are {labels}"
    if service["clusterIP"] != "None" or not service["publishNotReadyAddresses"]:
        yield f"{name}: pods that are not ready have no name"
    paths = {probe: container[probe]["httpGet"]["path"] for probe in container if "Probe" in probe}
    if paths != {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }:
        yield f"{name}: probes {paths}"
    drain = next(e["value"] for e in container["env"] if e["name"].endswith("DRAIN_TIMEOUT"))
    if pod["terminationGracePeriodSeconds"] < int(drain.rstrip("s")) + 10:
        yield f"{name}: the pod is killed before its drain of {drain} ends"
    if {container[probe]["httpGet"]["port"] for probe in container if "Probe" in probe} != {
        "admin"
    }:
        yield f"{name}: probes share connections with clients"
    for context, rule, wanted in [
        (pod["securityContext"], "runAsNonRoot", True),
        (container["securityContext"], "readOnlyRootFilesystem", True),
        (container["securityContext"], "allowPrivilegeEscalation", False),
    ]:
        if context.get(rule) is not wanted:
            yield f"{name}: {rule} is {context.get(rule)}"
    named = {port["name"] for port in container["ports"]}
    for port in service["ports"]:
        if port["targetPort"] not in named:
            yield f"{name}: the Service names the port {port['targetPort']}"
    job = job_of(objects)
    if job and not alerts_select(job):
        yield f"{name}: no alert selects the job {job}"
    monitors = [o for o in objects if o["kind"] == "ServiceMonitor"]
    for endpoint in [e for m in monitors for e in m["spec"]["endpoints"]]:
        # Prometheus scrapes addresses, so the name in the certificate has to be said.
        expected = f"{pool['serviceName']}-0.{pool['serviceName']}"
        found = endpoint.get("tlsConfig", {}).get("serverName")
        if found != (expected if endpoint["scheme"] == "https" else None):
            yield f"{name}: {endpoint['scheme']} expects the name {found}"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    if mounted != {volume["name"] for volume in pod["volumes"]}:
        yield f"{name}: volumes and mounts differ"


def relabelled(endpoint, labels):
    """The label job that the relabelings of an endpoint make of the labels of a target."""
    job = None
    for rule in endpoint.get("relabelings", []):
        if rule["targetLabel"] == "job":
            source = ";".join(labels[label] for label in rule.get("sourceLabels", []))
            job = rule["replacement"].replace("$1", source)
    return job


def job_of(objects):
    """The label job of the metrics of a release that Prometheus scrapes."""
    endpoints = [o["spec"]["endpoints"] for o in objects if o["kind"] == "ServiceMonitor"]
    return relabelled(endpoints[0][0], {}) if endpoints else None


def alerts_select(job):
    """Whether a daemon that is down raises an alert if its metrics have this job."""
    return re.fullmatch(re.search(r'up\{job=~"([^"]+)"\}', RULES.read_text()).group(1), job or "")


def each_release_has_a_job_of_its_own():
    """Story: two releases in one namespace shared their job, which hid that one had no sweeper."""
    for values in sorted((CHART / "ci").glob("*.yaml")):
        if "fullnameOverride" in values.read_text():
            continue
        enabled = ["--set", "serviceMonitor.enabled=true,serviceMonitor.authorization.type=Bearer"]
        jobs = {}
        for release in ["stopover", "reports", "stopover-adhoc"]:
            rendered = helm_template(
                CHART, [values], "--kube-version", KUBERNETES[0], *enabled, release=release
            )
            job = job_of(documents(rendered))
            if not alerts_select(job):
                yield f"{values.name}, {release}: no alert selects the job {job}"
            jobs.setdefault(job, []).append(release)
        if len(jobs) < 3:
            yield f"{values.name}: releases share jobs: {jobs}"


# Values that contradict each other, and a part of the message that says so.
REFUSED = [
    (["config="], "config has no [[base_directory]]"),
    (["tokens.existingSecret="], "allowRemoteWithoutToken=true"),
    (["tls.clientCertificates=true"], "needs tls.existingSecret"),
    (["serviceMonitor.enabled=true"], "serviceMonitor.authorization is empty"),
    (["resources.limits.memory=8GB"], "set memoryBudget"),
    (["serviceMonitor.job=spool"], "serviceMonitor"),
    (["replica=3"], "replica"),
    (["replicas=0"], "minimum"),
    (["antiAffinity=always"], "antiAffinity"),
    (["image.digest=latest"], "digest"),
]


def chart_refuses_what_contradicts_itself():
    values = CHART / "ci/tokens-values.yaml"
    for sets, expected in REFUSED:
        arguments = [argument for value in sets for argument in ("--set", value)]
        try:
            helm_template(CHART, [values], "--kube-version", KUBERNETES[0], *arguments)
            yield f"{sets} is accepted"
        except ValueError as error:
            if expected not in str(error):
                yield f"{sets}: the message lacks {expected!r}: {error}"


def pod_monitor_selects_the_sidecar():
    monitor = yaml.safe_load(text("deploy/podmonitor-sidecar.yaml"))
    yield from schema_problems([monitor], KUBERNETES[-1], operator_schemas())
    objects = documents(text("tests/golden/trino-chart-sidecar.yaml"))
    for node in ["coordinator", "worker"]:
        template = find(objects, "Deployment", f"trino-{node}")["spec"]["template"]
        selector, labels = (
            monitor["spec"]["selector"]["matchLabels"],
            template["metadata"]["labels"],
        )
        if not selector.items() <= labels.items():
            yield f"it selects {selector}, the {node} is {labels}"
        ports = [p["name"] for c in template["spec"]["initContainers"] for p in c.get("ports", [])]
        endpoint = monitor["spec"]["podMetricsEndpoints"][0]
        if endpoint["port"] not in ports:
            yield f"the {node} has no such port: {ports}"
        prefix = "__meta_kubernetes_pod_label_"
        known = {prefix + re.sub(r"\W", "_", label): value for label, value in labels.items()}
        job = relabelled(endpoint, known)
        if not alerts_select(job) or labels["app.kubernetes.io/instance"] not in job:
            yield f"the {node} gets the job {job}"


def trino_chart_takes_the_values():
    schemas = operator_schemas()
    properties = set(re.findall(r"`(stopover\.[a-z.-]+)`", text("docs/plugin.md")))
    for name in TRINO_VALUES:
        golden = f"tests/golden/trino-chart-{name}.yaml"
        yield from rendered_again(name, golden)
        objects = documents(text(golden))
        values = yaml.safe_load(text(f"deploy/trino-values-{name}.yaml"))
        for version in KUBERNETES:
            for problem in schema_problems(objects, version, schemas):
                yield f"{golden}: {problem}"
        version = find(objects, "ConfigMap", "trino-worker")["metadata"]["labels"]["helm.sh/chart"]
        if version.removeprefix("trino-") not in text(f"deploy/trino-values-{name}.yaml"):
            yield f"{golden} is of {version}; the values name another version"
        for node in ["coordinator", "worker"]:
            for problem in node_problems(node, values, objects, properties):
                yield f"{golden}, {node}: {problem}"


def rendered_again(name, golden):
    """The chart itself is in no registry: compared where somebody has it."""
    chart = os.environ.get("STOPOVER_TEST_TRINO_CHART")
    if not chart:
        return
    rendered = run(
        program("HELM"), "template", "trino", f"{chart}/charts/trino", "--namespace", "trino",
        "--kube-version", "1.33", "--skip-tests", "-f", ROOT / f"deploy/trino-values-{name}.yaml",
    )  # fmt: skip
    if rendered[0] != 0:
        yield rendered[2]
    elif os.environ.get("STOPOVER_TEST_BLESS"):
        (ROOT / golden).write_text(rendered[1])
    elif rendered[1] != text(golden):
        yield f"{golden} is not what {chart} renders now: STOPOVER_TEST_BLESS=1 rewrites it"


def node_problems(node, values, objects, properties):
    """What of the values is not in the rendered pod of a node."""
    pod = find(objects, "Deployment", f"trino-{node}")["spec"]["template"]["spec"]
    trino = pod["containers"][0]
    if pod["initContainers"] != values["initContainers"][node]:
        yield "other init containers than in the values"
    for mount in values[node]["additionalVolumeMounts"]:
        if mount not in trino["volumeMounts"]:
            yield f"no mount {mount}"
    for secret in values[node].get("secretMounts", []):
        if not any(mount["mountPath"] == secret["path"] for mount in trino["volumeMounts"]):
            yield f"no mount {secret['path']}"
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in [trino, *pod["initContainers"]]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{container['name']} mounts {mount['name']}, which is no volume"
    files = find(objects, "ConfigMap", f"trino-{node}")["data"]
    for file, content in values[node]["additionalConfigFiles"].items():
        if files.get(file, "").strip() != content.strip():
            yield f"{file} differs"
    if "retry-policy=TASK" not in files["config.properties"]:
        yield "config.properties has no retry-policy"
    for line in files["exchange-manager.properties"].splitlines():
        key = line.partition("=")[0]
        if key.startswith("stopover.") and key not in properties:
            yield f"docs/plugin.md has no property {key}"
