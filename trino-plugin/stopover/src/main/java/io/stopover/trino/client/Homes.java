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
import io.stopover.trino.StopoverConfig;

import java.net.URI;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

import static java.util.Objects.requireNonNull;

/**
 * The daemons at which the small sinks of an exchange are gathered. The coordinator chooses the
 * homes of each block of tasks and writes them into the sinks' handles; a worker finds the one that
 * it can use. A sink can always be written to another daemon instead.
 */
public final class Homes
{
    /**
     * Tasks that share a home: few enough that a large exchange has many homes, and enough to fill
     * segments with small sinks.
     */
    static final int BLOCK = 256;

    private record Candidate(Home home, Optional<String> zone) {}

    private final boolean enabled;
    private final Daemons daemons;
    private final Fleet fleet;

    @Inject
    public Homes(StopoverConfig config, Daemons daemons, Fleet fleet)
    {
        this.enabled = config.isHomesEnabled();
        this.daemons = requireNonNull(daemons, "daemons is null");
        this.fleet = requireNonNull(fleet, "fleet is null");
    }

    /** The block of a task: the tasks of a block have the same homes. */
    public static int block(int task)
    {
        return task / BLOCK;
    }

    /**
     * The homes of a task, the best first: one in each zone that has daemons, as a worker uses no
     * home in another zone. Empty if this node has no daemon that other nodes can reach.
     */
    public List<Home> choose(String exchange, int task)
    {
        List<Daemon> all = daemons.all();
        if (!enabled || all.size() < 2) {
            return List.of();
        }
        boolean oneMachine = all.stream().allMatch(daemon -> DaemonNames.isLoopback(daemon.uri()));
        String subject = exchange + "/" + block(task);
        Comparator<Candidate> byScore = Comparator.comparingLong(
                candidate -> Rendezvous.score(subject, candidate.home().uri().toString()));
        Map<Optional<String>, Candidate> best = new HashMap<>();
        for (Daemon daemon : all) {
            if (daemons.isInRotation(daemon)) {
                candidate(daemon, oneMachine).ifPresent(candidate -> best.merge(
                        candidate.zone(),
                        candidate,
                        (one, other) -> byScore.compare(one, other) >= 0 ? one : other));
            }
        }
        return best.values().stream()
                .sorted(byScore.reversed())
                .map(Candidate::home)
                .toList();
    }

    private Optional<Candidate> candidate(Daemon daemon, boolean oneMachine)
    {
        return fleet.info(daemon)
                .filter(info -> info.speaks(Fleet.PROTOCOL) && !fleet.lacksBaseDirectory(daemon))
                .flatMap(info -> address(daemon, info, oneMachine)
                        .map(uri -> new Candidate(new Home(info.run(), uri), info.zone())));
    }

    /**
     * An address by which other nodes may refer to the daemon. A loopback address means a different
     * daemon on each of them, unless all run on this machine.
     */
    private static Optional<URI> address(Daemon daemon, DaemonInfo info, boolean oneMachine)
    {
        Optional<URI> advertised = info.advertise().stream()
                .filter(uri -> !DaemonNames.isLoopback(uri))
                .findFirst();
        if (advertised.isPresent() || oneMachine || !DaemonNames.isLoopback(daemon.uri())) {
            return Optional.of(advertised.orElseGet(() -> DaemonNames.addressOf(daemon)));
        }
        return Optional.empty();
    }

    /** A reference to a daemon for other nodes; empty if they cannot reach it. */
    public Optional<Home> describe(Daemon daemon)
    {
        boolean oneMachine = daemons.all().stream()
                .allMatch(other -> DaemonNames.isLoopback(other.uri()));
        return candidate(daemon, oneMachine).map(Candidate::home);
    }

    /**
     * The first of these daemons that this node may use instead of its preferred one: it is
     * configured here, in rotation, and not in another zone. Empty also if that is the preferred
     * one.
     */
    public Optional<Daemon> find(List<Home> homes)
    {
        if (!enabled) {
            return Optional.empty();
        }
        Daemon preferred = daemons.preferred();
        return homes.stream()
                .flatMap(home -> fleet.find(home).stream())
                .filter(daemon -> !fleet.isOtherZone(daemon)
                        && !fleet.lacksBaseDirectory(daemon)
                        && daemons.isInRotation(daemon))
                .findFirst()
                .filter(daemon -> !daemon.equals(preferred));
    }
}
