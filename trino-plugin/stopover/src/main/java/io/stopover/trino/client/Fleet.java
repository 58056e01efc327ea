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
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.SequencedMap;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongSupplier;
import java.util.stream.Stream;

import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.SECONDS;

/**
 * The daemons, their descriptions of themselves, and the consequences for this node: it uses the
 * lowest limits and versions of all daemons, because any of them may serve a request, and an order
 * of preference. Names are resolved, and new and restarted daemons are queried, in the background.
 * A daemon that has not answered yet imposes no limit.
 */
public final class Fleet
{
    private static final Logger log = Logger.get(Fleet.class);
    /** The only protocol that this plugin speaks. */
    static final int PROTOCOL = 1;
    /** How often names are resolved, and daemons queried that have not answered yet. */
    static final long LOOKUP_INTERVAL_NANOS = SECONDS.toNanos(30);
    /** After how many of these intervals daemons that have answered are queried again. */
    static final int INTERVALS_UNTIL_QUERIED_AGAIN = 10;

    private final DaemonNames names;
    private final Daemons daemons;
    private final Preference preference;
    private final Optional<String> zone;
    private final long batchSize;
    private final FleetLog messages;
    private final DaemonProbe probe;
    private final LongSupplier nanoTime;
    private final AtomicLong lastLookup;
    private final AtomicInteger lookups = new AtomicInteger();
    private final Map<Daemon, DaemonInfo> known = new ConcurrentHashMap<>();
    /** Daemons that lack a base directory which others use: used last, and no homes. */
    private volatile Set<Daemon> incomplete = Set.of();
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
        this.messages = new FleetLog(config, nanoTime);
        this.nanoTime = nanoTime;
        this.lastLookup = new AtomicLong(nanoTime.getAsLong());
        arrange();
    }

    /**
     * Puts the daemons into the order of preference, those last that lack a base directory. One
     * that is reached at several addresses counts once.
     */
    private synchronized void arrange()
    {
        List<Daemon> all = names.daemons();
        known.keySet().retainAll(all);
        Set<String> runs = new HashSet<>();
        List<Daemon> order = preference.order(all).stream()
                .filter(daemon -> info(daemon).map(info -> runs.add(info.run())).orElse(true))
                .toList();
        incomplete = BaseDirectories.incomplete(answered(order));
        daemons.update(order.stream()
                .sorted(Comparator.comparing(incomplete::contains))
                .toList());
    }

    /** The descriptions of the daemons that have answered, in order of preference. */
    private SequencedMap<Daemon, DaemonInfo> answered()
    {
        return answered(daemons.all());
    }

    private SequencedMap<Daemon, DaemonInfo> answered(List<Daemon> order)
    {
        SequencedMap<Daemon, DaemonInfo> answered = new LinkedHashMap<>();
        order.forEach(daemon -> info(daemon).ifPresent(info -> answered.put(daemon, info)));
        return answered;
    }

    /** Whether what others have stored may be out of reach of this daemon. */
    boolean lacksBaseDirectory(Daemon daemon)
    {
        return incomplete.contains(daemon);
    }

    Optional<DaemonInfo> info(Daemon daemon)
    {
        return Optional.ofNullable(known.get(daemon));
    }

    /** The run that answers at a daemon; empty if that is not known. */
    Optional<String> run(Daemon daemon)
    {
        return probe.run(daemon).or(() -> info(daemon).map(DaemonInfo::run));
    }

    private Optional<String> zoneOf(Daemon daemon)
    {
        return info(daemon).flatMap(DaemonInfo::zone);
    }

    /** Whether both zones are known and differ: then traffic between them is usually charged. */
    public boolean isOtherZone(Daemon daemon)
    {
        return zone.isPresent() && zoneOf(daemon).isPresent() && !zone.equals(zoneOf(daemon));
    }

    /** The daemon of this node's configuration to which a home refers. */
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

    /** Resolves the names of daemons now; ends within the connect timeout for each name. */
    void lookUp()
    {
        lastLookup.set(nanoTime.getAsLong());
        names.lookUp();
        arrange();
    }

    /**
     * Queries those daemons again that were restarted, or upgraded, since they answered. From time
     * to time it also resolves names, and queries daemons that have not answered yet or whose base
     * directories may have changed. Runs in the background, and only while this node uses daemons.
     */
    public void keepCurrent()
    {
        long now = nanoTime.getAsLong();
        long last = lastLookup.get();
        boolean due = now - last >= LOOKUP_INTERVAL_NANOS && lastLookup.compareAndSet(last, now);
        if (due) {
            Thread.ofVirtual().name("stopover-fleet").start(() -> {
                lookUp();
                boolean all = lookups.incrementAndGet() % INTERVALS_UNTIL_QUERIED_AGAIN == 0;
                names.daemons().stream()
                        .filter(daemon -> all || isWorthAsking(daemon))
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

    private boolean isWorthAsking(Daemon daemon)
    {
        return lacksBaseDirectory(daemon)
                || info(daemon).map(DaemonInfo::isProvisional).orElse(true);
    }

    private void startRefresh(Daemon daemon)
    {
        if (refreshing.add(daemon)) {
            Thread.ofVirtual().name("stopover-fleet").start(() -> refresh(daemon));
        }
    }

    /** Queries all daemons now; each request ends within the connect timeout. */
    public void refresh()
    {
        daemons.all().forEach(this::refresh);
    }

    private void refresh(Daemon daemon)
    {
        try {
            Optional<String> before = info(daemon).map(DaemonInfo::run);
            DaemonInfo info = ask(daemon);
            if (!before.equals(Optional.of(info.run()))) {
                warn(daemon, info);
            }
            warnAboutDifferences();
        }
        catch (IOException e) {
            log.debug(e, "Cannot query the versions and limits of %s", daemon);
        }
        finally {
            refreshing.remove(daemon);
        }
    }

    void warn(Daemon daemon, DaemonInfo info)
    {
        messages.warn(daemon, info);
    }

    void warnAboutDifferences()
    {
        messages.warnAboutDifferences(answered());
    }

    void logDisabledFeatures()
    {
        FleetLog.logDisabledFeatures(daemons.all());
    }
}
