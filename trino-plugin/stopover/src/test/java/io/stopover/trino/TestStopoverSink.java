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
import io.opentelemetry.api.trace.Span;
import io.stopover.trino.client.Cancellation;
import io.stopover.trino.client.DescribedExchange;
import io.stopover.trino.client.SinkId;
import io.stopover.trino.client.SinkWriter;
import io.trino.spi.ErrorType;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSinkHandle;
import io.trino.spi.metrics.Metrics;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Future;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;

import static io.stopover.trino.FakeDaemon.loseResponse;
import static io.stopover.trino.FakeDaemon.problem;
import static io.stopover.trino.Testing.exchange;
import static io.stopover.trino.Testing.handles;
import static io.stopover.trino.Testing.manager;
import static io.stopover.trino.Testing.metric;
import static io.stopover.trino.Testing.randomPage;
import static io.stopover.trino.Testing.readAll;
import static io.stopover.trino.Testing.sink;
import static io.stopover.trino.Testing.source;
import static io.stopover.trino.Testing.write;
import static java.util.concurrent.Executors.newVirtualThreadPerTaskExecutor;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

/**
 * Guarantees to a task: every page is stored exactly once, memory is bounded, no engine thread
 * blocks, and failures that a retry may fix are reported as such.
 */
@Timeout(60)
class TestStopoverSink
{
    private static final int BATCH = 64 * 1024;
    private static final Map<String, String> SMALL =
            Map.of("stopover.batch-size", "64kB", "stopover.sink-max-buffered", "256kB");

    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final FakeDaemon first = new FakeDaemon(store);
    private final FakeDaemon second = new FakeDaemon(store);
    private final ExchangeManager manager = manager(SMALL, first, second);
    private final Exchange exchange = exchange(manager, 10, false);

    @AfterEach
    void stop()
    {
        manager.shutdown();
        first.close();
        second.close();
    }

    @Test
    void testPagesOfAPartitionKeepTheirOrder()
            throws Exception
    {
        List<Map.Entry<Integer, String>> pages = IntStream.range(0, 3000)
                .mapToObj(i -> Map.entry(i % 3, "page " + i + " " + "x".repeat(100)))
                .toList();
        write(manager, exchange, 0, 0, pages);
        assertThat(first.requests("/pages").size()).isGreaterThan(3);
        exchange.allRequiredSinksFinished();
        assertThat(readAll(source(manager, handles(exchange).subList(1, 2), Map.of(0, 0))))
                .containsExactlyElementsOf(
                pages.stream().filter(page -> page.getKey() == 1).map(Map.Entry::getValue)
                        .toList());
    }

    @Test
    void testSinkIsDeclaredBeforeItsFirstBatch()
            throws Exception
    {
        ExchangeSink sink = sink(manager, exchange, 7, 2);
        await(() -> !first.requests("/sinks/7/2").isEmpty());
        assertThat(first.requests("/sinks/7/2")).singleElement().asString()
                .startsWith("PUT ").endsWith("/sinks/7/2");
        sink.abort().get(10, SECONDS);
    }

    @Test
    void testFailedDeclarationHasNoEffect()
            throws Exception
    {
        CountDownLatch never = new CountDownLatch(1);
        first.onNext("PUT .*/sinks/0/0$", (daemon, request, body) -> never.await());
        first.onNext("PUT .*/sinks/1/0$", problem("internal", 500, true));
        write(manager, exchange, 0, 0, largePages(3));
        write(manager, exchange, 1, 0, largePages(3));
        never.countDown();
        exchange.allRequiredSinksFinished();
        assertThat(readAll(source(manager, handles(exchange), Map.of(0, 0, 1, 0)))).hasSize(6);
    }

    @Test
    void testBatchesAreNumberedAndSentOneAtATime()
            throws Exception
    {
        fill(sink(manager, exchange, 0, 0), 10 * BATCH).finish().get(10, SECONDS);
        List<String> batches = first.requests("/pages");
        assertThat(batches.size()).isGreaterThan(9);
        for (int i = 0; i < batches.size(); i++) {
            assertThat(batches.get(i)).endsWith("batch=" + i);
        }
    }

    @Test
    void testBatchWithALostResponseIsResentAndStoredOnce()
            throws Exception
    {
        Exchange alone = exchange(manager(SMALL, first), 10, false);
        first.onNext("batch=0", loseResponse());
        first.onNext("batch=2", loseResponse());
        first.onNext("/finish", loseResponse());
        ExchangeManager single = manager(SMALL, first);
        write(single, alone, 0, 0, largePages(10));
        assertThat(first.requests("batch=0")).hasSize(2);
        assertThat(first.requests("batch=2")).hasSize(2);
        assertThat(first.requests("/finish")).hasSize(2);
        alone.allRequiredSinksFinished();
        assertThat(readAll(source(single, handles(alone), Map.of(0, 0)))).hasSize(10);
        alone.close();
    }

    @Test
    void testBatchDamagedInTransitIsResent()
            throws Exception
    {
        first.onNext("batch=1", problem("checksum-mismatch", 400, true));
        write(manager, exchange, 0, 0, largePages(10));
        assertThat(first.requests("batch=1")).hasSize(2);
    }

    @Test
    void testNewSinkUsesTheNextDaemonWhenTheFirstDrainsOrIsGone()
            throws Exception
    {
        first.onNext("/pages", problem("draining", 503, true));
        write(manager, exchange, 0, 0, largePages(3));
        assertThat(first.requests("/pages")).hasSize(1);
        assertThat(second.requests("/pages")).isNotEmpty();
        first.close();
        write(manager, exchange, 1, 0, largePages(3));
        exchange.allRequiredSinksFinished();
        assertThat(readAll(source(manager, handles(exchange), Map.of(0, 0, 1, 0)))).hasSize(6);
    }

    @Test
    void testSinkStaysAtTheDaemonOfItsFirstBatch()
            throws Exception
    {
        first.onNext("batch=1", 3, problem("overloaded", 503, true));
        write(manager, exchange, 0, 0, largePages(10));
        assertThat(first.requests("batch=1")).hasSize(4);
        assertThat(second.requests("/pages")).isEmpty();
    }

    @Test
    void testSinkFailsSoonAndRetryablyWhenItsDaemonIsGone()
            throws Exception
    {
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), 2 * BATCH);
        await(() -> first.requests("/pages").size() >= 2);
        first.close();
        sink.add(0, randomPage(new Random(1), BATCH));
        assertThatThrownBy(() -> sink.finish().get(10, SECONDS)).cause()
                .isInstanceOfSatisfying(TrinoException.class, e -> {
            assertThat(e.getErrorCode())
                    .isEqualTo(StopoverErrorCode.STOPOVER_SINK_LOST.toErrorCode());
            assertThat(e.getErrorCode().getType()).isEqualTo(ErrorType.EXTERNAL);
        });
        assertThat(sink.getMemoryUsage()).isZero();
        assertThat(sink.isBlocked()).isDone();
        write(manager, exchange, 0, 1, largePages(2));
    }

    @Test
    void testFailedSinkThrowsFromAddAndIsAbortedAtTheDaemon()
            throws Exception
    {
        first.onNext("batch=1", problem("sink-failed", 503, false));
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), 3 * BATCH);
        await(() -> !first.requests("/abort").isEmpty());
        assertThatThrownBy(() -> sink.add(0, Slices.utf8Slice("x")))
                .isInstanceOfSatisfying(TrinoException.class, e ->
                assertThat(e.getErrorCode())
                        .isEqualTo(StopoverErrorCode.STOPOVER_SINK_LOST.toErrorCode()));
        assertThatThrownBy(() -> sink.finish().get(10, SECONDS))
                .hasMessageContaining("sink-failed");
        sink.abort().get(10, SECONDS);
        assertThat(first.requests("/abort")).hasSize(1);
    }

    @Test
    void testAnotherDaemonConfirmsACommitWhoseResponseAndDaemonAreLost()
            throws Exception
    {
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), 3 * BATCH);
        first.onNext("/finish", (daemon, request, body) -> {
            loseResponse().apply(daemon, request, body);
            Thread.startVirtualThread(first::close);
        });
        sink.finish().get(20, SECONDS);
        assertThat(second.requests("/finish")).isNotEmpty();
    }

    @Test
    void testFinishOfAnUnknownSinkFails()
            throws Exception
    {
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), 3 * BATCH);
        first.onNext("/finish", problem("sink-not-found", 404, false));
        assertThatThrownBy(() -> sink.finish().get(10, SECONDS))
                .hasMessageContaining("sink-not-found");
        assertThat(first.requests("/finish")).hasSize(1);
    }

    @Test
    void testEmptyAttemptIsCommittedByAnyDaemon()
            throws Exception
    {
        first.onNext("/finish", loseResponse());
        sink(manager, exchange, 0, 0).finish().get(10, SECONDS);
        assertThat(first.requests("/finish").size() + second.requests("/finish").size())
                .isEqualTo(2);
        assertThat(first.requests("/pages")).isEmpty();
    }

    @Test
    void testAbortIsIdempotentAndLaterCallsAreIgnored()
            throws Exception
    {
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), 3 * BATCH);
        sink.abort().get(10, SECONDS);
        sink.abort().get(10, SECONDS);
        sink.add(0, Slices.utf8Slice("late"));
        assertThat(sink.getMemoryUsage()).isZero();
        assertThat(sink.isBlocked()).isDone();
        assertThat(sink.finish()).isCompletedExceptionally();
        assertThat(first.requests("/abort").size()).isLessThanOrEqualTo(1);
        assertThat(first.requests("/finish")).isEmpty();
    }

    @Test
    void testAbortCancelsABatchInFlight()
            throws Exception
    {
        CountDownLatch go = new CountDownLatch(1);
        first.onNext("batch=0", (daemon, request, body) -> go.await());
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), 6 * BATCH);
        CompletableFuture<Void> blocked = sink.isBlocked();
        await(() -> !first.requests("batch=0").isEmpty());
        sink.abort().get(10, SECONDS);
        assertThat(blocked).isDone();
        assertThat(sink.getMemoryUsage()).isZero();
        await(() -> first.requests("/abort").size() == 1);
        go.countDown();
    }

    @Test
    void testAbortDuringFinishCompletesBothFutures()
            throws Exception
    {
        CountDownLatch go = new CountDownLatch(1);
        first.onNext("/finish", (daemon, request, body) -> go.await());
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), 2 * BATCH);
        CompletableFuture<Void> finish = sink.finish();
        await(() -> !first.requests("/finish").isEmpty());
        CompletableFuture<Void> abort = sink.abort();
        assertThatThrownBy(() -> finish.get(10, SECONDS)).hasMessageContaining("Aborted");
        abort.get(10, SECONDS);
        go.countDown();
    }

    @Test
    void testAbortAfterFinishHasNoEffect()
            throws Exception
    {
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), 2 * BATCH);
        sink.finish().get(10, SECONDS);
        sink.abort().get(10, SECONDS);
        sink.finish().get(10, SECONDS);
        assertThat(first.requests("/abort")).isEmpty();
        assertThat(first.requests("/finish")).hasSize(1);
    }

    @Test
    void testSinkUnblocksByItselfOnceDrained()
            throws Exception
    {
        CountDownLatch go = new CountDownLatch(1);
        first.onNext("batch=0", (daemon, request, body) -> {
            go.await();
            request.close();
        });
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), 6 * BATCH);
        CompletableFuture<Void> blocked = sink.isBlocked();
        assertThat(blocked).isNotDone();
        assertThat(sink.isBlocked().cancel(true)).isTrue();
        sink.add(3, Slices.utf8Slice("accepted although blocked"));
        go.countDown();
        blocked.get(10, SECONDS);
        sink.finish().get(10, SECONDS);
        assertThat(sink.getMemoryUsage()).isZero();
    }

    @Test
    void testCancelledFinishFutureDoesNotCancelTheFinish()
            throws Exception
    {
        CountDownLatch go = new CountDownLatch(1);
        first.onNext("/finish", (daemon, request, body) -> {
            go.await();
            request.close();
        });
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), BATCH);
        assertThat(sink.finish().cancel(true)).isTrue();
        go.countDown();
        sink.finish().get(10, SECONDS);
    }

    @Test
    void testConcurrentAddsLoseNothing()
            throws Exception
    {
        ExchangeSinkHandle handle = exchange.addSink(0);
        ExchangeSink sink =
                manager.createSink(exchange.instantiateSink(handle, 0).get(10, SECONDS));
        try (var executor = newVirtualThreadPerTaskExecutor()) {
            List<Future<?>> drivers = new ArrayList<>();
            for (int driver = 0; driver < 8; driver++) {
                int number = driver;
                drivers.add(executor.submit(() -> {
                    for (int i = 0; i < 500; i++) {
                        sink.isBlocked().get(10, SECONDS);
                        sink.add(i % 10, Slices.utf8Slice(number + ":" + i + "x".repeat(500)));
                    }
                    return null;
                }));
            }
            for (Future<?> driver : drivers) {
                driver.get(30, SECONDS);
            }
        }
        sink.finish().get(10, SECONDS);
        exchange.sinkFinished(handle, 0);
        exchange.allRequiredSinksFinished();
        assertThat(readAll(source(manager, handles(exchange), Map.of(0, 0))))
                .doesNotHaveDuplicates().hasSize(4000);
    }

    @Test
    void testTwoThousandPartitionsUseLessThan64MiB()
            throws Exception
    {
        int partitions = 2000;
        ExchangeManager defaults = manager(Map.of(), first);
        Exchange wide = exchange(defaults, partitions, false);
        ExchangeSinkHandle handle = wide.addSink(0);
        ExchangeSink sink = defaults.createSink(wide.instantiateSink(handle, 0).get(10, SECONDS));
        Random random = new Random(1);
        long most = 0;
        // The engine flushes up to 32 MB over all partitions at once, even if the sink is blocked.
        for (int round = 0; round < 4; round++) {
            sink.isBlocked().get(30, SECONDS);
            for (int partition = 0; partition < partitions; partition++) {
                sink.add(partition, randomPage(random, 16 * 1024));
                most = Math.max(most, sink.getMemoryUsage());
            }
        }
        // At least one batch is buffered; more depends on the speed of the daemon.
        assertThat(most).isBetween(1L << 20, 64L << 20);
        sink.finish().get(30, SECONDS);
        wide.sinkFinished(handle, 0);
        wide.allRequiredSinksFinished();
        assertThat(handles(wide)).hasSize(partitions);
        wide.close();
        defaults.shutdown();
    }

    @Test
    void testMemoryUsageCountsRetainedArrays()
            throws Exception
    {
        ExchangeSink sink = sink(manager, exchange, 0, 0);
        Slice large = Slices.allocate(1 << 20);
        sink.add(0, large.slice(0, 10_000));
        assertThat(sink.getMemoryUsage()).isBetween(10_000L, 12_000L);
        sink.abort().get(10, SECONDS);
    }

    @Test
    void testOversizedPageIsAUserErrorThatNamesTheProperty()
            throws Exception
    {
        ExchangeSink sink =
                sink(manager(Map.of("stopover.max-page-size", "64kB"), first), exchange, 0, 0);
        assertThatThrownBy(() -> sink.add(0, Slices.allocate(64 * 1024 + 1)))
                .isInstanceOfSatisfying(TrinoException.class, e ->
                        assertThat(e.getErrorCode())
                                .isEqualTo(StopoverErrorCode.STOPOVER_PAGE_TOO_LARGE.toErrorCode()))
                .hasMessageContaining("stopover.max-page-size");
    }

    @Test
    void testAbortDoesNotWaitForTheDaemon()
            throws Exception
    {
        CountDownLatch go = new CountDownLatch(1);
        first.onNext("batch=1", (daemon, request, body) -> go.await());
        first.onNext("/abort", (daemon, request, body) -> go.await());
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), 6 * BATCH);
        await(() -> !first.requests("batch=1").isEmpty());
        sink.abort().get(2, SECONDS);
        assertThat(sink.getMemoryUsage()).isZero();
        go.countDown();
    }

    /** The batch in flight is held until its request has ended. */
    @Test
    void testMemoryIsReportedUntilThePagesAreReleased()
            throws Exception
    {
        CountDownLatch go = new CountDownLatch(1);
        first.onNext("batch=0", (daemon, request, body) -> go.await());
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), 6 * BATCH);
        await(() -> !first.requests("batch=0").isEmpty());
        assertThat(sink.getMemoryUsage()).isGreaterThan(6 * BATCH);
        CompletableFuture<Void> aborted = sink.abort();
        if (!aborted.isDone()) {
            assertThat(sink.getMemoryUsage()).isLessThan(2 * BATCH);
        }
        aborted.get(10, SECONDS);
        assertThat(sink.getMemoryUsage()).isZero();
        go.countDown();
    }

    /** "Cannot reserve direct buffer memory" does not terminate Trino's JVM. */
    @Test
    void testErrorWhileSendingCompletesAllFutures()
            throws Exception
    {
        StopoverSink sink = sinkThatFails(Testing.services(first));
        sink.add(0, randomPage(new Random(1), 6 * BATCH));
        CompletableFuture<Void> blocked = sink.isBlocked();
        CompletableFuture<Void> finish = sink.finish();
        assertThatThrownBy(() -> finish.get(10, SECONDS)).hasMessageContaining("direct buffer");
        blocked.get(10, SECONDS);
        sink.abort().get(10, SECONDS);
        assertThat(sink.getMemoryUsage()).isZero();
        assertThatThrownBy(() -> sink.add(0, Slices.utf8Slice("x")))
                .isInstanceOf(TrinoException.class);
    }

    @Test
    void testThreadThatCannotStartCompletesAllFutures()
            throws Exception
    {
        StopoverSink sink = sinkThatFails(Testing.services(
                new VirtualThreads(_ -> {
                    throw new OutOfMemoryError("unable to create native thread");
                }),
                first));
        CompletableFuture<Void> finish = sink.finish();
        assertThatThrownBy(() -> finish.get(10, SECONDS)).hasMessageContaining("native thread");
        sink.abort().get(10, SECONDS);
    }

    private static StopoverSink sinkThatFails(Services services)
    {
        DescribedExchange exchange = new DescribedExchange("exchange", Optional.empty());
        SinkId id = new SinkId(exchange, 0, 0);
        Cancellation cancellation = new Cancellation();
        SinkWriter writer = new SinkWriter(
                services.client(),
                services.failover(),
                services.fleet(),
                id,
                Optional.empty(),
                () -> {
                    throw new OutOfMemoryError("Cannot reserve direct buffer memory");
                },
                cancellation);
        return new StopoverSink(
                id,
                10,
                new StopoverSink.Sizes(BATCH, 4 * BATCH, 16 * BATCH),
                writer,
                Testing::backoff,
                cancellation,
                services,
                Span.getInvalid());
    }

    @Test
    void testMetricsCountPagesRequestsRetriesAndBlockedTime()
            throws Exception
    {
        first.onNext("batch=1", problem("checksum-mismatch", 400, true));
        first.onNext("batch=2", (daemon, request, body) -> {
            MILLISECONDS.sleep(300);
            request.close();
        });
        ExchangeSink sink = fill(sink(manager, exchange, 0, 0), 10 * BATCH);
        sink.isBlocked().get(10, SECONDS);
        sink.finish().get(10, SECONDS);
        Metrics metrics = sink.getMetrics().orElseThrow();
        assertThat(metric(metrics, "StopoverSink.pages")).isEqualTo(40);
        assertThat(metric(metrics, "StopoverSink.bytes")).isEqualTo(10 * BATCH);
        assertThat(metric(metrics, "StopoverSink.retries")).isEqualTo(2);
        assertThat(metric(metrics, "StopoverSink.requests")).isEqualTo(
                first.requests("/pages").size() + first.requests("/finish").size());
        assertThat(metric(metrics, "StopoverSink.blockedMillis")).isGreaterThan(100);
    }

    private static ExchangeSink fill(ExchangeSink sink, int bytes)
    {
        Random random = new Random(bytes);
        for (int written = 0; written < bytes; written += BATCH / 4) {
            sink.add(random.nextInt(10), randomPage(random, BATCH / 4));
        }
        return sink;
    }

    private static List<Map.Entry<Integer, String>> largePages(int count)
    {
        return IntStream.range(0, count).mapToObj(i -> Map.entry(i % 10, i + "x".repeat(BATCH / 2)))
                .toList();
    }

    private static void await(BooleanSupplier condition)
            throws InterruptedException
    {
        long deadline = System.nanoTime() + SECONDS.toNanos(20);
        while (!condition.getAsBoolean()) {
            assertThat(System.nanoTime()).isLessThan(deadline);
            Thread.sleep(10);
        }
    }
}
