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
import java.io.UncheckedIOException;
import java.util.List;

import static io.stopover.trino.FakeDaemon.baseDirectory;
import static io.stopover.trino.client.TestFailureLog.messages;
import static java.util.concurrent.TimeUnit.MINUTES;
import static org.assertj.core.api.Assertions.assertThat;

/**
 * A daemon that lacked a base directory failed four of six queries, and no message showed the
 * cause: names and URIs did not, since both may differ between daemons.
 */
@Timeout(60)
class TestBaseDirectories
{
    private static final String MAIN = baseDirectory("main", "id-1", "active");

    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final FakeDaemon first = new FakeDaemon(store);
    private final FakeDaemon second = new FakeDaemon(store);
    private final FakeDaemon third = new FakeDaemon(store);
    private final StopoverConfig config = new StopoverConfig()
            .setUris("%s,%s,%s".formatted(first.uri(), second.uri(), third.uri()));
    private final HttpTransport transport =
            new HttpTransport(config, new StopoverTlsConfig(), new Token(config));
    private final Daemons daemons = new Daemons(config);
    private final TestingClock clock = new TestingClock();
    private final Fleet fleet = new Fleet(
            config, new DaemonProbe(transport, config), daemons, "node-1", clock);

    @AfterEach
    void close()
    {
        transport.close();
        first.close();
        second.close();
        third.close();
    }

    private List<String> ask()
    {
        return messages(Fleet.class.getPackageName(), () -> {
            try {
                for (Daemon daemon : daemons.all()) {
                    fleet.ask(daemon);
                }
            }
            catch (IOException e) {
                throw new UncheckedIOException(e);
            }
            fleet.warnAboutDifferences();
        });
    }

    private static Daemon daemon(FakeDaemon fake)
    {
        return Daemon.of(fake.uri());
    }

    private void allHave(String... bases)
    {
        first.setBaseDirectories(bases);
        second.setBaseDirectories(bases);
        third.setBaseDirectories(bases);
    }

    @Test
    void testNamesAndUrisMayDiffer()
    {
        allHave(MAIN);
        second.setBaseDirectories(baseDirectory("other-name", "id-1", "active"));
        assertThat(ask()).isEmpty();
        assertThat(daemons.all()).containsExactly(daemon(first), daemon(second), daemon(third));
    }

    @Test
    void testDaemonThatLacksOneIsToldAndAskedLast()
    {
        allHave(MAIN, baseDirectory("more", "id-2", "draining"));
        first.setBaseDirectories(MAIN);
        assertThat(ask()).hasSize(1).first().asString()
                .startsWith("WARNING Stopover daemon %s lacks base directory more (id-2), which "
                        .formatted(first.uri()))
                .contains("stopover members abandon more");
        assertThat(daemons.all()).containsExactly(daemon(second), daemon(third), daemon(first));
        assertThat(daemons.preferred()).isEqualTo(daemon(second));
        assertThat(fleet.lacksBaseDirectory(daemon(first))).isTrue();
    }

    /** The other daemons of the list may be unknown to this node. */
    @Test
    void testDaemonThatSaysItselfWhatItLacksIsToldAndAskedLast()
    {
        allHave(MAIN);
        second.setMissingBaseDirectory("more", "id-2");
        assertThat(ask()).hasSize(3).allSatisfy(message ->
                assertThat(message).contains("lacks base directory more (id-2)", "the fleet uses"));
        assertThat(daemons.all()).as("as all lack it, none is better")
                .containsExactly(daemon(first), daemon(second), daemon(third));
    }

    @Test
    void testOneNameForTwoPlacesIsTold()
    {
        allHave(MAIN);
        third.setBaseDirectories(baseDirectory("main", "id-3", "active"));
        assertThat(ask())
                .anySatisfy(message -> assertThat(message).contains(
                        third.uri() + " lacks base directory main (id-1)",
                        "Its own base directory main (id-3 at file:///data/main) is elsewhere"));
    }

    @Test
    void testWhatIsUnknownAbandonedOrNotListedIsNotLacked()
    {
        allHave(
                MAIN,
                baseDirectory("unread", "id-2", "active"),
                baseDirectory("old", "id-3", "active"),
                baseDirectory("new", "id-4", null));
        second.setBaseDirectories(
                MAIN,
                baseDirectory("unread", null, "active"),
                baseDirectory("old", "id-3", "abandoned"));
        third.setBaseDirectories(MAIN, baseDirectory("unread", "id-2", "active"));
        assertThat(ask()).isEmpty();
    }

    @Test
    void testDifferenceIsRepeatedAfterAnHourAndItsEndIsTold()
    {
        allHave(MAIN, baseDirectory("more", "id-2", "active"));
        first.setBaseDirectories(MAIN);
        assertThat(ask()).hasSize(1);
        assertThat(ask()).isEmpty();
        clock.advance(MINUTES.toNanos(FleetLog.REPEAT_MINUTES));
        assertThat(ask()).hasSize(1);
        first.setBaseDirectories(MAIN, baseDirectory("more", "id-2", "active"));
        assertThat(ask()).containsExactly("INFO "
                + "Stopover daemons do not differ in version or base directories any more");
        assertThat(daemons.preferred()).isEqualTo(daemon(first));
    }

    /** The fleet's list of members changes without a restart of the daemons. */
    @Test
    void testChangeOfARunningFleetIsNoticed()
            throws Exception
    {
        allHave(MAIN);
        assertThat(ask()).isEmpty();
        String more = baseDirectory("more", "id-2", "active");
        second.setBaseDirectories(MAIN, more);
        third.setBaseDirectories(MAIN, more);
        while (!daemons.preferred().equals(daemon(second))) {
            clock.advance(Fleet.LOOKUP_INTERVAL_NANOS);
            fleet.keepCurrent();
            Thread.sleep(5);
        }
        first.setBaseDirectories(MAIN, more);
        while (!daemons.preferred().equals(daemon(first))) {
            clock.advance(Fleet.LOOKUP_INTERVAL_NANOS);
            fleet.keepCurrent();
            Thread.sleep(5);
        }
    }

    @Test
    void testDaemonThatLacksOneIsNoHome()
    {
        allHave(MAIN, baseDirectory("more", "id-2", "active"));
        Homes homes = new Homes(config, daemons, fleet);
        ask();
        assertThat(homes.describe(daemon(third))).isPresent();
        Home home = homes.describe(daemon(third)).orElseThrow();
        assertThat(homes.find(List.of(home))).contains(daemon(third));
        third.setBaseDirectories(MAIN);
        ask();
        assertThat(homes.describe(daemon(third))).isEmpty();
        assertThat(homes.find(List.of(home))).isEmpty();
    }
}
