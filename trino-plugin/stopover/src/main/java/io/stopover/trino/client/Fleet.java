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

import java.io.IOException;
import java.net.URI;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

import static java.util.Objects.requireNonNull;

/**
 * What the configured daemons say of themselves, and what follows for this node: it plans with the
 * lowest limits and versions of all daemons, because any of them may serve a request. Asks a daemon
 * again after it was restarted, in the background. A daemon that has not answered yet limits
 * nothing.
 */
public final class Fleet
{
    private static final Logger log = Logger.get(Fleet.class);
    /** The only protocol that this plugin speaks. */
    static final int PROTOCOL = 1;
    /** Most output partitions of an exchange in Trino. */
    private static final int TRINO_PARTITIONS = 1000;

    private final List<URI> daemons;
    private final long batchSize;
    private final long maxPageSize;
    private final DaemonProbe probe;
    private final Map<URI, DaemonInfo> known = new ConcurrentHashMap<>();
    private final Set<URI> refreshing = ConcurrentHashMap.newKeySet();

    @Inject
    public Fleet(StopoverConfig config, DaemonProbe probe)
    {
        this.daemons = config.getUris();
        this.batchSize = config.getBatchSize().toBytes();
        this.maxPageSize = config.getMaxPageSize().toBytes();
        this.probe = requireNonNull(probe, "probe is null");
    }

    /** Bytes of a batch that every daemon accepts. */
    public long batchSize()
    {
        return known.values().stream()
                .mapToLong(DaemonInfo::maxBatchSize)
                .reduce(batchSize, Math::min);
    }

    /** The newest version of source handles that every daemon reads; empty if none has answered. */
    public OptionalInt handleVersion()
    {
        return known.values().stream().mapToInt(DaemonInfo::newestHandle).min();
    }

    DaemonInfo ask(URI daemon)
            throws IOException
    {
        DaemonInfo info = probe.info(daemon);
        known.put(daemon, info);
        return info;
    }

    /** Asks those daemons again that were restarted, or upgraded, since they answered. */
    public void refreshRestarted()
    {
        for (URI daemon : daemons) {
            Optional<String> run = probe.run(daemon);
            Optional<String> asked = Optional.ofNullable(known.get(daemon)).map(DaemonInfo::run);
            if (run.isPresent() && !run.equals(asked) && refreshing.add(daemon)) {
                Thread.ofVirtual().name("stopover-fleet").start(() -> refresh(daemon));
            }
        }
    }

    /** Asks all daemons now; each request ends within the connect timeout. */
    public void refresh()
    {
        daemons.forEach(this::refresh);
    }

    private void refresh(URI daemon)
    {
        try {
            ask(daemon);
            warn(daemon);
            warnAboutDifferences();
        }
        catch (IOException e) {
            log.debug(e, "Cannot ask %s for its versions and limits", daemon);
        }
        finally {
            refreshing.remove(daemon);
        }
    }

    /** Warns about what will not work with a daemon. */
    void warn(URI daemon)
    {
        DaemonInfo info = known.get(daemon);
        if (!info.speaks(PROTOCOL)) {
            log.warn("Stopover daemon %s speaks protocol %s to %s, this plugin speaks %s: %s",
                    daemon, info.oldestProtocol(), info.newestProtocol(), PROTOCOL,
                    info.newestProtocol() < PROTOCOL
                            ? "upgrade the daemons first, then the plugin"
                            : "upgrade the plugin");
        }
        if (info.maxPageSize() < maxPageSize) {
            log.warn("Stopover daemon %s accepts pages of at most %s bytes (limits.max_page_size),"
                            + " but stopover.max-page-size is %s: a query with a larger page fails",
                    daemon, info.maxPageSize(), maxPageSize);
        }
        if (info.maxBatchSize() < batchSize) {
            log.warn("Stopover daemon %s accepts batches of at most %s bytes"
                            + " (limits.max_batch_size), less than stopover.batch-size (%s):"
                            + " this node sends smaller ones",
                    daemon, info.maxBatchSize(), batchSize);
        }
        if (info.maxPartitions() < TRINO_PARTITIONS) {
            log.warn("Stopover daemon %s accepts at most %s partitions (limits.max_partitions);"
                            + " Trino's exchanges may have up to %s",
                    daemon, info.maxPartitions(), TRINO_PARTITIONS);
        }
    }

    /** A fleet shares its base directories, and runs one version except during an upgrade. */
    void warnAboutDifferences()
    {
        List<URI> answered = daemons.stream().filter(known::containsKey).toList();
        for (URI other : answered) {
            URI first = answered.getFirst();
            DaemonInfo expected = known.get(first);
            DaemonInfo actual = known.get(other);
            if (!actual.baseDirectories().equals(expected.baseDirectories())) {
                log.warn("Stopover daemons differ in their base directories, so data written by one"
                                + " cannot be read through the other: %s has %s, %s has %s",
                        first, expected.baseDirectories(), other, actual.baseDirectories());
            }
            if (!actual.version().equals(expected.version())) {
                log.warn("Stopover daemons differ in their version: %s runs %s, %s runs %s",
                        first, expected.version(), other, actual.version());
            }
        }
    }
}
