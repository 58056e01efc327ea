"""The alerts and the dashboard, compared with the catalog of metrics (docs/metrics.md)."""

import json
import re
import tempfile

import yaml
from common import DASHBOARD, RULES, program, run, text

# Labels that Prometheus adds to every series.
TARGET_LABELS = {"job", "instance", "namespace", "pod"}
# What alerts need besides what a panel shows: the targets themselves, a clock to compare with, and
# since when something is valid whose end is shown.
NOT_SHOWN = {
    "up",
    "stopover_clock_seconds",
    "stopover_credentials_not_before_seconds",
    "stopover_storage_credentials_not_before_seconds",
}
RUNBOOKS = "https://github.com/stopover/stopover/blob/main/docs/operations.md#"


def catalog():
    """Kind and labels of each metric; docs/metrics.md is held equal to the code by Rust tests."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", text("docs/metrics.md"), re.M)
    metrics = {name: (kind, set(labels.replace(",", " ").split())) for name, kind, labels in rows}
    assert len(metrics) > 40, "docs/metrics.md was not understood"
    metrics["up"] = ("Gauge", set())
    return metrics


def expression_problems(expression, metrics):
    """Metrics and labels of an expression that do not exist, and rates of what is no counter."""
    for route in re.findall(r'route="([^"]*)"', expression):
        if route not in json.loads(text("tests/golden/openapi.json"))["paths"]:
            yield f"no route {route}"
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    used = set()
    for call, name, _, matchers in re.findall(
        r"(\w+\s*\(\s*)?\b((?:stopover|process)_\w+|up\b)(\{([^}]*)\})?", bare
    ):
        metric = re.sub(r"_(bucket|sum|count)$", "", name)
        metric = metric if metrics.get(metric, ("",))[0] == "Histogram" else name
        if metric not in metrics:
            yield f"no metric {name}"
            continue
        kind, labels = metrics[metric]
        used |= labels
        rate = re.match(r"(rate|irate|increase)\b", call)
        if rate and kind not in ("Counter", "Histogram"):
            yield f"{rate.group(1)} of {name}, a {kind}"
        if kind == "Counter" and "[" not in bare:
            yield f"{name} is a counter without a range"
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            if label not in labels | TARGET_LABELS:
                yield f"{name} has no label {label}"
    for grouping in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", bare):
        for label in grouping.replace(",", " ").split():
            if label not in used | TARGET_LABELS | {"le"}:
                yield f"no metric of it has the label {label}"


# Expressions, and a part of what is wrong with each.
WRONG = [
    ("rate(stopover_page_written_total[5m])", "no metric"),
    ('stopover_storage_healthy{bse=~"x"}', "no label bse"),
    ("sum by (bse) (stopover_storage_healthy)", "label bse"),
    ("rate(stopover_sinks_open[5m])", "a Gauge"),
    ("stopover_sinks_failed_total > 0", "counter without a range"),
    ('rate(stopover_http_requests_total{route="/v1/exchange"}[5m])', "no route"),
]


def rules_see_what_they_should_see():
    metrics = catalog()
    for expression, expected in WRONG:
        found = list(expression_problems(expression, metrics))
        if len(found) != 1 or expected not in found[0]:
            yield f"{expression}: {found}"


def rules():
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", text(page), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def alerts_name_existing_metrics_and_runbooks():
    code, out, error = run(
        program("PROMTOOL"), "check", "rules", "--lint=all", "--lint-fatal", RULES
    )
    if code != 0:
        yield f"promtool: {out}{error}"
    metrics, sections = catalog(), anchors("docs/operations.md")
    for rule in rules():
        name = rule["alert"]
        for problem in expression_problems(rule["expr"], metrics):
            yield f"{name}: {problem}"
        url = rule["annotations"]["runbook_url"]
        if url != RUNBOOKS + name.lower():
            yield f"{name}: its runbook is {url}"
        if name.lower() not in sections:
            yield f"{name}: docs/operations.md has no section {name}"
        if rule["labels"]["severity"] not in ("warning", "critical"):
            yield f"{name}: severity {rule['labels']['severity']}"


def alerts_fire_for_their_cause():
    cases = text("tests/deploy/alerts-test.yaml")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(cases.replace("[RULES]", f"[{RULES}]"))
        file.flush()
        code, out, error = run(program("PROMTOOL"), "test", "rules", file.name)
    if code != 0:
        yield f"promtool: {out}{error}"
    fired = set()
    for case in yaml.safe_load(cases)["tests"]:
        fired |= {test["alertname"] for test in case["alert_rule_test"] if test.get("exp_alerts")}
    for rule in rules():
        if rule["alert"] not in fired:
            yield f"no case lets {rule['alert']} fire"


def dashboard_names_existing_metrics():
    dashboard = json.loads(DASHBOARD.read_text())
    metrics = catalog()
    expressions = [(a["name"], a["expr"]) for a in dashboard["annotations"]["list"]]
    for panel in dashboard["panels"]:
        if panel["type"] != "row" and not panel.get("description"):
            yield f"panel {panel['title']} has no description"
        expressions += [(panel["title"], t["expr"]) for t in panel.get("targets", [])]
    for variable in dashboard["templating"]["list"]:
        for name, _ in re.findall(r"label_values\((\w+)(.*)", str(variable["query"])):
            if name not in metrics:
                yield f"variable {variable['name']}: no metric {name}"
    for title, expression in expressions:
        for problem in expression_problems(expression, metrics):
            yield f"{title}: {problem}"
    yield from layout_problems(dashboard["panels"])
    yield from column_problems(dashboard["panels"])
    yield from syntax_problems(expressions)
    shown = set(re.findall(r"\w+", " ".join(expression for _, expression in expressions)))
    alerting = set(re.findall(r"\w+", " ".join(rule["expr"] for rule in rules())))
    needed = {"stopover_exchanges_by_age", "stopover_storage_stored_bytes"}
    needed |= alerting & metrics.keys()
    for name in sorted(needed - shown - NOT_SHOWN):
        yield f"{name} is in no panel, and what alerts must be visible"


def dashboard_fits_the_types_of_grafana():
    code, out, error = run(program("GRAFANA_CHECK"), DASHBOARD)
    if code != 0:
        yield f"{out}{error}"


def column_problems(panels):
    """Tables that have a query without a name, or a name without a query."""
    for panel in [panel for panel in panels if panel["type"] == "table"]:
        names = panel["transformations"][-1]["options"]["renameByName"].keys()
        values = {f"Value #{target['refId']}" for target in panel["targets"]}
        if values != names:
            yield f"{panel['title']}: queries {values}, names for {names}"


def layout_problems(panels):
    """Panels that overlap, leave the 24 columns, or share an id."""
    taken, ids = {}, set()
    for panel in panels:
        at, title = panel["gridPos"], panel["title"]
        if panel["id"] in ids:
            yield f"{title}: the id {panel['id']} is taken"
        ids.add(panel["id"])
        if at["x"] + at["w"] > 24:
            yield f"{title} is wider than the page"
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                if (x, y) in taken:
                    yield f"{title} overlaps {taken[x, y]}"
                    return
                taken[x, y] = title


def syntax_problems(expressions):
    """What promtool cannot parse, with Grafana's variables filled in."""
    fill = {"$__rate_interval": "5m", "$__range": "1h", "$job": ".+", "$instance": ".+"}
    recorded = []
    for number, (_, expression) in enumerate(expressions):
        for variable, value in fill.items():
            expression = expression.replace(variable, value)
        recorded.append({"record": f"dashboard:{number}", "expr": expression})
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}, file)
        file.flush()
        code, out, error = run(program("PROMTOOL"), "check", "rules", file.name)
    if code != 0:
        yield f"promtool: {out}{error}"
