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

import io.stopover.trino.client.Home;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSourceHandle;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.net.URI;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.regex.Pattern;
import java.util.stream.IntStream;

import static io.stopover.trino.FakeDaemon.hang;
import static io.stopover.trino.Testing.exchange;
import static io.stopover.trino.Testing.handles;
import static io.stopover.trino.Testing.readAll;
import static io.stopover.trino.Testing.source;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;

/** Which daemons a plan queries, and for which attempts: their number must not multiply it. */
@Timeout(60)
class TestPlanFromMemory
{
    private static final int DAEMONS = 12;
    /** Blocks of 256 tasks. */
    private static final int TASKS = 4 * 256;
    private static final int PAGE_SIZE = 1000;
    private static final Pattern ATTEMPT = Pattern.compile("\\[(\\d+),\\d+]");

    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final List<FakeDaemon> daemons =
            IntStream.range(0, DAEMONS).mapToObj(_ -> new FakeDaemon(store)).toList();
    private final ExchangeManager manager = Testing.manager(
            Map.of("stopover.homes", "true", "stopover.home-timeout", "1s"),
            daemons.toArray(FakeDaemon[]::new));
    private final Map<Integer, Integer> attempts = new TreeMap<>();
    private Exchange exchange;
    private String name;

    @BeforeEach
    void open()
            throws Exception
    {
        daemons.forEach(daemon -> daemon.remembers = true);
        // the daemons are queried in the background
        while (daemons.stream().anyMatch(daemon -> daemon.probes.size() < 2)) {
            Thread.sleep(5);
        }
        Thread.sleep(50);
    }

    /** Until all blocks have different homes, so that each test has the same numbers. */
    private Map<Integer, FakeDaemon> exchangeWithHomes()
            throws Exception
    {
        while (true) {
            exchange = exchange(manager, 1, false);
            Map<Integer, FakeDaemon> homes = new HashMap<>();
            for (int task = 0; task < TASKS; task += 256) {
                StopoverSinkInstanceHandle handle = (StopoverSinkInstanceHandle) exchange
                        .instantiateSink(exchange.addSink(task), 0).get(10, SECONDS);
                name = handle.exchange();
                homes.put(task / 256, at(handle.homes().getFirst().uri()));
            }
            if (homes.values().stream().distinct().count() == homes.size()) {
                return homes;
            }
            exchange.close();
        }
    }

    private FakeDaemon at(URI uri)
    {
        return daemons.stream().filter(daemon -> daemon.uri().equals(uri)).findFirst()
                .orElseThrow();
    }

    @AfterEach
    void stop()
    {
        manager.shutdown();
        daemons.forEach(FakeDaemon::close);
    }

    private void commit(FakeDaemon daemon, int task)
    {
        daemon.commit(name, task, 0, PAGE_SIZE);
        exchange.sinkFinished(exchange.addSink(task), 0);
        attempts.put(task, 0);
    }

    private List<ExchangeSourceHandle> plan()
            throws Exception
    {
        exchange.allRequiredSinksFinished();
        List<ExchangeSourceHandle> handles = handles(exchange);
        assertThat(readAll(source(manager, handles, attempts))).hasSize(attempts.size());
        return handles;
    }

    /** The homes by block of tasks, at which all attempts were committed. */
    private Map<Integer, FakeDaemon> exchangeCommittedAtHomes()
            throws Exception
    {
        Map<Integer, FakeDaemon> homes = exchangeWithHomes();
        for (int task = 0; task < TASKS; task++) {
            commit(homes.get(task / 256), task);
        }
        return homes;
    }

    /** Attempts named in all requests for handles. */
    private long attemptsSent()
    {
        return daemons.stream()
                .flatMap(daemon -> daemon.planned.stream())
                .mapToLong(body -> ATTEMPT.matcher(body).results().count())
                .sum();
    }

    private long queried()
    {
        return daemons.stream().filter(daemon -> !daemon.planned.isEmpty()).count();
    }

    private static List<Optional<URI>> holders(List<ExchangeSourceHandle> handles)
    {
        return handles.stream()
                .map(handle -> ((StopoverSourceHandle) handle).holder().map(Home::uri))
                .toList();
    }

    /** 200 daemons were each sent the 10,000 attempts of an exchange: 18 MB. */
    @Test
    void testAttemptsAtTheirHomesAreSentOnceEach()
            throws Exception
    {
        Map<Integer, FakeDaemon> homes = exchangeCommittedAtHomes();
        List<ExchangeSourceHandle> handles = plan();
        assertThat(attemptsSent()).isEqualTo(TASKS);
        assertThat(queried()).isEqualTo(4);
        assertThat(holders(handles)).containsExactlyInAnyOrderElementsOf(
                homes.values().stream().map(home -> Optional.of(home.uri())).toList());
    }

    @Test
    void testAllDaemonsAreQueriedForWhatNoHomeKnowsAndForNothingElse()
            throws Exception
    {
        Map<Integer, FakeDaemon> homes = exchangeWithHomes();
        FakeDaemon own = daemons.stream()
                .filter(daemon -> !homes.containsValue(daemon)).findFirst().orElseThrow();
        int large = 70;
        for (int task = 0; task < TASKS; task++) {
            commit(task < large ? own : homes.get(task / 256), task);
        }
        List<ExchangeSourceHandle> handles = plan();
        assertThat(queried()).isEqualTo(DAEMONS);
        assertThat(attemptsSent())
                .as("the home of the first block has already answered")
                .isEqualTo(TASKS + large * (DAEMONS - 1));
        assertThat(holders(handles)).hasSize(5).contains(Optional.of(own.uri()));
    }

    @Test
    void testAttemptsOfAHomeThatDoesNotAnswerAreListed()
            throws Exception
    {
        Map<Integer, FakeDaemon> homes = exchangeCommittedAtHomes();
        homes.get(0).onNext("/hot-handles", hang());
        List<ExchangeSourceHandle> handles = plan();
        assertThat(holders(handles)).hasSize(4)
                .containsOnlyOnce(Optional.<URI>empty())
                .doesNotContain(Optional.of(homes.get(0).uri()));
        List<String> listed = daemons.stream().flatMap(daemon -> daemon.planned.stream())
                .filter(body -> !body.contains("from_memory"))
                .toList();
        assertThat(listed).singleElement().satisfies(body ->
                assertThat(ATTEMPT.matcher(body).results().count()).isEqualTo(256));
        assertThat(listed.getFirst()).as("those that answered know none of it")
                .contains(homes.get(1).run(), homes.get(2).run(), homes.get(3).run());
    }

    /** The attempt may have been committed at both; a reader needs one copy. */
    @Test
    void testAttemptThatItsHomeAndAnotherHomeKnowIsPlannedOnce()
            throws Exception
    {
        Map<Integer, FakeDaemon> homes = exchangeCommittedAtHomes();
        homes.get(1).commit(name, 0, 0, PAGE_SIZE);
        plan();
        assertThat(attemptsSent()).isEqualTo(TASKS);
    }
}
