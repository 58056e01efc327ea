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

import io.airlift.slice.Slice;
import io.airlift.slice.Slices;
import io.stopover.trino.testing.DaemonProcess;
import io.stopover.trino.testing.TestingExchangeContext;
import io.stopover.trino.testing.TestingStopover;
import io.trino.plugin.base.metrics.LongCount;
import io.trino.plugin.exchange.filesystem.TestExchangeManagerContext;
import io.trino.spi.QueryId;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSinkInstanceHandle;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceOutputSelector;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.stream.IntStream;

import static io.stopover.trino.testing.SmallExchanges.readAll;
import static io.trino.spi.exchange.ExchangeId.createRandomExchangeId;
import static java.util.concurrent.TimeUnit.SECONDS;
import static java.util.function.Function.identity;
import static java.util.stream.Collectors.toMap;
import static org.assertj.core.api.Assertions.assertThat;

/** Two nodes, each with a daemon of its own, whose small sinks are gathered at one of the two. */
@Timeout(300)
class TestStopoverHomes
{
    private static final int TASKS = 40;

    private TestingStopover stopover;
    private List<ExchangeManager> nodes;

    @BeforeEach
    void start()
            throws Exception
    {
        stopover = new TestingStopover(TestingStopover.Storage.LOCAL);
        nodes = List.of(
                node(stopover.first(), stopover.second()),
                node(stopover.second(), stopover.first()));
        for (ExchangeManager node : nodes) {
            awaitHomes(node);
        }
    }

    /** Each node queries the daemons in the background: before that, it has no homes. */
    static void awaitHomes(ExchangeManager node)
            throws Exception
    {
        while (homes(node).isEmpty()) {
            Thread.sleep(50);
        }
    }

    private static ExchangeManager node(DaemonProcess own, DaemonProcess other)
    {
        return new StopoverExchangeManagerFactory().create(
                Map.of("stopover.uris", own.uri() + "," + other.uri()),
                new TestExchangeManagerContext());
    }

    private static List<?> homes(ExchangeManager node)
            throws Exception
    {
        Exchange exchange = exchange(node, createRandomExchangeId());
        StopoverSinkInstanceHandle handle = (StopoverSinkInstanceHandle) exchange
                .instantiateSink(exchange.addSink(0), 0).get(60, SECONDS);
        exchange.close();
        return handle.homes();
    }

    private static Exchange exchange(ExchangeManager node, ExchangeId id)
    {
        QueryId query = new QueryId("homes_" + id.getId().replaceAll("[^a-z0-9]", ""));
        return node.createExchange(new TestingExchangeContext(query, id), 3, false);
    }

    @AfterEach
    void stop()
    {
        nodes.forEach(ExchangeManager::shutdown);
        stopover.close();
    }

    /**
     * Writes a page for each of the tasks from {@code first}, all at once, the tasks in turn on the
     * two nodes.
     */
    private Set<Slice> write(Exchange exchange, int first, int attempt)
            throws Exception
    {
        Set<Slice> pages = new HashSet<>();
        List<CompletableFuture<Void>> finished = new ArrayList<>();
        for (int task = first; task < first + TASKS; task++) {
            ExchangeSinkInstanceHandle handle = exchange
                    .instantiateSink(exchange.addSink(task), attempt).get(60, SECONDS);
            ExchangeSink sink = nodes.get(task % nodes.size()).createSink(handle);
            Slice page = Slices.utf8Slice("attempt %s of task %s".formatted(attempt, task));
            sink.add(task % 3, page);
            pages.add(page);
            finished.add(sink.finish());
        }
        for (int i = 0; i < TASKS; i++) {
            finished.get(i).get(60, SECONDS);
            exchange.sinkFinished(exchange.addSink(first + i), attempt);
        }
        return pages;
    }

    /** The attempt of each of the tasks from {@code first}. */
    private static Map<Integer, Integer> attempts(int first, int attempt)
    {
        return IntStream.range(first, first + TASKS).boxed()
                .collect(toMap(identity(), _ -> attempt));
    }

    private static Set<Slice> read(
            ExchangeManager node,
            ExchangeId id,
            List<ExchangeSourceHandle> handles,
            Map<Integer, Integer> attempts)
            throws Exception
    {
        ExchangeSourceOutputSelector.Builder selector =
                ExchangeSourceOutputSelector.builder(Set.of(id));
        attempts.forEach((task, attempt) -> selector.include(id, task, attempt));
        selector.setPartitionCount(id, attempts.size()).setFinal();
        return readAll(node, handles, selector.build());
    }

    private static long finishedAt(DaemonProcess daemon)
            throws Exception
    {
        return daemon.metric("stopover_sinks_finished_total");
    }

    /** From Trino 480 on the engine reads this metric. */
    private static long requests(Exchange exchange)
    {
        return ((LongCount) exchange.getMetrics().getMetrics().get("StopoverExchange.requests"))
                .getTotal();
    }

    @Test
    void testSmallSinksOfBothNodesMeetAtOneDaemonAndAreReadByBoth()
            throws Exception
    {
        ExchangeId id = createRandomExchangeId();
        Exchange exchange = exchange(nodes.getFirst(), id);
        Set<Slice> written = write(exchange, 0, 0);
        assertThat(List.of(finishedAt(stopover.first()), finishedAt(stopover.second())))
                .containsExactlyInAnyOrder((long) TASKS, 0L);
        exchange.allRequiredSinksFinished();
        List<ExchangeSourceHandle> handles =
                exchange.getSourceHandles().getNextBatch().get(60, SECONDS).handles();
        assertThat(requests(exchange))
                .as("an announcement and its confirmation, and the home was queried for "
                        + "what it has in memory: no plan")
                .isEqualTo(2 + 1);
        for (ExchangeManager node : nodes) {
            assertThat(read(node, id, handles, attempts(0, 0))).isEqualTo(written);
        }
        exchange.close();
    }

    @Test
    void testHomeThatIsKilledFailsNoAttemptOfTheOtherNode()
            throws Exception
    {
        ExchangeId id = createRandomExchangeId();
        Exchange exchange = exchange(nodes.getFirst(), id);
        Set<Slice> before = write(exchange, 0, 0);
        boolean firstIsHome = finishedAt(stopover.first()) > 0;
        (firstIsHome ? stopover.first() : stopover.second()).kill();
        Set<Slice> after = write(exchange, TASKS, 1);
        exchange.allRequiredSinksFinished();
        List<ExchangeSourceHandle> handles =
                exchange.getSourceHandles().getNextBatch().get(60, SECONDS).handles();
        Map<Integer, Integer> attempts = new HashMap<>(attempts(0, 0));
        attempts.putAll(attempts(TASKS, 1));
        Set<Slice> written = new HashSet<>(before);
        written.addAll(after);
        assertThat(written).hasSize(2 * TASKS);
        for (ExchangeManager node : nodes) {
            assertThat(read(node, id, handles, attempts)).isEqualTo(written);
        }
        exchange.close();
    }
}
