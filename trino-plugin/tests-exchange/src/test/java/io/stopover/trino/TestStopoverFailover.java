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
import io.trino.plugin.exchange.filesystem.TestExchangeManagerContext;
import io.trino.spi.ErrorType;
import io.trino.spi.QueryId;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSource;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceHandleSource;
import io.trino.spi.exchange.ExchangeSourceHandleSource.ExchangeSourceHandleBatch;
import io.trino.spi.exchange.ExchangeSourceOutputSelector;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

import static io.trino.spi.exchange.ExchangeId.createRandomExchangeId;
import static java.util.concurrent.TimeUnit.SECONDS;
import static java.util.stream.Collectors.counting;
import static java.util.stream.Collectors.groupingBy;
import static org.assertj.core.api.Assertions.assertThat;

/**
 * Kills, drains and restarts real daemons during plugin operations. Every page is compared: none is
 * lost, duplicated or read from an unselected attempt.
 */
@Timeout(300)
class TestStopoverFailover
{
    private static final int PARTITIONS = 3;

    private TestingStopover stopover;
    private ExchangeManager manager;

    @BeforeEach
    void start()
    {
        stopover = new TestingStopover(TestingStopover.Storage.LOCAL);
        Map<String, String> properties = new HashMap<>(stopover.properties());
        // small limits, so that pages are in flight when the daemon fails
        properties.put("stopover.batch-size", "64kB");
        properties.put("stopover.sink-max-buffered", "256kB");
        properties.put("stopover.read-buffer-size", "256kB");
        properties.put("stopover.max-page-size", "64kB");
        properties.put("stopover.daemon-cooldown", "1s");
        // these tests say which daemon has what
        properties.put("stopover.homes", "false");
        manager = new StopoverExchangeManagerFactory()
                .create(properties, new TestExchangeManagerContext());
    }

    @AfterEach
    void stop()
    {
        manager.shutdown();
        stopover.close();
    }

    @Test
    void testReadResumesAtAnotherDaemonWhenItsDaemonIsKilled()
            throws Exception
    {
        Written written = new Written(true);
        // exceeds the capacity of all buffers between writer and reader
        written.add(0, 0, written.write(0, 0, pagesOf(32 << 20, new Random(1))));
        List<ExchangeSourceHandle> handles = written.handles();
        List<Slice> read = new ArrayList<>();
        try (ExchangeSource source = written.source(handles)) {
            readPages(source, read, 50);
            assertThat(stopover.second().metric("stopover_reads_total")).isZero();
            stopover.first().kill();
            readPages(source, read, Integer.MAX_VALUE);
            assertThat(stopover.second().metric("stopover_reads_total")).isPositive();
        }
        // three partitions one after another, each in order
        written.checkOrdered(handles, read);
        written.exchange.close();
    }

    @Test
    void testAttemptWhoseDaemonIsKilledIsCompleteOrFailsWithARetryableError()
            throws Exception
    {
        Written written = new Written(false);
        Random random = new Random(2);
        int failed = 0;
        for (int round = 0; round < 6; round++) {
            int kill = 1 + random.nextInt(30);
            int attempt = 0;
            while (true) {
                List<Page> pages = pagesOf(1 << 20, random);
                try {
                    boolean first = attempt == 0;
                    written.add(round, attempt, written.write(round, attempt, pages, added -> {
                        if (first && added == kill) {
                            stopover.first().kill();
                        }
                    }));
                    break;
                }
                catch (TrinoException e) {
                    // Trino retries the task after an error of this type
                    assertThat(e.getErrorCode().getType()).isEqualTo(ErrorType.EXTERNAL);
                    failed++;
                }
                attempt++;
                assertThat(attempt).isLessThan(3);
            }
            stopover.first().start();
            awaitPreferred(written);
        }
        assertThat(failed).as("attempts that failed because their daemon was killed").isPositive();
        written.checkAll();
        written.exchange.close();
    }

    @Test
    void testDrainingDaemonCompletesItsSinksAndNewOnesGoToAnother()
            throws Exception
    {
        Written written = new Written(false);
        List<Page> pages = pagesOf(1 << 20, new Random(3));
        AtomicBoolean draining = new AtomicBoolean();
        written.add(0, 0, written.write(0, 0, pages, added -> {
            if (added == pages.size() / 2) {
                assertThat(openSinks(stopover.first())).isOne();
                stopover.first().terminate();
                awaitDraining(stopover.first().uri());
                // starts while the first daemon drains, and ends before the older attempt continues
                written.add(1, 0, written.write(1, 0, pagesOf(500_000, new Random(4))));
                assertThat(openSinks(stopover.first())).isOne();
                draining.set(true);
            }
        }));
        assertThat(draining).isTrue();
        assertThat(stopover.first().awaitExit()).isZero();
        written.checkAll();
        written.exchange.close();
    }

    @Test
    void testRollingRestartFailsNoAttemptAndNoRead()
            throws Exception
    {
        Written written = new Written(false);
        AtomicBoolean stopped = new AtomicBoolean();
        AtomicInteger tasks = new AtomicInteger();
        try (ExecutorService executor = Executors.newVirtualThreadPerTaskExecutor()) {
            List<Future<?>> workers = new ArrayList<>();
            for (int worker = 0; worker < 4; worker++) {
                Random random = new Random(worker);
                workers.add(executor.submit(() -> {
                    while (!stopped.get()) {
                        int task = tasks.getAndIncrement();
                        // any failure fails the test: no task is attempted twice
                        written.add(task, 0, written.write(
                                task, 0, pagesOf(300_000, random), _ -> pause(random.nextInt(10))));
                    }
                    return null;
                }));
            }
            workers.add(executor.submit(() -> {
                while (!stopped.get()) {
                    writeAndRead();
                }
                return null;
            }));
            try {
                for (int round = 0; round < 2; round++) {
                    for (var daemon : List.of(stopover.first(), stopover.second())) {
                        pause(500);
                        daemon.terminate();
                        assertThat(daemon.awaitExit()).isZero();
                        daemon.start();
                    }
                }
            }
            finally {
                stopped.set(true);
            }
            for (Future<?> worker : workers) {
                worker.get(60, SECONDS);
            }
        }
        assertThat(tasks.get()).isGreaterThan(8);
        written.checkAll();
        written.exchange.close();
    }

    /** Writes and reads a complete exchange while daemons restart. */
    private void writeAndRead()
            throws Exception
    {
        Written written = new Written(true);
        written.add(0, 0, written.write(0, 0, pagesOf(4 << 20, new Random(5))));
        List<ExchangeSourceHandle> handles = written.handles();
        List<Slice> read = new ArrayList<>();
        try (ExchangeSource source = written.source(handles)) {
            while (!source.isFinished()) {
                readPages(source, read, 10);
                pause(10);
            }
        }
        written.checkOrdered(handles, read);
        written.exchange.close();
    }

    private record Page(int partition, Slice data) {}

    private interface Progress
    {
        void added(int pages)
                throws Exception;
    }

    private static List<Page> pagesOf(int bytes, Random random)
    {
        List<Page> pages = new ArrayList<>();
        for (int remaining = bytes; remaining > 0; ) {
            byte[] page = new byte[1 + random.nextInt(30_000)];
            random.nextBytes(page);
            pages.add(new Page(random.nextInt(PARTITIONS), Slices.wrappedBuffer(page)));
            remaining -= page.length;
        }
        return pages;
    }

    private static void readPages(ExchangeSource source, List<Slice> into, int limit)
            throws Exception
    {
        for (int pages = 0; pages < limit && !source.isFinished(); ) {
            source.isBlocked().get(150, SECONDS);
            Slice page = source.read();
            if (page != null) {
                into.add(page);
                pages++;
            }
        }
    }

    private static void pause(long millis)
    {
        try {
            Thread.sleep(millis);
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(e);
        }
    }

    private static String get(URI uri)
            throws Exception
    {
        try (HttpClient client = HttpClient.newHttpClient()) {
            return client.send(HttpRequest.newBuilder(uri).build(),
                    HttpResponse.BodyHandlers.ofString()).body();
        }
    }

    private static long openSinks(DaemonProcess daemon)
            throws Exception
    {
        return daemon.metric("stopover_sinks_open");
    }

    private static void awaitDraining(URI daemon)
            throws Exception
    {
        long deadline = System.nanoTime() + SECONDS.toNanos(60);
        while (!get(daemon.resolve("/readyz")).contains("\"draining\":true")) {
            assertThat(System.nanoTime()).isLessThan(deadline);
            pause(10);
        }
    }

    /** Waits until new sinks go to the first daemon again. */
    private void awaitPreferred(Written written)
            throws Exception
    {
        long deadline = System.nanoTime() + SECONDS.toNanos(60);
        DaemonProcess first = stopover.first();
        for (int task = 1000; first.metric("stopover_batches_total") == 0; task++) {
            assertThat(System.nanoTime()).isLessThan(deadline);
            written.write(task, 0, pagesOf(1000, new Random(task)));
            pause(200);
        }
    }

    /** An exchange and the pages expected from it. */
    private final class Written
    {
        private final ExchangeId id = createRandomExchangeId();
        private final Exchange exchange;
        private final Map<Integer, List<Page>> expected = new ConcurrentHashMap<>();
        private final Map<Integer, Integer> attempts = new ConcurrentHashMap<>();

        private Written(boolean ordered)
        {
            QueryId query = new QueryId("failover_" + id.getId().replaceAll("[^a-z0-9]", ""));
            exchange = manager.createExchange(new TestingExchangeContext(query, id), PARTITIONS, ordered);
        }

        private List<Page> write(int task, int attempt, List<Page> pages)
                throws Exception
        {
            return write(task, attempt, pages, _ -> {});
        }

        /** Writes an attempt and throws its failure as Trino sees it. */
        private List<Page> write(int task, int attempt, List<Page> pages, Progress progress)
                throws Exception
        {
            ExchangeSink sink = manager.createSink(exchange.instantiateSink(
                    exchange.addSink(task), attempt).get(60, SECONDS));
            int added = 0;
            for (Page page : pages) {
                sink.isBlocked().get(60, SECONDS);
                sink.add(page.partition(), page.data());
                added++;
                progress.added(added);
            }
            try {
                sink.finish().get(60, SECONDS);
            }
            catch (ExecutionException e) {
                if (e.getCause() instanceof TrinoException failure) {
                    throw failure;
                }
                throw e;
            }
            return pages;
        }

        /** Selects a finished attempt to be read. */
        private void add(int task, int attempt, List<Page> pages)
        {
            exchange.sinkFinished(exchange.addSink(task), attempt);
            attempts.put(task, attempt);
            expected.put(task, pages);
        }

        private List<ExchangeSourceHandle> handles()
                throws Exception
        {
            exchange.noMoreSinks();
            exchange.allRequiredSinksFinished();
            List<ExchangeSourceHandle> handles = new ArrayList<>();
            ExchangeSourceHandleSource batches = exchange.getSourceHandles();
            while (true) {
                ExchangeSourceHandleBatch batch = batches.getNextBatch().get(60, SECONDS);
                handles.addAll(batch.handles());
                if (batch.lastBatch()) {
                    return handles;
                }
            }
        }

        private ExchangeSource source(List<ExchangeSourceHandle> handles)
        {
            int tasks = attempts.keySet().stream().mapToInt(task -> task + 1).max().orElse(0);
            ExchangeSourceOutputSelector.Builder selector =
                    ExchangeSourceOutputSelector.builder(Set.of(id));
            for (int task = 0; task < tasks; task++) {
                if (attempts.containsKey(task)) {
                    selector.include(id, task, attempts.get(task));
                }
                else {
                    selector.exclude(id, task);
                }
            }
            ExchangeSource source = manager.createSource();
            source.addSourceHandles(handles);
            source.setOutputSelector(selector.setPartitionCount(id, tasks).setFinal().build());
            source.noMoreSourceHandles();
            return source;
        }

        private void checkAll()
                throws Exception
        {
            List<Slice> read = new ArrayList<>();
            try (ExchangeSource source = source(handles())) {
                readPages(source, read, Integer.MAX_VALUE);
            }
            List<Slice> all = expected.values().stream()
                    .flatMap(List::stream).map(Page::data).toList();
            assertThat(read).hasSameSizeAs(all);
            assertThat(counted(read).equals(counted(all))).as("every page once").isTrue();
        }

        private static Map<Slice, Long> counted(List<Slice> pages)
        {
            return pages.stream().collect(groupingBy(page -> page, counting()));
        }

        /** Expects the pages of task 0, one partition after another in the order of the handles. */
        private void checkOrdered(List<ExchangeSourceHandle> handles, List<Slice> read)
        {
            Map<Integer, List<Slice>> byPartition = new TreeMap<>();
            expected.get(0).forEach(page -> byPartition
                    .computeIfAbsent(page.partition(), _ -> new ArrayList<>()).add(page.data()));
            List<Slice> all = handles.stream()
                    .flatMap(handle -> byPartition.get(handle.getPartitionId()).stream()).toList();
            assertThat(handles).hasSize(byPartition.size());
            assertThat(read).hasSameSizeAs(all);
            assertThat(read.equals(all)).as("every page, in order").isTrue();
        }
    }
}
