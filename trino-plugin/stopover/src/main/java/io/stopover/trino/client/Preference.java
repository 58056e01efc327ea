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

import java.util.Comparator;
import java.util.List;
import java.util.function.Predicate;

/**
 * The order in which one node tries daemons. Pure. Those on its own machine come first, in the
 * order of the configuration; then those of its zone; then the others. Nodes spread over the
 * daemons of a zone, and over the others: each node has its own, stable order.
 */
final class Preference
{
    private final String node;
    private final Predicate<Daemon> ownMachine;
    private final Predicate<Daemon> ownZone;

    /** @param node distinguishes nodes */
    Preference(String node, Predicate<Daemon> ownMachine, Predicate<Daemon> ownZone)
    {
        this.node = node;
        this.ownMachine = ownMachine;
        this.ownZone = ownZone;
    }

    /** @param rank 0 for the own machine, 1 for the own zone, 2 for the others */
    private record Ranked(Daemon daemon, int rank, long score) {}

    private Ranked ranked(Daemon daemon)
    {
        if (ownMachine.test(daemon)) {
            return new Ranked(daemon, 0, 0);
        }
        return new Ranked(
                daemon,
                ownZone.test(daemon) ? 1 : 2,
                Rendezvous.score(node, daemon.toString()));
    }

    /** @param daemons in the configured order */
    List<Daemon> order(List<Daemon> daemons)
    {
        return daemons.stream()
                .map(this::ranked)
                .sorted(Comparator.comparingInt(Ranked::rank)
                        .thenComparing(Comparator.comparingLong(Ranked::score).reversed()))
                .map(Ranked::daemon)
                .toList();
    }
}
