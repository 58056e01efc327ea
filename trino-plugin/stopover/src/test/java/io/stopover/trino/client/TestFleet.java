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
import java.net.UnknownHostException;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

import static org.assertj.core.api.Assertions.assertThat;

/** The daemons of a node, and their descriptions. */
@Timeout(60)
class TestFleet
{
    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final FakeDaemon first = new FakeDaemon(store);
    private final FakeDaemon second = new FakeDaemon(store, loopback(2), first.port());
    private final FakeDaemon third = new FakeDaemon(store, loopback(3), first.port());
    private final URI pool = URI.create("http://pool.test:" + first.port());
    private final TestingClock clock = new TestingClock();
    private volatile InetAddress[] addresses = {loopback(2), loopback(1)};
    private HttpTransport transport;
    private Daemons daemons;

    private static InetAddress loopback(int last)
    {
        try {
            return InetAddress.getByAddress(new byte[] {127, 0, 0, (byte) last});
        }
        catch (UnknownHostException e) {
            throw new AssertionError(e);
        }
    }

    private InetAddress[] resolve(String host)
            throws UnknownHostException
    {
        if (host.equals("127.0.0.1")) {
            return new InetAddress[] {loopback(1)};
        }
        if (!host.equals("pool.test") || addresses.length == 0) {
            throw new UnknownHostException(host);
        }
        return addresses;
    }

    private Fleet fleet(StopoverConfig config)
    {
        return fleet(config, "node-1");
    }

    private Fleet fleet(StopoverConfig config, String node)
    {
        transport = new HttpTransport(
                config, new StopoverTlsConfig(), new Token(config), this::resolve);
        daemons = new Daemons(config);
        return new Fleet(config, new DaemonProbe(transport, config), daemons, node, clock);
    }

    private Fleet fleet(String uris)
    {
        return fleet(new StopoverConfig().setUris(uris));
    }

    @AfterEach
    void close()
    {
        transport.close();
        first.close();
        second.close();
        third.close();
    }

    private Daemon inPool(int last)
    {
        return new Daemon(pool, Optional.of(loopback(last)));
    }

    private void awaitDaemons(Fleet fleet, Daemon... expected)
            throws InterruptedException
    {
        while (!Set.of(expected).equals(Set.copyOf(daemons.all()))) {
            fleet.keepCurrent();
            Thread.sleep(5);
        }
    }

    /** A name with several addresses was one daemon: where sinks went depended on connections. */
    @Test
    void testNameWithSeveralAddressesIsSeveralDaemonsThatAreLookedUpAgain()
            throws Exception
    {
        Fleet fleet = fleet(pool.toString());
        assertThat(daemons.all()).containsExactly(Daemon.of(pool));
        fleet.lookUp();
        assertThat(daemons.all()).containsExactlyInAnyOrder(inPool(1), inPool(2));

        daemons.failed(inPool(1), FailureKind.REFUSED, daemons.now());
        addresses = new InetAddress[] {loopback(1), loopback(3)};
        fleet.keepCurrent();
        assertThat(daemons.all()).as("not with every request")
                .containsExactlyInAnyOrder(inPool(1), inPool(2));
        clock.advance(Fleet.LOOKUP_INTERVAL_NANOS);
        awaitDaemons(fleet, inPool(1), inPool(3));
        assertThat(daemons.isInRotation(inPool(1))).as("the cooldown continues").isFalse();
        assertThat(daemons.isInRotation(inPool(3))).isTrue();
        assertThat(daemons.failed(inPool(2), FailureKind.REFUSED, daemons.now()))
                .as("a daemon that is no longer in the pool").isFalse();

        addresses = new InetAddress[] {};
        clock.advance(Fleet.LOOKUP_INTERVAL_NANOS);
        fleet.lookUp();
        assertThat(daemons.all()).as("DNS fails").hasSize(2);
    }

    /** Daemons on loopback addresses are all on the own machine, and used as configured. */
    @Test
    void testNodesOfANameSpreadOverItsAddresses()
            throws Exception
    {
        addresses = new InetAddress[] {address(1), address(2), address(3), address(4)};
        Map<InetAddress, Integer> nodes = new HashMap<>();
        for (int node = 0; node < 30; node++) {
            Fleet fleet = fleet(new StopoverConfig().setUris(pool.toString()), "node-" + node);
            fleet.lookUp();
            assertThat(daemons.all()).hasSize(4);
            nodes.merge(daemons.preferred().address().orElseThrow(), 1, Integer::sum);
            transport.close();
        }
        assertThat(nodes).containsOnlyKeys(addresses);
        assertThat(nodes.values()).allSatisfy(count -> assertThat(count).isLessThan(16));
    }

    private static InetAddress address(int last)
            throws UnknownHostException
    {
        return InetAddress.getByAddress(new byte[] {10, 0, 0, (byte) last});
    }

    /** The constructor that the plugin uses. */
    @Test
    void testNodeIdOfTrinoDecidesThePreference()
            throws Exception
    {
        addresses = new InetAddress[] {address(1), address(2), address(3), address(4)};
        Set<Daemon> preferred = new HashSet<>();
        String before = System.getProperty("node.id");
        StopoverConfig config = new StopoverConfig().setUris(pool.toString());
        transport = new HttpTransport(
                config, new StopoverTlsConfig(), new Token(config), this::resolve);
        try {
            for (int node = 0; node < 30; node++) {
                System.setProperty("node.id", "node-" + node);
                daemons = new Daemons(config);
                new Fleet(config, new DaemonProbe(transport, config), daemons).lookUp();
                preferred.add(daemons.preferred());
            }
        }
        finally {
            if (before == null) {
                System.clearProperty("node.id");
            }
            else {
                System.setProperty("node.id", before);
            }
        }
        assertThat(preferred).hasSize(4);
    }

    @Test
    void testDaemonsOfANameAreReachedAtTheirAddressesByTheConfiguredName()
            throws Exception
    {
        Fleet fleet = fleet(pool.toString());
        fleet.lookUp();
        for (Daemon daemon : daemons.all()) {
            fleet.ask(daemon);
        }
        for (FakeDaemon daemon : List.of(first, second)) {
            assertThat(daemon.probes).containsExactly("GET /v1/daemon");
            assertThat(daemon.hosts).containsExactly("pool.test:" + first.port());
        }
    }

    @Test
    void testDaemonWithTwoAddressesCountsOnce()
            throws Exception
    {
        Fleet fleet = fleet(first.uri() + "," + pool);
        fleet.lookUp();
        assertThat(daemons.all()).hasSize(3);
        for (Daemon daemon : daemons.all()) {
            fleet.ask(daemon);
        }
        assertThat(daemons.all()).containsExactly(Daemon.of(first.uri()), inPool(2));
    }

    @Test
    void testNameWithAddressesOfBothFamiliesIsOneDaemon()
            throws Exception
    {
        Fleet fleet = fleet(pool.toString());
        addresses = new InetAddress[] {loopback(1), InetAddress.getByName("::1")};
        fleet.lookUp();
        assertThat(daemons.all()).containsExactly(Daemon.of(pool));
    }

    @Test
    void testDaemonOfAnotherZoneIsKnown()
            throws IOException
    {
        second.setZone("zone-2");
        third.setZone("zone-1");
        Fleet fleet = fleet(new StopoverConfig().setUris(pool.toString()).setZone("zone-1"));
        addresses = new InetAddress[] {loopback(1), loopback(2), loopback(3)};
        fleet.lookUp();
        assertThat(fleet.isOtherZone(inPool(2))).as("not queried yet").isFalse();
        for (Daemon daemon : daemons.all()) {
            fleet.ask(daemon);
        }
        assertThat(fleet.isOtherZone(inPool(1))).as("it has no zone").isFalse();
        assertThat(fleet.isOtherZone(inPool(2))).isTrue();
        assertThat(fleet.isOtherZone(inPool(3))).isFalse();
    }
}
