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
import io.trino.spi.ErrorType;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSource;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceOutputSelector;
import io.trino.spi.metrics.Metrics;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Future;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;

import static io.stopover.trino.FakeDaemon.corrupt;
import static io.stopover.trino.FakeDaemon.problem;
import static io.stopover.trino.FakeDaemon.problemRecord;
import static io.stopover.trino.FakeDaemon.truncate;
import static io.stopover.trino.Testing.EXCHANGE_ID;
import static io.stopover.trino.Testing.exchange;
import static io.stopover.trino.Testing.handles;
import static io.stopover.trino.Testing.manager;
import static io.stopover.trino.Testing.metric;
import static io.stopover.trino.Testing.readAll;
import static io.stopover.trino.Testing.selector;
import static io.stopover.trino.Testing.source;
import static io.stopover.trino.Testing.write;
import static java.util.concurrent.Executors.newVirtualThreadPerTaskExecutor;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

/**
 * Guarantees to a reader: each page of the selected attempts exactly once and undamaged, or an
 * error.
 */
@Timeout(60)
class TestStopoverSource
{
    private static final int PAGE = 1000;
    /** Size of a page in a response: block record, page frame header, page. */
    private static final int RECORDED = 32 + 12 + PAGE;

    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final FakeDaemon first = new FakeDaemon(store);
    private final FakeDaemon second = new FakeDaemon(store);
    private final ExchangeManager manager = manager(Map.of(), first, second);

    @AfterEach
    void stop()
    {
        manager.shutdown();
        first.close();
        second.close();
    }

    @Test
    void testReadResumesAtTheCorruptPage()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(10, false);
        first.onNext("/v1/read", corrupt(3 * RECORDED + 44 + 7));
        assertThat(readAll(source(manager, handles, Map.of(0, 0))))
                .containsExactlyElementsOf(pages(10));
        assertThat(first.requests("/v1/read")).containsExactly("POST /v1/read?skip=0");
        assertThat(second.requests("/v1/read")).containsExactly("POST /v1/read?skip=3");
    }

    @Test
    void testReadResumesWhereTheResponseWasTruncated()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(10, false);
        first.onNext("skip=0", truncate(2 * RECORDED + 500));
        second.onNext("skip=2", truncate(4 * RECORDED));
        first.onNext("skip=6", truncate(4 * RECORDED + 10));
        assertThat(readAll(source(manager, handles, Map.of(0, 0))))
                .containsExactlyElementsOf(pages(10));
        assertThat(second.requests("/v1/read")).contains("POST /v1/read?skip=10");
    }

    @Test
    void testReadContinuesAtAnotherDaemonWhenOneIsGone()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(10, false);
        first.close();
        assertThat(readAll(source(manager, handles, Map.of(0, 0))))
                .containsExactlyElementsOf(pages(10));
    }

    @Test
    void testPersistentCorruptionFailsAfterFourReads()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(10, false);
        first.onNext("/v1/read", 10, corrupt(50));
        second.onNext("/v1/read", 10, corrupt(50));
        assertFails(handles, StopoverErrorCode.STOPOVER_DATA_CORRUPT);
        assertThat(first.requests("/v1/read").size() + second.requests("/v1/read").size())
                .isEqualTo(4);
    }

    @Test
    void testReportedCorruptionIsReadFromAnotherDaemon()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(10, false);
        first.onNext("/v1/read", problem("data-corrupt", 502, true));
        assertThat(readAll(source(manager, handles, Map.of(0, 0))))
                .containsExactlyElementsOf(pages(10));
        assertThat(first.requests("/v1/read")).containsExactly("POST /v1/read?skip=0");
        assertThat(second.requests("/v1/read")).containsExactly("POST /v1/read?skip=0");
    }

    @Test
    void testCorruptionReportedInMidStreamResumesAtAnotherDaemon()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(10, false);
        first.onNext("/v1/read", problemRecord(3 * RECORDED, "data-corrupt", 502, true));
        assertThat(readAll(source(manager, handles, Map.of(0, 0))))
                .containsExactlyElementsOf(pages(10));
        assertThat(first.requests("/v1/read")).containsExactly("POST /v1/read?skip=0");
        assertThat(second.requests("/v1/read")).containsExactly("POST /v1/read?skip=3");
    }

    @Test
    void testCorruptionReportedByEveryDaemonFailsTheTaskSoon()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(10, false);
        first.onNext("skip=0", problem("data-corrupt", 502, true));
        second.onNext("skip=0", problemRecord(RECORDED, "data-corrupt", 502, true));
        first.onNext("skip=1", 10, problemRecord(0, "data-corrupt", 502, true));
        second.onNext("skip=1", 10, problem("data-corrupt", 502, true));
        assertFails(handles, StopoverErrorCode.STOPOVER_DATA_CORRUPT);
        // The page received in the second read restarts the count of four.
        assertThat(first.requests("/v1/read").size() + second.requests("/v1/read").size())
                .isEqualTo(5);
    }

    @Test
    void testLostDataFailsAtOnceAndForGood()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(10, false);
        first.onNext("/v1/read", problem("data-lost", 502, false));
        second.onNext("/v1/read", problem("data-lost", 502, false));
        assertFails(handles, StopoverErrorCode.STOPOVER_DATA_LOST);
    }

    @Test
    void testResponseShorterThanTheHandleIsCorrupt()
            throws Exception
    {
        StopoverSourceHandle handle = (StopoverSourceHandle) written(3, false).getFirst();
        assertFails(
                List.of(new StopoverSourceHandle(
                        EXCHANGE_ID,
                        0,
                        handle.bytes() + 1,
                        4,
                        false,
                        handle.handle(),
                        Optional.empty(),
                        Optional.empty())),
                StopoverErrorCode.STOPOVER_DATA_CORRUPT);
        assertFails(
                List.of(new StopoverSourceHandle(
                        EXCHANGE_ID,
                        5,
                        handle.bytes(),
                        3,
                        false,
                        handle.handle(),
                        Optional.empty(),
                        Optional.empty())),
                StopoverErrorCode.STOPOVER_DATA_CORRUPT);
    }

    @Test
    void testUnreachableDaemonsAreAnExternalErrorAfterTheRetryTime()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(3, false);
        first.close();
        second.close();
        assertFails(handles, StopoverErrorCode.STOPOVER_UNAVAILABLE);
    }

    @Test
    void testNothingIsReadBeforeTheFinalSelector()
            throws Exception
    {
        Exchange exchange = exchange(manager, 1, false);
        write(manager, exchange, 0, 3, List.of(Map.entry(0, "selected")));
        exchange.allRequiredSinksFinished();
        ExchangeSource source = manager.createSource();
        source.addSourceHandles(handles(exchange));
        ExchangeSourceOutputSelector.Builder builder =
                ExchangeSourceOutputSelector.builder(Set.of(EXCHANGE_ID));
        builder.include(EXCHANGE_ID, 0, 3);
        ExchangeSourceOutputSelector early = builder.build();
        ExchangeSourceOutputSelector last = builder.setPartitionCount(EXCHANGE_ID, 1).setFinal()
                .build();
        source.setOutputSelector(early);
        source.noMoreSourceHandles();
        CompletableFuture<Void> blocked = source.isBlocked();
        Thread.sleep(100);
        assertThat(blocked).isNotDone();
        assertThat(source.read()).isNull();
        assertThat(source.isFinished()).isFalse();
        assertThat(first.requests("/v1/read")).isEmpty();

        source.setOutputSelector(last);
        source.setOutputSelector(early);
        blocked.get(10, SECONDS);
        assertThat(readAll(source)).containsExactly("selected");
        assertThat(source.getMemoryUsage()).isZero();
    }

    @Test
    void testAttemptUnknownToTheFinalSelectorIsAnError()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(1, false);
        ExchangeSource source = manager.createSource();
        source.addSourceHandles(handles);
        source.setOutputSelector(ExchangeSourceOutputSelector.builder(Set.of(EXCHANGE_ID))
                .setPartitionCount(EXCHANGE_ID, 0).setFinal().build());
        source.isBlocked().get(10, SECONDS);
        assertThatThrownBy(source::read).isInstanceOf(TrinoException.class);
    }

    @Test
    void testHandlesOfAnOrderedExchangeAreReadInOrder()
            throws Exception
    {
        first.pagesPerHandle = 2;
        List<ExchangeSourceHandle> handles = written(40, true);
        assertThat(handles).hasSize(20);
        assertThat(readAll(source(manager, handles, Map.of(0, 0))))
                .containsExactlyElementsOf(pages(40));
    }

    @Test
    void testReadConcurrencyIsBounded()
            throws Exception
    {
        first.pagesPerHandle = 1;
        List<ExchangeSourceHandle> handles = written(10, false);
        CountDownLatch go = new CountDownLatch(1);
        first.onNext("/v1/read", 10, (daemon, request, body) -> {
            go.await();
            request.close();
        });
        ExchangeSource source = source(manager, handles, Map.of(0, 0));
        await(() -> first.requests("/v1/read").size() == 4);
        Thread.sleep(200);
        assertThat(first.requests("/v1/read")).hasSize(4);
        go.countDown();
        assertThat(readAll(source)).containsExactlyInAnyOrderElementsOf(pages(10));
    }

    @Test
    void testReadAheadIsBounded()
            throws Exception
    {
        first.pagesPerHandle = 50;
        ExchangeManager bounded = manager(Map.of("stopover.read-buffer-size", "64kB"), first);
        List<ExchangeSourceHandle> handles = written(500, false);
        ExchangeSource source = source(bounded, handles, Map.of(0, 0));
        await(() -> source.getMemoryUsage() > 60_000);
        Thread.sleep(200);
        assertThat(source.getMemoryUsage()).isLessThanOrEqualTo(64 * 1024);
        assertThat(readAll(source)).containsExactlyInAnyOrderElementsOf(pages(500));
        assertThat(source.getMemoryUsage()).isZero();
    }

    @Test
    void testStalledReaderReleasesItsConnectionAndResumes()
            throws Exception
    {
        ExchangeManager bounded = manager(Map.of("stopover.read-buffer-size", "64kB"), first);
        ExchangeSource source = source(bounded, written(500, false), Map.of(0, 0));
        await(() -> source.getMemoryUsage() > 60_000);
        SECONDS.sleep(6);
        assertThat(first.requests("/v1/read")).hasSize(1);
        assertThat(readAll(source)).containsExactlyElementsOf(pages(500));
        assertThat(first.requests("/v1/read")).contains("POST /v1/read?skip=62");
        assertThat(source.getMemoryUsage()).isZero();
    }

    @Test
    void testPageLargerThanTheBufferIsRead()
            throws Exception
    {
        ExchangeManager bounded = manager(Map.of("stopover.read-buffer-size", "64kB"), first);
        Exchange exchange = exchange(manager, 1, false);
        String large = "y".repeat(1_000_000);
        write(manager, exchange, 0, 0,
                List.of(Map.entry(0, "small"), Map.entry(0, large), Map.entry(0, large)));
        exchange.allRequiredSinksFinished();
        assertThat(readAll(source(bounded, handles(exchange), Map.of(0, 0))))
                .containsExactly("small", large, large);
    }

    @Test
    void testCloseFinishesTheSourceAndStopsItsReaders()
            throws Exception
    {
        CountDownLatch go = new CountDownLatch(1);
        List<ExchangeSourceHandle> handles = written(10, false);
        first.onNext("/v1/read", (daemon, request, body) -> go.await());
        ExchangeSource source = source(manager, handles, Map.of(0, 0));
        CompletableFuture<Void> blocked = source.isBlocked();
        source.close();
        blocked.get(10, SECONDS);
        assertThat(source.isFinished()).isTrue();
        assertThat(source.read()).isNull();
        source.close();
        source.noMoreSourceHandles();
        go.countDown();
        assertThat(second.requests("/v1/read")).isEmpty();
    }

    @Test
    void testCancelledFutureDoesNotAffectOthers()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(3, false);
        ExchangeSource source = manager.createSource();
        CompletableFuture<Void> cancelled = source.isBlocked();
        CompletableFuture<Void> other = source.isBlocked();
        cancelled.cancel(true);
        assertThat(other).isNotDone();
        source.setOutputSelector(selector(Map.of(0, 0)));
        source.addSourceHandles(handles);
        other.get(10, SECONDS);
        source.noMoreSourceHandles();
        source.noMoreSourceHandles();
        assertThat(readAll(source)).hasSize(3);
    }

    /**
     * A driver that finished between the last read of another one and its recording of the memory
     * usage failed the task.
     */
    @Test
    void testSourceIsFinishedOnlyAfterAReadReturnedNull()
            throws Exception
    {
        ExchangeSource source = source(manager, written(1, false), Map.of(0, 0));
        source.isBlocked().get(10, SECONDS);
        assertThat(source.read()).isNotNull();
        source.isBlocked().get(10, SECONDS);
        assertThat(source.isFinished()).isFalse();
        assertThat(source.read()).isNull();
        assertThat(source.isFinished()).isTrue();
        assertThat(source.read()).isNull();
    }

    @Test
    void testSourceWithoutHandlesFinishes()
            throws Exception
    {
        assertThat(readAll(source(manager, List.of(), Map.of(0, 0)))).isEmpty();
    }

    @Test
    void testConcurrentDriversAllFinish()
            throws Exception
    {
        first.pagesPerHandle = 7;
        List<ExchangeSourceHandle> handles = written(2000, false);
        for (int round = 0; round < 5; round++) {
            ExchangeSource source = source(manager, handles, Map.of(0, 0));
            List<String> all = new ArrayList<>();
            try (var executor = newVirtualThreadPerTaskExecutor()) {
                List<Future<List<String>>> drivers = new ArrayList<>();
                for (int driver = 0; driver < 6; driver++) {
                    drivers.add(executor.submit(() -> readAll(source)));
                }
                for (Future<List<String>> driver : drivers) {
                    all.addAll(driver.get(30, SECONDS));
                }
            }
            assertThat(all).containsExactlyInAnyOrderElementsOf(pages(2000));
        }
    }

    /** Planned attempts are selected by definition: dropping one silently would hide a bug. */
    @Test
    void testPlannedAttemptThatTheSelectorExcludesIsAnError()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(3, false);
        ExchangeSourceOutputSelector.Builder selector =
                ExchangeSourceOutputSelector.builder(Set.of(EXCHANGE_ID));
        selector.exclude(EXCHANGE_ID, 0);
        ExchangeSource source = manager.createSource();
        source.addSourceHandles(handles);
        source.setOutputSelector(selector.setPartitionCount(EXCHANGE_ID, 1).setFinal().build());
        source.noMoreSourceHandles();
        assertThatThrownBy(() -> readAll(source)).isInstanceOf(TrinoException.class)
                .hasMessageContaining("EXCLUDED");
        source.close();
    }

    @Test
    void testHandlesAfterNoMoreSourceHandlesAreAnError()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(3, false);
        ExchangeSource source = source(manager, handles, Map.of(0, 0));
        source.addSourceHandles(List.of());
        assertThatThrownBy(() -> source.addSourceHandles(handles))
                .hasMessageContaining("noMoreSourceHandles");
        assertThat(readAll(source)).hasSize(3);
        source.close();
        source.addSourceHandles(handles);
    }

    @Test
    void testErrorWhileReadingFailsTheSource()
            throws Exception
    {
        StopoverSource source = new StopoverSource(
                new StopoverConfig(),
                () -> {
                    throw new OutOfMemoryError("Cannot reserve direct buffer memory");
                },
                Testing.services(first));
        source.addSourceHandles(written(3, false));
        CompletableFuture<Void> blocked = source.isBlocked();
        source.setOutputSelector(selector(Map.of(0, 0)));
        source.noMoreSourceHandles();
        blocked.get(10, SECONDS);
        assertThatThrownBy(source::read).isInstanceOf(TrinoException.class)
                .hasMessageContaining("direct buffer");
        assertThat(source.getMemoryUsage()).isZero();
        source.close();
    }

    @Test
    void testThreadThatCannotStartFailsTheSource()
            throws Exception
    {
        StopoverSource source = new StopoverSource(
                new StopoverConfig(),
                Testing::backoff,
                Testing.services(
                        new VirtualThreads(_ -> {
                            throw new OutOfMemoryError("unable to create native thread");
                        }),
                        first));
        source.addSourceHandles(written(3, false));
        CompletableFuture<Void> blocked = source.isBlocked();
        source.setOutputSelector(selector(Map.of(0, 0)));
        blocked.get(10, SECONDS);
        assertThatThrownBy(source::read).hasMessageContaining("native thread");
        source.close();
    }

    @Test
    void testMemoryUsageCountsRetainedPages()
            throws Exception
    {
        ExchangeSource source = source(manager, written(1, false), Map.of(0, 0));
        source.isBlocked().get(10, SECONDS);
        long usage = source.getMemoryUsage();
        Slice page = source.read();
        assertThat(usage).isEqualTo(page.getRetainedSize()).isGreaterThan(PAGE);
        assertThat(source.getMemoryUsage()).isZero();
    }

    @Test
    void testMetricsCountPagesRequestsAndRetries()
            throws Exception
    {
        List<ExchangeSourceHandle> handles = written(10, false);
        first.onNext("/v1/read", truncate(2 * RECORDED + 500));
        ExchangeSource source = source(manager, handles, Map.of(0, 0));
        readAll(source);
        Metrics metrics = source.getMetrics().orElseThrow();
        assertThat(metric(metrics, "StopoverSource.pages")).isEqualTo(10);
        assertThat(metric(metrics, "StopoverSource.bytes")).isEqualTo(10 * PAGE);
        assertThat(metric(metrics, "StopoverSource.requests")).isEqualTo(2);
        assertThat(metric(metrics, "StopoverSource.retries")).isEqualTo(1);
    }

    private List<ExchangeSourceHandle> written(int count, boolean ordered)
            throws Exception
    {
        Exchange exchange = exchange(manager, 1, ordered);
        write(manager, exchange, 0, 0, pages(count).stream().map(page -> Map.entry(0, page))
                .toList());
        exchange.allRequiredSinksFinished();
        return handles(exchange);
    }

    private static List<String> pages(int count)
    {
        return IntStream.range(0, count).mapToObj(i -> ("%0" + PAGE + "d").formatted(i)).toList();
    }

    private void assertFails(List<ExchangeSourceHandle> handles, StopoverErrorCode code)
            throws Exception
    {
        ExchangeSource source = source(manager, handles, Map.of(0, 0));
        assertThatThrownBy(() -> readAll(source))
                .isInstanceOfSatisfying(TrinoException.class, e -> {
            assertThat(e.getErrorCode()).isEqualTo(code.toErrorCode());
            assertThat(e.getErrorCode().getType()).isEqualTo(ErrorType.EXTERNAL);
        });
        assertThat(source.isFinished()).isFalse();
        assertThat(source.getMemoryUsage()).isZero();
        source.close();
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
