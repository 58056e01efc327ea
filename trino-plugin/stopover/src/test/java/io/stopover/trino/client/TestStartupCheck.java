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

import io.airlift.units.Duration;
import io.stopover.trino.FakeDaemon;
import io.stopover.trino.StopoverConfig;
import io.stopover.trino.StopoverTlsConfig;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.util.List;
import java.util.stream.Stream;

import static io.stopover.trino.FakeDaemon.baseDirectory;
import static io.stopover.trino.FakeDaemon.problem;
import static java.util.concurrent.TimeUnit.SECONDS;
import static java.util.stream.Collectors.joining;
import static org.assertj.core.api.Assertions.assertThat;

/** No line of any Trino log named Stopover, whatever the error. */
@Timeout(60)
class TestStartupCheck
{
    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final FakeDaemon first = new FakeDaemon(store);
    private final FakeDaemon second = new FakeDaemon(store);
    private Fleet fleet;

    @AfterEach
    void close()
    {
        first.close();
        second.close();
    }

    private List<String> check()
    {
        return check(first, second);
    }

    private List<String> check(FakeDaemon... daemonsOfTheNode)
    {
        StopoverConfig config = new StopoverConfig()
                .setUris(Stream.of(daemonsOfTheNode)
                        .map(daemon -> daemon.uri().toString())
                        .collect(joining(",")))
                .setToken("secret-of-the-test")
                .setConnectTimeout(new Duration(1, SECONDS));
        HttpTransport transport =
                new HttpTransport(config, new StopoverTlsConfig(), new Token(config));
        DaemonProbe probe = new DaemonProbe(transport, config);
        Daemons daemons = new Daemons(config);
        fleet = new Fleet(config, probe, daemons);
        StartupCheck check = new StartupCheck(daemons, probe, fleet);
        try {
            return TestFailureLog.messages(StartupCheck.class.getPackageName(), () -> {
                check.start();
                check.finished().join();
            });
        }
        finally {
            transport.close();
        }
    }

    @Test
    void testDaemonsThatAreReadyAreLoggedWithVersionAndBaseDirectories()
    {
        String bases = "base directories [main (id-of-main at file:///data/main)]";
        assertThat(check()).containsExactly(
                "INFO Stopover daemon %s is ready for this node: version 0.1.0, "
                        .formatted(first.uri()) + bases,
                "INFO Stopover daemon %s is ready for this node: version 0.1.0, "
                        .formatted(second.uri()) + bases);
    }

    @Test
    void testDaemonThatIsNotReachedOrRejectsTheTokenIsAWarning()
    {
        first.close();
        second.setToken("another-token");
        List<String> messages = check();
        assertThat(messages).hasSize(2);
        assertThat(messages.get(0))
                .startsWith("WARNING Stopover daemon %s cannot be used by this node: GET "
                        .formatted(first.uri()))
                .contains("connection refused", "from node", "stopover.uris");
        assertThat(messages.get(1))
                .startsWith("WARNING Stopover daemon " + second.uri())
                .contains("unauthorized", "stopover.token")
                .doesNotContain("secret-of-the-test");
    }

    @Test
    void testDaemonThatIsNotReadyIsAWarning()
    {
        first.onNext("GET /readyz", problem("not-ready", 503, true));
        assertThat(check().getFirst())
                .startsWith("WARNING Stopover daemon " + first.uri() + " runs but is not ready");
    }

    @Test
    void testUnhealthyBaseDirectoryIsAWarning()
    {
        first.setBaseDirectories("""
                {"name": "main", "uri": "file:///data", "id": "id-of-main", "state": "active",
                 "healthy": false, "error": "disk full"}""");
        assertThat(check()).contains("WARNING Stopover daemon %s cannot use its base directory "
                .formatted(first.uri()) + "main (disk full)");
    }

    @Test
    void testNodeThatNamesOneDaemonIsToldWhatItForgoes()
    {
        assertThat(check(first)).last().asString()
                .startsWith("INFO stopover.uris names one Stopover daemon, " + first.uri())
                .contains("small outputs of several nodes are not gathered");
    }

    /** Four of six queries failed, and no message showed the cause. */
    @Test
    void testDaemonThatLacksABaseDirectoryIsAWarningThatNamesBothAndTheWayOut()
    {
        second.setBaseDirectories(
                baseDirectory("main", "id-of-main", "active"),
                baseDirectory("more", "id-of-more", "active"));
        assertThat(check()).last().asString()
                .startsWith("WARNING Stopover daemon %s lacks base directory more (id-of-more), "
                        .formatted(first.uri()) + "which " + second.uri() + " uses")
                .contains("stopover members abandon more");
    }

    @Test
    void testDaemonsOfDifferentVersionsAreAWarning()
    {
        second.setVersion("0.2.0");
        assertThat(check()).last().asString()
                .startsWith("WARNING Stopover daemons differ in their version")
                .contains("0.1.0", "0.2.0");
    }

    /** A batch that one daemon of the fleet refused failed the query. */
    @Test
    void testLowestLimitOfTheFleetIsUsedAndTold()
    {
        second.setLimits(1 << 20, 1 << 20, 50);
        List<String> messages = check();
        assertThat(messages)
                .filteredOn(message -> message.startsWith("WARNING"))
                .hasSize(3)
                .allSatisfy(message -> assertThat(message).contains(second.uri().toString()))
                .anySatisfy(message -> assertThat(message).contains("limits.max_page_size"))
                .anySatisfy(message -> assertThat(message).contains("limits.max_batch_size"))
                .anySatisfy(message -> assertThat(message).contains("limits.max_partitions"));
        assertThat(fleet.batchSize()).isEqualTo(1 << 20);
    }

    @Test
    void testDaemonOfAnotherProtocolIsAWarningThatNamesTheSideToUpgrade()
    {
        first.upgrade(0, 0);
        second.upgrade(2, 3);
        assertThat(check())
                .anySatisfy(message -> assertThat(message).contains(
                        first.uri() + " ", "protocol 0 to 0", "upgrade the daemons first"))
                .anySatisfy(message -> assertThat(message).contains(
                        second.uri() + " ", "protocol 2 to 3", "upgrade the plugin"));
    }
}
