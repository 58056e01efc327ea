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

import io.stopover.trino.FakeDaemon;
import io.stopover.trino.StopoverConfig;
import io.stopover.trino.StopoverTlsConfig;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.io.IOException;
import java.net.InetAddress;
import java.net.URI;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.stream.IntStream;

import static java.util.stream.Collectors.joining;
import static org.assertj.core.api.Assertions.assertThat;

/** Which home a task gets from the coordinator, and how a worker uses it. */
@Timeout(60)
class TestHomes
{
    private static final int DAEMONS = 8;

    /** The state of one node. */
    private record Node(HttpTransport transport, Daemons daemons, Fleet fleet, Homes homes)
    {
        static Node of(StopoverConfig config)
                throws IOException
        {
            HttpTransport transport = new HttpTransport(
                    config,
                    new StopoverTlsConfig(),
                    new Token(config),
                    _ -> new InetAddress[] {InetAddress.getLoopbackAddress()});
            Daemons daemons = new Daemons(config);
            Fleet fleet = new Fleet(config, new DaemonProbe(transport, config), daemons);
            Node node = new Node(transport, daemons, fleet, new Homes(config, daemons, fleet));
            node.ask();
            return node;
        }

        void ask()
                throws IOException
        {
            for (Daemon daemon : daemons.all()) {
                fleet.ask(daemon);
            }
        }
    }

    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final List<FakeDaemon> fakes =
            IntStream.range(0, DAEMONS).mapToObj(_ -> new FakeDaemon(store)).toList();
    private final List<Node> nodes = new ArrayList<>();

    private Node node(StopoverConfig config)
            throws IOException
    {
        Node node = Node.of(config);
        nodes.add(node);
        return node;
    }

    private Node node(String uris)
            throws IOException
    {
        return node(new StopoverConfig().setUris(uris));
    }

    private Node nodeOfAll()
            throws IOException
    {
        return node(uris());
    }

    private String uris()
    {
        return fakes.stream().map(fake -> fake.uri().toString()).collect(joining(","));
    }

    @AfterEach
    void close()
    {
        nodes.forEach(node -> node.transport().close());
        fakes.forEach(FakeDaemon::close);
    }

    /** A name of a daemon that is not its loopback address. */
    private String named(int daemon)
    {
        return "http://daemon-%s.test:%s".formatted(daemon, fakes.get(daemon).port());
    }

    @Test
    void testThousandConcurrentExchangesSpreadEvenly()
            throws Exception
    {
        Node coordinator = nodeOfAll();
        Map<URI, Integer> exchanges = new HashMap<>();
        for (int i = 0; i < 1000; i++) {
            String exchange = "20261123_000000_00000_abcde-"
                    + UUID.nameUUIDFromBytes(new byte[] {(byte) i, (byte) (i >> 8)});
            List<Home> homes = coordinator.homes().choose(exchange, 0);
            assertThat(homes).hasSize(1);
            exchanges.merge(homes.getFirst().uri(), 1, Integer::sum);
        }
        assertThat(exchanges).hasSize(DAEMONS);
        assertThat(exchanges.values()).allSatisfy(count -> assertThat(count).isBetween(75, 175));
    }

    @Test
    void testExchangeOfManyTasksHasManyHomesAndABlockOfTasksHasOne()
            throws Exception
    {
        Node coordinator = nodeOfAll();
        Map<Integer, Set<Home>> blocks = new HashMap<>();
        for (int task = 0; task < 10_000; task++) {
            blocks.computeIfAbsent(task / Homes.BLOCK, _ -> new HashSet<>())
                    .addAll(coordinator.homes().choose("exchange", task));
        }
        assertThat(blocks).hasSize(40);
        assertThat(blocks.values()).allSatisfy(homes -> assertThat(homes).hasSize(1));
        // 40 blocks miss one of 8 daemons in one run of 26, as the ports decide.
        assertThat(blocks.values().stream().flatMap(Set::stream).distinct())
                .hasSizeGreaterThan(DAEMONS / 2);
    }

    @Test
    void testDaemonOutOfRotationIsNoHome()
            throws Exception
    {
        Node coordinator = nodeOfAll();
        Home home = coordinator.homes().choose("exchange", 0).getFirst();
        Daemon daemon = Daemon.of(home.uri());
        coordinator.daemons().failed(
                daemon, FailureKind.DRAINING, coordinator.daemons().now());
        assertThat(coordinator.homes().choose("exchange", 0)).doesNotContain(home).hasSize(1);
    }

    @Test
    void testOneDaemonOrThePropertyMeansNoHomes()
            throws Exception
    {
        assertThat(node(fakes.getFirst().uri().toString()).homes().choose("exchange", 0)).isEmpty();
        Node disabled = node(new StopoverConfig()
                .setUris(named(0) + "," + named(1))
                .setHomesEnabled(false));
        assertThat(disabled.homes().choose("exchange", 0)).isEmpty();
        Home known = node(named(0) + "," + named(1)).homes().choose("exchange", 0).getFirst();
        assertThat(disabled.homes().find(List.of(known))).isEmpty();
    }

    /** It is another daemon on every node. */
    @Test
    void testLoopbackAddressIsNotHandedToOtherNodes()
            throws Exception
    {
        Node coordinator = node(fakes.get(0).uri() + "," + named(1));
        for (int block = 0; block < 20; block++) {
            assertThat(coordinator.homes().choose("exchange", block * Homes.BLOCK))
                    .extracting(Home::uri)
                    .containsExactly(URI.create(named(1)));
        }
        assertThat(coordinator.homes().describe(Daemon.of(fakes.get(0).uri()))).isEmpty();

        fakes.get(0).setAdvertise("http://127.0.0.1:1", "http://10.0.0.12:7077");
        coordinator.ask();
        Set<URI> chosen = new HashSet<>();
        for (int block = 0; block < 20; block++) {
            coordinator.homes().choose("exchange", block * Homes.BLOCK)
                    .forEach(home -> chosen.add(home.uri()));
        }
        assertThat(chosen).containsExactlyInAnyOrder(
                URI.create("http://10.0.0.12:7077"), URI.create(named(1)));
    }

    @Test
    void testNodeKnowsADaemonByAnotherAddressAndAfterItsRestart()
            throws Exception
    {
        fakes.get(1).setAdvertise("http://10.0.0.12:7077");
        Node worker = node(fakes.get(0).uri() + "," + fakes.get(1).uri());
        Daemon second = Daemon.of(fakes.get(1).uri());
        Home byRun = new Home(
                worker.fleet().info(second).orElseThrow().run(), URI.create("http://other:1"));
        assertThat(worker.homes().find(List.of(byRun))).contains(second);
        Home byUri = new Home("another-run", URI.create("http://10.0.0.12:7077"));
        assertThat(worker.homes().find(List.of(byUri))).contains(second);
    }

    /** Pages and tokens never go to an address that only a handle names. */
    @Test
    void testDaemonThatTheConfigurationDoesNotNameIsNotUsed()
            throws Exception
    {
        Node worker = node(fakes.get(0).uri() + "," + fakes.get(1).uri());
        Home unknown = node(named(2) + "," + named(3)).homes().choose("exchange", 0).getFirst();
        assertThat(worker.homes().find(List.of(unknown))).isEmpty();
    }

    @Test
    void testHomeThatIsPreferredOrOutOfRotationIsNoReasonToLeaveTheUsualWay()
            throws Exception
    {
        Node worker = node(fakes.get(0).uri() + "," + fakes.get(1).uri());
        Home first = new Home("run", fakes.get(0).uri());
        Home second = new Home("run", fakes.get(1).uri());
        assertThat(worker.homes().find(List.of(first))).isEmpty();
        assertThat(worker.homes().find(List.of(second))).contains(Daemon.of(second.uri()));
        worker.daemons().failed(
                Daemon.of(second.uri()), FailureKind.TIMED_OUT, worker.daemons().now());
        assertThat(worker.homes().find(List.of(second))).isEmpty();
    }

    @Test
    void testEachZoneHasAHomeAndAWorkerUsesThatOfItsOwn()
            throws Exception
    {
        setZones();
        Node coordinator = nodeOfAll();
        // its preferred daemon, the first one, is in the other zone
        Node worker = node(new StopoverConfig().setUris(uris()).setZone("zone-1"));
        Set<String> firstZones = new HashSet<>();
        for (int i = 0; i < 50; i++) {
            List<Home> homes = coordinator.homes().choose("exchange-" + i, 0);
            assertThat(homes).extracting(home -> zone(worker, Daemon.of(home.uri())))
                    .containsExactlyInAnyOrder("zone-0", "zone-1");
            firstZones.add(zone(worker, Daemon.of(homes.getFirst().uri())));
            Daemon found = worker.homes().find(homes).orElseThrow();
            assertThat(zone(worker, found)).isEqualTo("zone-1");
        }
        assertThat(firstZones).as("the zone of the best home").hasSize(2);
    }

    @Test
    void testWorkerReadsFromTheMemoryOfDaemonsOfItsZoneOnly()
            throws Exception
    {
        setZones();
        Node coordinator = nodeOfAll();
        Node worker = node(new StopoverConfig().setUris(uris()).setZone("zone-1"));
        for (Daemon daemon : coordinator.daemons().all()) {
            Home holder = coordinator.homes().describe(daemon).orElseThrow();
            assertThat(worker.homes().find(List.of(holder))).isEqualTo(
                    zone(worker, daemon).equals("zone-1")
                            ? Optional.of(daemon)
                            : Optional.empty());
        }
    }

    private void setZones()
    {
        for (int i = 0; i < DAEMONS; i++) {
            fakes.get(i).setZone("zone-" + i % 2);
        }
    }

    private static String zone(Node node, Daemon daemon)
    {
        return node.fleet().info(daemon).flatMap(DaemonInfo::zone).orElseThrow();
    }
}
