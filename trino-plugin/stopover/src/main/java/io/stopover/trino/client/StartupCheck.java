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
import jakarta.annotation.PostConstruct;

import java.io.IOException;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

import static java.util.Objects.requireNonNull;

/**
 * Checks every daemon once at start and logs the result: reached, token accepted, version, base
 * directories; or a warning with the remedy. Runs in the background, and Trino starts whatever the
 * result: a daemon may start later than its node.
 */
public final class StartupCheck
{
    private static final Logger log = Logger.get(StartupCheck.class);

    private record Report(Daemon daemon, DaemonInfo info, Readiness readiness) {}

    private final Daemons daemons;
    private final DaemonProbe probe;
    private final Fleet fleet;
    private final CompletableFuture<Void> finished = new CompletableFuture<>();

    @Inject
    public StartupCheck(Daemons daemons, DaemonProbe probe, Fleet fleet)
    {
        this.daemons = requireNonNull(daemons, "daemons is null");
        this.probe = requireNonNull(probe, "probe is null");
        this.fleet = requireNonNull(fleet, "fleet is null");
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
        fleet.lookUp();
        Map<Daemon, CompletableFuture<Report>> checks = new LinkedHashMap<>();
        for (Daemon daemon : daemons.all()) {
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
        checks.forEach((daemon, check) -> {
            try {
                logReport(check.join());
            }
            catch (RuntimeException e) {
                logFailure(daemon, e.getCause());
            }
        });
        fleet.warnAboutDifferences();
        fleet.logDisabledFeatures();
    }

    private Report check(Daemon daemon)
            throws IOException
    {
        // in this order: the first request needs no token, so each failure has one cause
        Readiness readiness = probe.readiness(daemon);
        return new Report(daemon, fleet.ask(daemon), readiness);
    }

    private void logReport(Report report)
    {
        log.info(
                "Stopover daemon %s is ready for this node: version %s, base directories %s",
                report.daemon(), report.info().version(), report.info().baseDirectories());
        for (String base : report.readiness().unhealthy()) {
            log.warn("Stopover daemon %s cannot use its base directory %s", report.daemon(), base);
        }
        fleet.warn(report.daemon(), report.info());
    }

    private static void logFailure(Daemon daemon, Throwable failure)
    {
        if (failure instanceof CancelledException) {
            return;
        }
        if (failure instanceof ProblemException problem && problem.problem().status() == 503) {
            log.warn("Stopover daemon %s runs but is not ready: it is starting or draining, or no"
                    + " exchange can be opened through it; see %s", daemon, daemon.url("/readyz"));
            return;
        }
        log.warn(
                "Stopover daemon %s cannot be used by this node: %s", daemon, failure.getMessage());
    }
}
