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

import org.junit.jupiter.api.Test;

import java.net.URI;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;
import java.util.stream.Stream;

import static org.assertj.core.api.Assertions.assertThat;

class TestPreference
{
    private static final List<Daemon> POOL = daemons(3);

    private static List<Daemon> daemons(int count)
    {
        return IntStream.range(0, count)
                .mapToObj(i -> Daemon.of(URI.create("http://stopover-%s:7077".formatted(i))))
                .toList();
    }

    private static Preference preference(String node, Set<Daemon> machine, Set<Daemon> zone)
    {
        return new Preference(node, machine::contains, zone::contains);
    }

    private static Daemon preferred(int node, List<Daemon> daemons)
    {
        return preference("node-" + node, Set.of(), Set.of()).order(daemons).getFirst();
    }

    /** All nodes with the same three daemons used the first: 330, 0 and 0 of 330 requests. */
    @Test
    void testNodesThatNameTheSameDaemonsSpreadOverThem()
    {
        Map<Daemon, Integer> nodes = new HashMap<>();
        for (int node = 0; node < 330; node++) {
            nodes.merge(preferred(node, POOL), 1, Integer::sum);
        }
        assertThat(nodes).hasSize(3);
        assertThat(nodes.values()).allSatisfy(count -> assertThat(count).isBetween(65, 155));
    }

    @Test
    void testNodesOfADaemonThatIsGoneSpreadOverTheOthers()
    {
        Map<Daemon, Integer> second = new HashMap<>();
        for (int node = 0; node < 990; node++) {
            List<Daemon> order = preference("node-" + node, Set.of(), Set.of()).order(POOL);
            if (order.getFirst().equals(POOL.getFirst())) {
                second.merge(order.get(1), 1, Integer::sum);
            }
        }
        assertThat(second.values()).hasSize(2)
                .allSatisfy(count -> assertThat(count).isBetween(110, 220));
    }

    @Test
    void testDaemonThatIsAddedMovesOnlyTheNodesThatItGains()
    {
        List<Daemon> larger = daemons(4);
        for (int node = 0; node < 100; node++) {
            Daemon now = preferred(node, larger);
            assertThat(now).isIn(larger.get(3), preferred(node, POOL));
        }
    }

    @Test
    void testOwnMachineThenOwnZoneThenOthers()
    {
        List<Daemon> six = daemons(6);
        Set<Daemon> machine = new HashSet<>(six.subList(4, 6));
        Set<Daemon> zone = new HashSet<>(six.subList(2, 5));
        for (int node = 0; node < 20; node++) {
            List<Daemon> order = preference("node-" + node, machine, zone).order(six);
            assertThat(order.subList(0, 2)).as("as configured").isEqualTo(six.subList(4, 6));
            assertThat(order.subList(2, 4)).containsExactlyInAnyOrder(six.get(2), six.get(3));
            assertThat(order.subList(4, 6)).containsExactlyInAnyOrder(six.get(0), six.get(1));
        }
        long firstOthers = Stream.iterate(0, i -> i < 20, i -> i + 1)
                .map(node -> preference("node-" + node, machine, zone).order(six).get(4))
                .distinct()
                .count();
        assertThat(firstOthers).isEqualTo(2);
    }
}
