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
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongSupplier;
import java.util.stream.Stream;

import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.SECONDS;

/**
 * Which daemons there are, what they say of themselves, and what follows for this node: it plans
 * with the lowest limits and versions of all daemons, because any of them may serve a request, and
 * asks them in its order of preference. Names are looked up, new daemons asked and restarted ones
 * asked again in the background. A daemon that has not answered yet limits nothing.
 */
public final class Fleet
{
    private static final Logger log = Logger.get(Fleet.class);
    /** The only protocol that this plugin speaks. */
    static final int PROTOCOL = 1;
    /** How often names are looked up, and daemons asked that have not answered yet. */
    static final long LOOKUP_INTERVAL_NANOS = SECONDS.toNanos(30);
    /** Most output partitions of an exchange in Trino. */
    private static final int TRINO_PARTITIONS = 1000;

    private final DaemonNames names;
    private final Daemons daemons;
    private final Preference preference;
    private final Optional<String> zone;
    private final long batchSize;
    private final long maxPageSize;
    private final DaemonProbe probe;
    private final LongSupplier nanoTime;
    private final AtomicLong lastLookup;
    private final Map<Daemon, DaemonInfo> known = new ConcurrentHashMap<>();
    private final Set<Daemon> refreshing = ConcurrentHashMap.newKeySet();

    @Inject
    public Fleet(StopoverConfig config, DaemonProbe probe, Daemons daemons)
    {
        this(config, probe, daemons, NodeName.id(), System::nanoTime);
    }

    Fleet(
            StopoverConfig config,
            DaemonProbe probe,
            Daemons daemons,
            String node,
            LongSupplier nanoTime)
    {
        this.probe = requireNonNull(probe, "probe is null");
        this.daemons = requireNonNull(daemons, "daemons is null");
        this.names = new DaemonNames(config.getUris(), probe::resolve);
        this.zone = config.getZone();
        this.preference = new Preference(
                node,
                names::isOwnMachine,
                daemon -> zone.isPresent() && zone.equals(zoneOf(daemon)));
        this.batchSize = config.getBatchSize().toBytes();
        this.maxPageSize = config.getMaxPageSize().toBytes();
        this.nanoTime = nanoTime;
        this.lastLookup = new AtomicLong(nanoTime.getAsLong());
        arrange();
    }

    /**
     * Puts the daemons into the order of preference. One that is reached at several addresses
     * counts once.
     */
    private synchronized void arrange()
    {
        List<Daemon> all = names.daemons();
        known.keySet().retainAll(all);
        Set<String> runs = new HashSet<>();
        daemons.update(preference.order(all).stream()
                .filter(daemon -> info(daemon).map(info -> runs.add(info.run())).orElse(true))
                .toList());
    }

    Optional<DaemonInfo> info(Daemon daemon)
    {
        return Optional.ofNullable(known.get(daemon));
    }

    private Optional<String> zoneOf(Daemon daemon)
    {
        return info(daemon).flatMap(DaemonInfo::zone);
    }

    /** Whether both zones are known and differ: then bytes between them usually cost money. */
    public boolean isOtherZone(Daemon daemon)
    {
        return zone.isPresent() && zoneOf(daemon).isPresent() && !zone.equals(zoneOf(daemon));
    }

    /** The daemon of this node's configuration that another node means. */
    Optional<Daemon> find(Home home)
    {
        String run = known.entrySet().stream()
                .filter(entry -> isAt(home.uri(), entry.getKey(), entry.getValue()))
                .map(entry -> entry.getValue().run())
                .findFirst()
                .orElse(home.run());
        List<Daemon> all = daemons.all();
        return Stream.of(home.run(), run)
                .flatMap(wanted -> all.stream().filter(daemon ->
                        info(daemon).map(info -> info.run().equals(wanted)).orElse(false)))
                .findFirst();
    }

    private static boolean isAt(URI uri, Daemon daemon, DaemonInfo info)
    {
        return uri.equals(DaemonNames.addressOf(daemon)) || info.advertise().contains(uri);
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

    DaemonInfo ask(Daemon daemon)
            throws IOException
    {
        DaemonInfo info = probe.info(daemon);
        known.put(daemon, info);
        arrange();
        return info;
    }

    /** Looks up the names of daemons now; ends within the connect timeout for each name. */
    void lookUp()
    {
        lastLookup.set(nanoTime.getAsLong());
        names.lookUp();
        arrange();
    }

    /**
     * Asks those daemons again that were restarted, or upgraded, since they answered; and from time
     * to time, looks up names and asks daemons that have not answered yet. In the background, and
     * only while this node uses daemons.
     */
    public void keepCurrent()
    {
        long now = nanoTime.getAsLong();
        long last = lastLookup.get();
        boolean due = now - last >= LOOKUP_INTERVAL_NANOS && lastLookup.compareAndSet(last, now);
        if (due) {
            Thread.ofVirtual().name("stopover-fleet").start(() -> {
                lookUp();
                names.daemons().stream()
                        .filter(daemon -> info(daemon).isEmpty())
                        .forEach(this::startRefresh);
            });
        }
        for (Daemon daemon : daemons.all()) {
            Optional<String> run = probe.run(daemon);
            if (run.isPresent() && !run.equals(info(daemon).map(DaemonInfo::run))) {
                startRefresh(daemon);
            }
        }
    }

    private void startRefresh(Daemon daemon)
    {
        if (refreshing.add(daemon)) {
            Thread.ofVirtual().name("stopover-fleet").start(() -> refresh(daemon));
        }
    }

    /** Asks all daemons now; each request ends within the connect timeout. */
    public void refresh()
    {
        daemons.all().forEach(this::refresh);
    }

    private void refresh(Daemon daemon)
    {
        try {
            warn(daemon, ask(daemon));
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
    void warn(Daemon daemon, DaemonInfo info)
    {
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
        List<Daemon> answered = daemons.all().stream().filter(known::containsKey).toList();
        if (answered.isEmpty()) {
            return;
        }
        Daemon first = answered.getFirst();
        DaemonInfo expected = known.get(first);
        for (Daemon other : answered) {
            DaemonInfo actual = known.get(other);
            if (expected == null || actual == null) {
                // its name no longer has this address
                continue;
            }
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

    /** Says at start what the configuration of this node forgoes. */
    void logWhatIsForgone()
    {
        List<Daemon> all = daemons.all();
        if (all.size() == 1) {
            log.info("stopover.uris names one Stopover daemon, %s: while it is unavailable, tasks"
                    + " of this node fail, and small outputs of several nodes are not gathered."
                    + " Name other daemons after it to have both", all.getFirst());
        }
    }
}
