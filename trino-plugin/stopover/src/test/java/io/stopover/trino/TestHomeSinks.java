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

import io.airlift.slice.Slices;
import io.stopover.trino.FakeDaemon.Fault;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSource;
import io.trino.spi.exchange.ExchangeSourceHandle;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BooleanSupplier;
import java.util.regex.Pattern;
import java.util.stream.LongStream;

import static io.stopover.trino.FakeDaemon.delay;
import static io.stopover.trino.FakeDaemon.hang;
import static io.stopover.trino.FakeDaemon.hangAfterExecution;
import static io.stopover.trino.FakeDaemon.loseResponse;
import static io.stopover.trino.FakeDaemon.problem;
import static io.stopover.trino.FakeDaemon.truncate;
import static io.stopover.trino.Testing.exchange;
import static io.stopover.trino.Testing.handles;
import static io.stopover.trino.Testing.metric;
import static io.stopover.trino.Testing.readAll;
import static io.stopover.trino.Testing.source;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;

/** Small sinks are gathered at a home, and nothing is lost or fails if they cannot be. */
@Timeout(60)
class TestHomeSinks
{
    private static final Map<String, String> PROPERTIES = Map.of(
            "stopover.homes", "true",
            "stopover.home-timeout", "300ms",
            "stopover.request-timeout", "500ms",
            "stopover.batch-size", "64kB",
            "stopover.sink-max-buffered", "256kB",
            "stopover.daemon-cooldown", "1ms",
            "stopover.daemon-max-cooldown", "1ms");

    private final FakeDaemon.Store store = new FakeDaemon.Store();
    /** The preferred daemon of the node. */
    private final FakeDaemon own = new FakeDaemon(store);
    private final FakeDaemon home = new FakeDaemon(store);
    private final ExchangeManager manager = Testing.manager(PROPERTIES, own, home);
    private Exchange exchange;

    @BeforeEach
    void open()
            throws Exception
    {
        // the daemons are queried in the background
        await(() -> own.probes.size() + home.probes.size() == 4);
        Thread.sleep(50);
        exchange = exchangeAt(home);
    }

    /** An exchange whose home is the given daemon. */
    private Exchange exchangeAt(FakeDaemon daemon)
            throws Exception
    {
        while (true) {
            Exchange candidate = exchange(manager, 10, false);
            StopoverSinkInstanceHandle handle = (StopoverSinkInstanceHandle) candidate
                    .instantiateSink(candidate.addSink(0), 0).get(10, SECONDS);
            if (handle.homes().getFirst().uri().equals(daemon.uri())) {
                return candidate;
            }
            candidate.close();
        }
    }

    @AfterEach
    void stop()
    {
        manager.shutdown();
        own.close();
        home.close();
    }

    private static void await(BooleanSupplier condition)
            throws InterruptedException
    {
        long deadline = System.nanoTime() + SECONDS.toNanos(20);
        while (!condition.getAsBoolean()) {
            assertThat(System.nanoTime()).as("20 seconds have passed").isLessThan(deadline);
            Thread.sleep(5);
        }
    }

    private ExchangeSink write(int task, int attempt, int pages)
            throws Exception
    {
        ExchangeSink sink = Testing.sink(manager, exchange, task, attempt);
        finish(sink, pages);
        exchange.sinkFinished(exchange.addSink(task), attempt);
        return sink;
    }

    private static void finish(ExchangeSink sink, int pages)
            throws Exception
    {
        for (int page = 0; page < pages; page++) {
            sink.add(page % 10, Slices.utf8Slice(page + "x".repeat(20_000)));
        }
        sink.finish().get(20, SECONDS);
    }

    private static List<String> withdrawals(FakeDaemon daemon)
    {
        return daemon.requests("DELETE ").stream()
                .filter(request -> request.contains("/sinks/"))
                .toList();
    }

    private List<ExchangeSourceHandle> plan()
            throws Exception
    {
        exchange.allRequiredSinksFinished();
        return handles(exchange);
    }

    private ExchangeSource read(List<ExchangeSourceHandle> handles, int pages)
            throws Exception
    {
        ExchangeSource source = source(manager, handles, Map.of(0, 0));
        assertThat(readAll(source)).hasSize(pages).doesNotHaveDuplicates();
        return source;
    }

    @Test
    void testSmallSinkGoesToItsHome()
            throws Exception
    {
        ExchangeSink sink = write(0, 0, 3);
        assertThat(home.requests("/foreign-pages")).hasSize(1);
        assertThat(home.requests("/finish")).hasSize(1);
        assertThat(own.requests("/sinks/")).isEmpty();
        assertThat(metric(sink.getMetrics().orElseThrow(), "StopoverSink.homeBytes"))
                .isEqualTo(3 * 20_001);
        assertThat(sink.getMemoryUsage()).isZero();
        read(plan(), 3);
    }

    /** Its daemon then knows when the announcement is durable, without asking the store. */
    @Test
    void testExchangeIsAnnouncedAndConfirmedAtItsHome()
            throws Exception
    {
        String announcement = home.requests("PUT /v1/exchanges/").getLast();
        assertThat(own.requests(announcement)).isEmpty();
        await(() -> !home.requests(announcement.replace("PUT", "CONFIRM")).isEmpty());
        assertThat(own.requests("CONFIRM")).doesNotContain(
                announcement.replace("PUT", "CONFIRM"));
    }

    private long announcements(String request)
    {
        Pattern pattern = Pattern.compile(request);
        return home.requests("").stream().filter(line -> pattern.matcher(line).find()).count();
    }

    @Test
    void testExchangeThatItsHomeDoesNotAnnounceIsAnnouncedByAnotherDaemon()
            throws Exception
    {
        Map<String, Fault> faults = new LinkedHashMap<>();
        faults.put("draining", problem("draining", 503, true));
        faults.put("store out of order", problem("storage-unavailable", 503, true));
        faults.put("hung", hang());
        faults.put("response lost", loseResponse());
        for (Map.Entry<String, Fault> fault : faults.entrySet()) {
            for (String request : List.of("PUT /v1/exchanges/[^/]*$", "CONFIRM ")) {
                home.onNext(request, fault.getValue());
                long before = announcements(request);
                while (announcements(request) == before) {
                    exchange = exchange(manager, 10, false);
                    write(0, 0, 3);
                    read(plan(), 3);
                    exchange.close();
                    // a daemon returns to rotation only after a probe
                    Thread.sleep(20);
                }
            }
        }
    }

    @Test
    void testEmptySinkIsCommittedAtItsHome()
            throws Exception
    {
        write(0, 0, 0);
        assertThat(home.requests("/finish")).hasSize(1);
        assertThat(own.requests("/sinks/")).isEmpty();
        read(plan(), 0);
    }

    @Test
    void testSinkThatOutgrowsItsFirstBatchGoesToTheOwnDaemonAndIsWithdrawnAtTheHome()
            throws Exception
    {
        ExchangeSink sink = Testing.sink(manager, exchange, 0, 0);
        await(() -> home.declared.size() == 1);
        finish(sink, 12);
        await(() -> home.declared.isEmpty());
        assertThat(withdrawals(home)).hasSize(1);
        assertThat(home.requests("pages")).isEmpty();
        assertThat(own.requests("/finish")).hasSize(1);
        assertThat(metric(sink.getMetrics().orElseThrow(), "StopoverSink.homeBytes")).isZero();
        exchange.sinkFinished(exchange.addSink(0), 0);
        read(plan(), 12);
    }

    @Test
    void testSinkThatIsAbortedBeforeItsFirstBatchIsWithdrawnAtItsHome()
            throws Exception
    {
        ExchangeSink sink = Testing.sink(manager, exchange, 0, 0);
        await(() -> home.declared.size() == 1);
        sink.add(0, Slices.utf8Slice("page"));
        sink.abort().get(10, SECONDS);
        await(() -> home.declared.isEmpty());
        assertThat(withdrawals(home)).hasSize(1);
        assertThat(home.requests("pages")).isEmpty();
    }

    @Test
    void testSinkWithoutAHomeThatIsAbortedBeforeItsFirstBatchIsWithdrawn()
            throws Exception
    {
        exchange = exchangeAt(own);
        ExchangeSink sink = Testing.sink(manager, exchange, 0, 0);
        await(() -> own.declared.size() == 1);
        sink.abort().get(10, SECONDS);
        await(() -> own.declared.isEmpty());
    }

    @Test
    void testEmptySinkThatItsHomeDoesNotCommitIsWithdrawnThere()
            throws Exception
    {
        ExchangeSink sink = Testing.sink(manager, exchange, 0, 0);
        await(() -> home.declared.size() == 1);
        home.onNext("/finish", problem("draining", 503, true));
        finish(sink, 0);
        await(() -> home.declared.isEmpty());
        assertThat(own.requests("/finish")).hasSize(1);
    }

    /** The declaration would otherwise be there after its withdrawal. */
    @Test
    void testWithdrawalDoesNotOvertakeItsDeclaration()
            throws Exception
    {
        for (boolean aborted : List.of(false, true)) {
            home.onNext("PUT .*/sinks/", delay(200));
            ExchangeSink sink = Testing.sink(manager, exchange, 0, aborted ? 1 : 0);
            await(() -> home.requests("PUT").getLast().contains("/sinks/"));
            if (aborted) {
                sink.abort().get(10, SECONDS);
            }
            else {
                finish(sink, 12);
            }
            assertThat(home.declared).isEmpty();
            int withdrawn = aborted ? 2 : 1;
            await(() -> withdrawals(home).size() == withdrawn);
            await(() -> home.declared.isEmpty());
            Thread.sleep(300);
            assertThat(home.declared).isEmpty();
            assertThat(withdrawals(home)).hasSize(withdrawn);
        }
    }

    /** Requests to its home or its own daemon would be wasted. */
    @Test
    void testSinkThatIsCommittedWhereItIsDeclaredIsNotWithdrawn()
            throws Exception
    {
        for (int pages : List.of(0, 3)) {
            exchange = exchangeAt(home);
            write(0, 0, pages);
        }
        for (int pages : List.of(0, 3, 12)) {
            exchange = exchangeAt(own);
            write(0, 0, pages);
        }
        Thread.sleep(200);
        assertThat(withdrawals(home)).isEmpty();
        assertThat(withdrawals(own)).isEmpty();
    }

    /** Bytes between zones are charged: what this node writes and reads there is counted. */
    @Test
    void testBytesOfADaemonOfAnotherZoneAreCounted()
            throws Exception
    {
        own.setZone("zone-1");
        home.setZone("zone-2");
        Map<String, String> inZone = new HashMap<>(PROPERTIES);
        inZone.put("stopover.zone", "zone-1");
        ExchangeManager node = Testing.manager(inZone, own, home);
        try {
            await(() -> own.probes.size() + home.probes.size() == 8);
            Thread.sleep(50);
            home.remembers = true;
            assertThat(otherZoneBytes(node, 12)).as("own daemon").isEqualTo(List.of(0L, 0L));
            own.close();
            for (int pages : List.of(3, 12)) {
                long bytes = LongStream.range(0, pages)
                        .map(page -> Long.toString(page).length() + 20_000)
                        .sum();
                assertThat(otherZoneBytes(node, pages)).isEqualTo(List.of(bytes, bytes));
            }
        }
        finally {
            node.shutdown();
        }
    }

    /** Bytes that a sink of these pages and a source of all of them count. */
    private static List<Long> otherZoneBytes(ExchangeManager node, int pages)
            throws Exception
    {
        Exchange exchange = exchange(node, 10, false);
        ExchangeSink sink = Testing.sink(node, exchange, 0, 0);
        finish(sink, pages);
        exchange.sinkFinished(exchange.addSink(0), 0);
        exchange.allRequiredSinksFinished();
        ExchangeSource source = source(node, handles(exchange), Map.of(0, 0));
        assertThat(readAll(source)).hasSize(pages);
        exchange.close();
        return List.of(
                metric(sink.getMetrics().orElseThrow(), "StopoverSink.otherZoneBytes"),
                metric(source.getMetrics().orElseThrow(), "StopoverSource.otherZoneBytes"));
    }

    @Test
    void testSinkWhoseHomeIsTheOwnDaemonIsNotForeign()
            throws Exception
    {
        exchange = exchangeAt(own);
        write(0, 0, 3);
        assertThat(own.requests("/pages")).hasSize(1);
        assertThat(home.requests("/sinks/")).isEmpty();
    }

    /** What a home does not accept goes to the own daemon, as if there were no home. */
    @Test
    void testWhateverAHomeDoesNoAttemptFailsAndNoPageIsLostOrDoubled()
            throws Exception
    {
        Map<String, Fault> faults = new LinkedHashMap<>();
        faults.put("draining", problem("draining", 503, true));
        faults.put("no memory", problem("overloaded", 503, true));
        faults.put("another token", problem("unauthorized", 401, false));
        faults.put("restarted", problem("sink-not-found", 404, false));
        faults.put("store out of order", problem("storage-unavailable", 503, true));
        faults.put("write failed", problem("sink-failed", 503, false));
        faults.put("hung", hang());
        faults.put("hung afterwards", hangAfterExecution());
        faults.put("response lost", loseResponse());
        faults.put("response truncated", truncate(5));
        for (Map.Entry<String, Fault> fault : faults.entrySet()) {
            for (String request : List.of("/foreign-pages", "/finish")) {
                exchange = exchangeAt(home);
                home.onNext(request, fault.getValue());
                write(0, 0, 3);
                assertThat(own.requests("/finish")).as("%s at %s", fault.getKey(), request)
                        .isNotEmpty();
                read(plan(), 3);
                exchange.close();
                // the home returns to rotation only after a probe
                Thread.sleep(20);
            }
        }
        await(() -> home.openSinks().isEmpty());
    }

    @Test
    void testHomeThatIsGoneIsPassedOver()
            throws Exception
    {
        home.close();
        write(0, 0, 3);
        read(plan(), 3);
        assertThat(own.requests("/finish")).hasSize(1);
    }

    @Test
    void testRetriedAttemptOfAHomeThatChangedIsReadOnce()
            throws Exception
    {
        write(0, 1, 2);
        home.onNext("/sinks/", 3, problem("draining", 503, true));
        write(0, 0, 3);
        exchange.allRequiredSinksFinished();
        ExchangeSource source = source(manager, handles(exchange), Map.of(0, 1));
        assertThat(readAll(source)).as("the attempt that finished first").hasSize(2);
    }

    @Test
    void testAbortedSinkLeavesNothingAtItsHome()
            throws Exception
    {
        home.onNext("/finish", hang());
        ExchangeSink sink = manager.createSink(
                exchange.instantiateSink(exchange.addSink(0), 0).get(10, SECONDS));
        sink.add(0, Slices.utf8Slice("page"));
        sink.finish();
        await(() -> !home.requests("/finish").isEmpty());
        sink.abort().get(10, SECONDS);
        assertThat(sink.getMemoryUsage()).isZero();
        await(() -> home.openSinks().isEmpty());
        assertThat(own.requests("/pages")).isEmpty();
    }

    @Test
    void testWhatTheHomeKnowsIsPlannedAndReadFromItsMemory()
            throws Exception
    {
        home.remembers = true;
        write(0, 0, 3);
        List<ExchangeSourceHandle> handles = plan();
        assertThat(own.requests("/handles")).isEmpty();
        assertThat(home.requests("/handles")).isEmpty();
        ExchangeSource source = read(handles, 3);
        assertThat(own.requests("/v1/read")).isEmpty();
        assertThat(metric(source.getMetrics().orElseThrow(), "StopoverSource.homeBytes"))
                .isEqualTo(3 * 20_001);
    }

    @Test
    void testHomeThatGoesBeforeOrDuringTheReadCostsOneFailedRequest()
            throws Exception
    {
        home.remembers = true;
        write(0, 0, 3);
        List<ExchangeSourceHandle> handles = plan();
        for (Fault fault : List.of(hang(), truncate(20_100), problem("draining", 503, true))) {
            home.onNext("/v1/read", fault);
            read(handles, 3);
        }
        home.close();
        read(handles, 3);
    }

    @Test
    void testAttemptThatTwoDaemonsKnowIsPlannedOnce()
            throws Exception
    {
        own.remembers = true;
        home.remembers = true;
        home.onNext("/finish", loseResponse());
        write(0, 0, 3);
        assertThat(own.requests("/finish")).hasSize(1);
        read(plan(), 3);
        assertThat(own.requests("/handles")).isEmpty();
    }

    @Test
    void testWhatNoDaemonKnowsIsPlannedFromTheBaseDirectories()
            throws Exception
    {
        home.remembers = true;
        write(0, 0, 3);
        home.restart();
        write(1, 0, 2);
        exchange.allRequiredSinksFinished();
        List<ExchangeSourceHandle> handles = handles(exchange);
        assertThat(own.requests("/handles")).hasSize(1);
        assertThat(own.planned.getLast())
                .as("both daemons know nothing of the rest")
                .contains("[0,0]")
                .doesNotContain("[1,0]")
                .contains("asked_daemons")
                .contains(own.run())
                .contains(home.run());
        ExchangeSource source = source(manager, handles, Map.of(0, 0, 1, 0));
        assertThat(readAll(source)).hasSize(5);
    }

    /** Each partition of an ordered exchange must be one handle. */
    @Test
    void testOrderedExchangeIsPlannedFromMemoryOnlyIfOneDaemonKnowsAllOfIt()
            throws Exception
    {
        home.remembers = true;
        own.remembers = true;
        exchange = exchange(manager, 10, true);
        write(0, 0, 12);
        read(plan(), 12);
        assertThat(own.requests("/handles")).isEmpty();

        exchange = exchange(manager, 10, true);
        write(0, 0, 12);
        own.restart();
        write(1, 0, 12);
        exchange.allRequiredSinksFinished();
        Map<Integer, Integer> handles = new HashMap<>();
        handles(exchange).forEach(
                handle -> handles.merge(handle.getPartitionId(), 1, Integer::sum));
        assertThat(handles).hasSize(10);
        assertThat(handles.values()).containsOnly(1);
        assertThat(own.requests("/handles")).hasSize(1);
    }
}
