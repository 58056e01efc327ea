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

import com.google.errorprone.annotations.concurrent.GuardedBy;
import io.airlift.log.Logger;
import io.stopover.trino.StopoverConfig;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.SequencedMap;
import java.util.Set;
import java.util.function.LongSupplier;

import static io.stopover.trino.wire.Counts.count;
import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.MINUTES;

/**
 * Warns the operator of a node about differences between its daemons: versions, limits and base
 * directories. A difference that persists is logged again every {@value #REPEAT_MINUTES} minutes.
 */
final class FleetLog
{
    private static final Logger log = Logger.get(FleetLog.class);
    static final long REPEAT_MINUTES = 60;
    /** Most output partitions of an exchange in Trino. */
    private static final int TRINO_PARTITIONS = 1000;

    private final long batchSize;
    private final long maxPageSize;
    private final LongSupplier nanoTime;
    /** The logged differences, with the time of the log line. */
    @GuardedBy("this")
    private final Map<String, Long> told = new HashMap<>();

    FleetLog(StopoverConfig config, LongSupplier nanoTime)
    {
        this.batchSize = config.getBatchSize().toBytes();
        this.maxPageSize = config.getMaxPageSize().toBytes();
        this.nanoTime = requireNonNull(nanoTime, "nanoTime is null");
    }

    /** Warns about what will not work with a daemon. */
    void warn(Daemon daemon, DaemonInfo info)
    {
        if (!info.speaks(Fleet.PROTOCOL)) {
            log.warn("Stopover daemon %s speaks protocol %s to %s, this plugin speaks %s: %s",
                    daemon, info.oldestProtocol(), info.newestProtocol(), Fleet.PROTOCOL,
                    info.newestProtocol() < Fleet.PROTOCOL
                            ? "upgrade the daemons first, then the plugin"
                            : "upgrade the plugin");
        }
        if (info.maxPageSize() < maxPageSize) {
            log.warn("Stopover daemon %s accepts pages of at most %s (limits.max_page_size),"
                            + " but stopover.max-page-size is %s: a query with a larger page fails",
                    daemon, count(info.maxPageSize(), "byte"), maxPageSize);
        }
        if (info.maxBatchSize() < batchSize) {
            log.warn("Stopover daemon %s accepts batches of at most %s"
                            + " (limits.max_batch_size), less than stopover.batch-size (%s):"
                            + " this node sends smaller ones",
                    daemon, count(info.maxBatchSize(), "byte"), batchSize);
        }
        if (info.maxPartitions() < TRINO_PARTITIONS) {
            log.warn("Stopover daemon %s accepts at most %s (limits.max_partitions);"
                            + " Trino's exchanges may have up to %s",
                    daemon, count(info.maxPartitions(), "partition"), TRINO_PARTITIONS);
        }
    }

    /**
     * Warns about differences: a fleet has the same base directories, and runs one version except
     * during an upgrade.
     *
     * @param known the descriptions of the daemons, in order of preference
     */
    synchronized void warnAboutDifferences(SequencedMap<Daemon, DaemonInfo> known)
    {
        List<String> differences = new ArrayList<>();
        BaseDirectories.lacks(known).forEach(lack -> differences.add(lack.describe()));
        known.forEach((daemon, info) -> {
            DaemonInfo expected = known.firstEntry().getValue();
            if (!info.version().equals(expected.version())) {
                differences.add("Stopover daemons differ in their version: %s runs %s, %s runs %s"
                        .formatted(known.firstEntry().getKey(), expected.version(),
                                daemon, info.version()));
            }
        });
        long now = nanoTime.getAsLong();
        Set<String> settled = new HashSet<>(told.keySet());
        differences.forEach(settled::remove);
        settled.forEach(told::remove);
        if (!settled.isEmpty() && differences.isEmpty()) {
            log.info("Stopover daemons do not differ in version or base directories any more");
        }
        for (String difference : differences) {
            Long last = told.get(difference);
            if (last == null || now - last >= MINUTES.toNanos(REPEAT_MINUTES)) {
                told.put(difference, now);
                log.warn("%s", difference);
            }
        }
    }

    /** Logs at start which features the configuration of this node disables. */
    static void logDisabledFeatures(List<Daemon> all)
    {
        if (all.size() == 1) {
            log.info("stopover.uris names one Stopover daemon, %s: while it is unavailable, tasks"
                    + " of this node fail, and small outputs of several nodes are not gathered."
                    + " Name other daemons after it to have both", all.getFirst());
        }
    }
}
