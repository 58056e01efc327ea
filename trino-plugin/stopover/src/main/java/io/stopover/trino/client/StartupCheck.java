/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.client;

import com.google.inject.Inject;
import io.airlift.log.Logger;
import io.stopover.trino.StopoverConfig;
import jakarta.annotation.PostConstruct;

import java.io.IOException;
import java.net.URI;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

import static java.util.Objects.requireNonNull;

/**
 * Checks every configured daemon once at start and logs the result: reached, token accepted,
 * version, base directories; or a warning with the remedy. Runs in the background, and Trino
 * starts whatever it finds: a daemon may start later than its node.
 */
public final class StartupCheck
{
    private static final Logger log = Logger.get(StartupCheck.class);

    private record Report(URI daemon, String version, Readiness readiness) {}

    private final List<URI> daemons;
    private final DaemonProbe probe;
    private final CompletableFuture<Void> finished = new CompletableFuture<>();

    @Inject
    public StartupCheck(StopoverConfig config, DaemonProbe probe)
    {
        this.daemons = config.getUris();
        this.probe = requireNonNull(probe, "probe is null");
    }

    @PostConstruct
    public void start()
    {
        Thread.ofVirtual().name("stopover-startup-check").start(() -> {
            try {
                run();
            }
            finally {
                finished.complete(null);
            }
        });
    }

    CompletableFuture<Void> finished()
    {
        return finished.copy();
    }

    private void run()
    {
        Map<URI, CompletableFuture<Report>> checks = new LinkedHashMap<>();
        for (URI daemon : daemons) {
            CompletableFuture<Report> check = new CompletableFuture<>();
            Thread.ofVirtual().name("stopover-startup-check").start(() -> {
                try {
                    check.complete(check(daemon));
                }
                catch (Throwable t) {
                    check.completeExceptionally(t);
                }
            });
            checks.put(daemon, check);
        }
        List<Report> reports = new ArrayList<>();
        checks.forEach((daemon, check) -> {
            try {
                Report report = check.join();
                reports.add(report);
                logReport(report);
            }
            catch (RuntimeException e) {
                logFailure(daemon, e.getCause());
            }
        });
        if (!reports.isEmpty()) {
            compare(reports);
        }
    }

    private Report check(URI daemon)
            throws IOException
    {
        // in this order: the first request needs no token, so each failure has one cause
        Readiness readiness = probe.readiness(daemon);
        return new Report(daemon, probe.version(daemon), readiness);
    }

    private static void logReport(Report report)
    {
        log.info(
                "Stopover daemon %s is ready for this node: version %s, base directories %s",
                report.daemon(), report.version(), report.readiness().baseDirectories());
        for (String base : report.readiness().unhealthy()) {
            log.warn("Stopover daemon %s cannot use its base directory %s", report.daemon(), base);
        }
    }

    private static void logFailure(URI daemon, Throwable failure)
    {
        if (failure instanceof CancelledException) {
            return;
        }
        if (failure instanceof ProblemException problem && problem.problem().status() == 503) {
            log.warn("Stopover daemon %s runs but is not ready: it is starting or draining, or no"
                    + " exchange can be opened through it; see %s/readyz", daemon, daemon);
            return;
        }
        log.warn(
                "Stopover daemon %s cannot be used by this node: %s", daemon, failure.getMessage());
    }

    /** A fleet shares its base directories, and runs one version except during an upgrade. */
    private static void compare(List<Report> reports)
    {
        Report first = reports.getFirst();
        for (Report other : reports) {
            Map<String, String> expected = first.readiness().baseDirectories();
            Map<String, String> actual = other.readiness().baseDirectories();
            if (!actual.equals(expected)) {
                log.warn("Stopover daemons differ in their base directories, so data written by one"
                                + " cannot be read through the other: %s has %s, %s has %s",
                        first.daemon(), expected, other.daemon(), actual);
            }
            if (!other.version().equals(first.version())) {
                log.warn("Stopover daemons differ in their version: %s runs %s, %s runs %s",
                        first.daemon(), first.version(), other.daemon(), other.version());
            }
        }
    }
}
