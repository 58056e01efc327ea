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
package io.stopover.trino;

import io.stopover.trino.testing.FaultyProxy;
import io.stopover.trino.testing.FaultyProxy.Fault;
import io.stopover.trino.testing.Leftovers;
import io.stopover.trino.testing.TestingStopover;
import io.trino.testing.AbstractTestFaultTolerantExecutionJoinQueries;
import io.trino.testing.QueryRunner;
import org.junit.jupiter.api.Tag;

import java.io.IOException;
import java.net.ServerSocket;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;

import static io.stopover.trino.testing.TestingStopover.Storage.LOCAL;
import static java.util.stream.Collectors.toUnmodifiableSet;
import static org.assertj.core.api.Assertions.assertThat;

/**
 * Trino's fault-tolerant join suite with a faulty network between the plugin and two real daemons:
 * every kind of fault at random, refused connections now and then, and two URIs that never work. No
 * query may fail or give a wrong result, and nothing may be left.
 */
@Tag("faults")
class TestStopoverJoinQueriesWithFaults
        extends AbstractTestFaultTolerantExecutionJoinQueries
{
    private static final double RATE = 0.03;
    private static final long SEED = Long.getLong("stopover.test.fault-seed", 1);
    private static final long SILENCE_MILLIS = 3_000;

    @Override
    protected QueryRunner createQueryRunner(Map<String, String> extraProperties)
            throws Exception
    {
        TestingStopover stopover = closeAfterClass(new TestingStopover(LOCAL));
        // a rejection is final once every daemon has rejected: only one daemon seems to
        FaultyProxy first = closeAfterClass(new FaultyProxy(
                stopover.first().port(), SEED, RATE, EnumSet.allOf(Fault.class), SILENCE_MILLIS));
        FaultyProxy second = closeAfterClass(new FaultyProxy(
                stopover.second().port(), SEED + 1, RATE, Fault.TRANSIENT, SILENCE_MILLIS));
        ServerSocket notTls = closeAfterClass(new ServerSocket(0));
        Thread.startVirtualThread(() -> closeConnections(notTls));
        Thread restarts = Thread.startVirtualThread(() -> restart(List.of(first, second)));
        closeAfterClass(() -> assertNothingIsLeft(stopover, first, second));
        closeAfterClass(restarts::interrupt);

        Map<String, String> properties = new HashMap<>();
        properties.put("stopover.uris", String.join(",",
                first.uri().toString(),
                second.uri().toString(),
                "http://unknown-host.invalid:7077",
                "https://127.0.0.1:" + notTls.getLocalPort()));
        properties.put("stopover.connect-timeout", "2s");
        properties.put("stopover.request-timeout", "2s");
        properties.put("stopover.home-timeout", "2s");
        properties.put("stopover.write-timeout", "10s");
        properties.put("stopover.read-timeout", "5s");
        properties.put("stopover.daemon-cooldown", "50ms");
        properties.put("stopover.daemon-max-cooldown", "1s");
        return StopoverQueryRunner.create(properties, extraProperties);
    }

    private static void closeConnections(ServerSocket server)
    {
        while (true) {
            try {
                server.accept().close();
            }
            catch (IOException e) {
                return;
            }
        }
    }

    private static void restart(List<FaultyProxy> proxies)
    {
        Random random = new Random(SEED);
        try {
            while (true) {
                Thread.sleep(1_000 + random.nextInt(4_000));
                proxies.get(random.nextInt(proxies.size())).restart(random.nextInt(200));
            }
        }
        catch (InterruptedException | IOException e) {
            // the suite has ended
        }
    }

    /** The queries have ended, and their nodes are closed. */
    private static void assertNothingIsLeft(TestingStopover stopover, FaultyProxy... proxies)
            throws InterruptedException
    {
        for (FaultyProxy proxy : proxies) {
            System.out.println("faults at " + proxy.uri() + ": " + proxy.played());
            proxy.heal();
        }
        assertThat(proxies[0].played()).as("every fault was played")
                .containsOnlyKeys(Fault.values());
        Set<Integer> ports = List.of(proxies).stream()
                .map(FaultyProxy::port)
                .collect(toUnmodifiableSet());
        assertThat(Leftovers.await(Leftovers::threads, 60)).as("threads").isEmpty();
        assertThat(Leftovers.await(() -> Leftovers.connections(ports), 60)).as("connections")
                .isEmpty();
        assertThat(Leftovers.await(stopover::filesOfExchanges, 60)).as("stored files").isEmpty();
    }
}
