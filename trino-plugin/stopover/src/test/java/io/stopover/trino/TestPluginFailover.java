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
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSourceHandle;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

import static io.stopover.trino.FakeDaemon.answeredByAStranger;
import static io.stopover.trino.FakeDaemon.hang;
import static io.stopover.trino.FakeDaemon.hangAfterExecution;
import static io.stopover.trino.FakeDaemon.problem;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_UNAUTHORIZED;
import static io.stopover.trino.Testing.exchange;
import static io.stopover.trino.Testing.handles;
import static io.stopover.trino.Testing.readAll;
import static io.stopover.trino.Testing.sink;
import static io.stopover.trino.Testing.source;
import static io.stopover.trino.Testing.write;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowable;

/** Daemons that hang, reject or vanish, through Trino's SPI. Each case failed before. */
@Timeout(60)
class TestPluginFailover
{
    /** A request may take longer than the whole retry time, as with the default properties. */
    private static final Map<String, String> PROPERTIES = Map.of(
            "stopover.batch-size", "64kB",
            "stopover.sink-max-buffered", "256kB",
            "stopover.request-timeout", "500ms",
            "stopover.write-timeout", "500ms",
            "stopover.read-timeout", "500ms",
            "stopover.sink-retry-time", "100ms",
            "stopover.read-retry-time", "100ms",
            "stopover.coordinator-retry-time", "100ms",
            // longer than these tests: a daemon that leaves rotation stays out
            "stopover.daemon-cooldown", "1m",
            "stopover.daemon-max-cooldown", "1m");

    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final FakeDaemon first = new FakeDaemon(store);
    private final FakeDaemon second = new FakeDaemon(store);
    private final ExchangeManager manager = manager(Map.of());
    private final Exchange exchange = exchange(manager, 10, false);

    private ExchangeManager manager(Map<String, String> properties)
    {
        Map<String, String> all = new HashMap<>(PROPERTIES);
        all.putAll(properties);
        return Testing.manager(all, first, second);
    }

    @AfterEach
    void stop()
    {
        manager.shutdown();
        first.close();
        second.close();
    }

    private List<String> readPages()
            throws Exception
    {
        exchange.allRequiredSinksFinished();
        return readAll(source(manager, handles(exchange), Map.of(0, 0)));
    }

    @Test
    void testBatchWithoutResponseIsSentAgainThoughTheRetryTimeIsShorter()
            throws Exception
    {
        first.onNext("batch=1", hangAfterExecution());
        write(manager, exchange, 0, 0, pages(3));
        assertThat(first.requests("batch=1")).hasSize(2);
        assertThat(readPages()).hasSize(3);
    }

    /** The files of the exchange stayed until its lease expired. */
    @Test
    void testRemovalThatSomethingElseAnswersIsRepeated()
            throws Exception
    {
        write(manager, exchange, 0, 0, pages(1));
        first.onNext("DELETE", answeredByAStranger());
        exchange.close();
        while (store.closed.isEmpty()) {
            Thread.sleep(10);
        }
        assertThat(store.exchanges).isEmpty();
    }

    @Test
    void testCommittedFinishWithoutResponseIsConfirmedByTheOtherDaemon()
            throws Exception
    {
        first.onNext("/finish", 10, hangAfterExecution());
        write(manager, exchange, 0, 0, pages(3));
        assertThat(first.requests("/finish")).hasSize(2);
        assertThat(second.requests("/finish")).hasSize(1);
        assertThat(readPages()).hasSize(3);
    }

    @Test
    void testFinishThatNoDaemonConfirmsFails()
            throws Exception
    {
        first.onNext("/finish", 10, hang());
        ExchangeSink sink = sink(manager, exchange, 0, 0);
        sink.add(0, Slices.utf8Slice("page"));
        assertThatThrownBy(() -> sink.finish().get(20, SECONDS))
                .hasMessageContaining("gave up after")
                .hasMessageContaining("no response in time")
                .hasMessageContaining("sink-not-found");
        assertThat(second.requests("/finish")).hasSize(1);
    }

    @Test
    void testHungDaemonLeavesRotation()
            throws Exception
    {
        first.onNext("", 1000, hang());
        write(manager, exchange, 0, 0, pages(3));
        int before = first.requests("").size();
        long start = System.nanoTime();
        for (int task = 1; task < 20; task++) {
            write(manager, exchange, task, 0, pages(3));
        }
        assertThat(first.requests("")).as("requests to the hung daemon").hasSize(before);
        assertThat(System.nanoTime() - start).isLessThan(SECONDS.toNanos(10));
    }

    /** A sink waited for the write timeout of 5 minutes at a hung daemon. */
    @Test
    void testFirstBatchLeavesADaemonThatDoesNotAnswerTheDeclaration()
            throws Exception
    {
        ExchangeManager slow = manager(Map.of("stopover.write-timeout", "30s"));
        first.onNext("/sinks/0/0", 10, hang());
        long start = System.nanoTime();
        write(slow, exchange, 0, 0, pages(3));
        assertThat(System.nanoTime() - start).isLessThan(SECONDS.toNanos(10));
        assertThat(second.requests("/finish")).hasSize(1);
        slow.shutdown();
    }

    @Test
    void testDaemonThatAnswersAgainReturnsToRotation()
            throws Exception
    {
        ExchangeManager other = manager(Map.of("stopover.daemon-cooldown", "50ms"));
        first.onNext("/sinks/", problem("draining", 503, true));
        first.onNext("/sinks/", problem("draining", 503, true));
        int task = 0;
        while (first.requests("/finish").isEmpty()) {
            write(other, exchange, task++, 0, pages(3));
            MILLISECONDS.sleep(20);
        }
        assertThat(second.requests("/finish")).isNotEmpty();
        assertThat(first.probes).contains("GET /readyz");
        other.shutdown();
    }

    @Test
    void testHandleThatOneDaemonRejectsIsReadAtTheOther()
            throws Exception
    {
        write(manager, exchange, 0, 0, pages(3));
        exchange.allRequiredSinksFinished();
        List<ExchangeSourceHandle> handles = handles(exchange);
        first.onNext("/v1/read", handles.size(), problem("invalid-handle", 400, false));
        assertThat(readAll(source(manager, handles, Map.of(0, 0)))).hasSize(3);
    }

    @Test
    void testDaemonThatRejectsTheTokenIsReplacedByTheOther()
            throws Exception
    {
        ExchangeManager withToken = manager(Map.of("stopover.token", "the-new-token"));
        first.token = "the-old-token";
        second.token = "the-new-token";
        Exchange open = exchange(withToken, 10, false);
        write(withToken, open, 0, 0, pages(3));
        open.allRequiredSinksFinished();
        assertThat(readAll(source(withToken, handles(open), Map.of(0, 0)))).hasSize(3);
        withToken.shutdown();
    }

    /** Trino reported it after four attempts and 200 s. */
    @Test
    void testTokenThatAllDaemonsRejectFailsAtOnce()
    {
        first.token = "another-token";
        second.token = "another-token";
        ExchangeManager withoutToken = manager(Map.of("stopover.coordinator-retry-time", "1h"));
        Exchange rejected = exchange(withoutToken, 10, false);
        assertThatThrownBy(() -> sink(withoutToken, rejected, 0, 0)).cause()
                .isInstanceOfSatisfying(TrinoException.class, e ->
                        assertThat(e.getErrorCode()).isEqualTo(STOPOVER_UNAUTHORIZED.toErrorCode()))
                .hasMessageContaining(first.uri().toString())
                .hasMessageContaining("stopover.token");
        rejected.close();
        withoutToken.shutdown();
    }

    /** A daemon without a base directory of the others answers "announce it with PUT". */
    @Test
    void testExchangeThatOneDaemonDoesNotFindIsFoundAtTheOther()
            throws Exception
    {
        first.onNext("/sinks/", 1000, problem("exchange-not-found", 404, false));
        write(manager, exchange, 0, 0, pages(3));
        first.onNext("/handles", problem("exchange-not-found", 404, false));
        assertThat(readPages()).hasSize(3);
    }

    @Test
    void testFailureNamesDaemonExchangeRequestNodeAndWayOut()
            throws Exception
    {
        first.onNext("batch=0", 10, hang());
        second.onNext("batch=0", 10, hang());
        ExchangeSink sink = sink(manager, exchange, 0, 0);
        sink.add(0, Slices.utf8Slice("page"));
        Throwable failure = catchThrowable(() -> sink.finish().get(20, SECONDS)).getCause();
        assertThat(failure).isInstanceOf(TrinoException.class)
                .hasMessageContaining(first.uri().toString())
                .hasMessageContaining(second.uri().toString())
                .hasMessageContaining("/v1/exchanges/20261123_000000_00000_abcde-")
                .hasMessageMatching("(?s).*request [0-9a-f]{16} from node \\S.*")
                .hasMessageContaining("stopover.write-timeout");
    }

    private static List<Map.Entry<Integer, String>> pages(int count)
    {
        return IntStream.range(0, count)
                .mapToObj(i -> Map.entry(i % 10, i + "x".repeat(40_000)))
                .toList();
    }
}
