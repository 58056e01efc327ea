"""Checks deploy/: everything there is rendered, parsed or run, and agrees with the code.

Does: render the chart with helm and hold every manifest against the schemas of Kubernetes and of
the Prometheus operator, strictly; start the daemon with exactly what the manifests say and probe it
as they say; test the alerts with promtool and the dashboard with Prometheus; compare every metric,
label, setting and file that deploy/ names with what exists. Does not: need a cluster or a container
runtime. Invariant: a check that could not run is a failure.

Usage: check.py, with the programs in HELM, PROMTOOL, PROMETHEUS, ACTIONLINT and GRAFANA_CHECK, the
operator's schemas in CRDS, the daemon in STOPOVER_BINARY and the S3 server in
STOPOVER_TEST_VERSITYGW (tests/run sets them). What the chart renders is compared with
tests/golden/chart-*.yaml, and with a checkout of trinodb/charts in STOPOVER_TEST_TRINO_CHART, what
that renders with tests/golden/trino-chart-*.yaml; STOPOVER_TEST_BLESS=1 rewrites them.
"""

import sys

import daemon
import manifests
import metrics
import packages
import policies
import repository
import terminal
import topology
import walkthrough


def main():
    checks = [
        manifests.chart_has_the_version_of_the_daemon,
        manifests.every_manifest_of_the_chart_fits_the_schemas,
        manifests.chart_renders_what_was_reviewed,
        manifests.each_release_has_a_job_of_its_own,
        manifests.chart_refuses_what_contradicts_itself,
        manifests.trino_chart_takes_the_values,
        manifests.pod_monitor_selects_the_sidecar,
        daemon.daemon_starts_with_what_the_manifests_say,
        daemon.certificate_of_the_daemon_is_watched,
        daemon.probes_survive_a_base_directory_that_is_away,
        policies.smallest_rights_suffice_and_each_is_needed,
        metrics.rules_see_what_they_should_see,
        metrics.alerts_name_existing_metrics_and_runbooks,
        metrics.alerts_fire_for_their_cause,
        metrics.dashboard_names_existing_metrics,
        metrics.dashboard_fits_the_types_of_grafana,
        topology.dashboard_has_data_of_running_daemons,
        terminal.progress_is_shown_on_terminals_only,
        packages.debian_package_is_complete,
        packages.plugin_is_copied_and_replaced,
        walkthrough.kubernetes_page_can_be_followed,
        repository.compose_names_existing_files,
        repository.compose_files_agree,
        repository.images_copy_existing_files,
        repository.base_images_are_named_by_digest,
        repository.site_is_complete,
        repository.workflows_are_valid,
        repository.jobs_in_containers_trust_their_workspace,
        repository.release_has_the_version_of_its_tag,
        repository.released_chart_names_the_image_that_is_pushed,
    ]
    failed = 0
    for check in checks:
        problems = list(check())
        for problem in problems:
            print(f"FAIL {check.__name__}: {problem}", file=sys.stderr)
        failed += bool(problems)
        print(f"{'FAIL' if problems else 'ok'} {check.__name__.replace('_', ' ')}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
