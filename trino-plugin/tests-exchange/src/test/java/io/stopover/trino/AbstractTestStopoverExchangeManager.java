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

import com.google.common.collect.ImmutableList;
import io.airlift.slice.Slice;
import io.airlift.slice.Slices;
import io.stopover.trino.testing.TestingExchangeContext;
import io.stopover.trino.testing.TestingStopover;
import io.trino.plugin.exchange.filesystem.AbstractTestExchangeManager;
import io.trino.plugin.exchange.filesystem.TestExchangeManagerContext;
import io.trino.spi.QueryId;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSinkHandle;
import io.trino.spi.exchange.ExchangeSource;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceHandleSource;
import io.trino.spi.exchange.ExchangeSourceHandleSource.ExchangeSourceHandleBatch;
import io.trino.spi.exchange.ExchangeSourceOutputSelector;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;

import static io.trino.spi.exchange.ExchangeId.createRandomExchangeId;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

/**
 * Trino's conformance test of exchange managers, run against real daemons. Two checks that are
 * specific to the stock manager (file splitting, partition limit) are replaced by checks of the
 * data: every page arrives byte for byte and in order through a daemon that did not write it, and
 * closing the exchange removes everything.
 */
@Timeout(300)
abstract class AbstractTestStopoverExchangeManager
        extends AbstractTestExchangeManager
{
    private static final int MAX_PAGE_SIZE = 16 << 20;

    private final TestingStopover.Storage storage;
    private TestingStopover stopover;
    private ExchangeManager manager;

    AbstractTestStopoverExchangeManager(TestingStopover.Storage storage)
    {
        this.storage = storage;
    }

    @Override
    protected ExchangeManager createExchangeManager()
    {
        stopover = new TestingStopover(storage);
        manager = manager(stopover.properties());
        try {
            // else the first sink is not at the home of the others, and their handles are not one
            TestStopoverHomes.awaitHomes(manager);
        }
        catch (Exception e) {
            throw new AssertionError(e);
        }
        return manager;
    }

    @AfterAll
    void stop()
    {
        if (manager != null) {
            manager.shutdown();
        }
        if (stopover != null) {
            stopover.close();
        }
    }

    @Override
    @Test
    public void testLargePages()
            throws Exception
    {
        List<Integer> sizes =
                List.of(1, 123, 66 << 10, (5 << 20) - 4, MAX_PAGE_SIZE - 4, MAX_PAGE_SIZE);
        Written written = new Written(3, false);
        for (int task = 0; task < 3; task++) {
            List<Integer> order = new ArrayList<>(sizes);
            Collections.rotate(order, task);
            written.write(manager, task, 0, order, new Random(task));
        }
        written.checkEveryPage(
                manager(Map.of("stopover.uris", stopover.second().uri().toString())));
        written.closeAndCheckRemoval();
    }

    @Override
    @Test
    public void testMaxOutputPartitionCountCheck()
    {
        try {
            Written written = new Written(2000, false);
            for (int task = 0; task < 4; task++) {
                List<Integer> sizes = new Random(task).ints(4000, 1, 2000).boxed().toList();
                written.write(manager, task, task, sizes, new Random(task));
            }
            written.checkEveryPage(
                    manager(Map.of("stopover.uris", stopover.second().uri().toString())));
            written.closeAndCheckRemoval();
        }
        catch (Exception e) {
            throw new AssertionError(e);
        }
    }

    @Test
    void testOrderedExchangeKeepsTheOrderOfEachWriter()
            throws Exception
    {
        Written written = new Written(2, true);
        for (int task = 0; task < 3; task++) {
            written.write(
                    manager, task, 0, new Random(task).ints(2000, 1, 20_000).boxed()
                    .toList(), new Random(task));
        }
        written.checkEveryPage(manager);
        written.closeAndCheckRemoval();
    }

    @Test
    void testOnlySelectedAttemptsAreRead()
            throws Exception
    {
        Written written = new Written(2, false);
        List<Integer> sizes = List.of(10, 100, 1000, 100_000);
        written.write(manager, 0, 2, sizes, new Random(1));
        ExchangeSinkHandle handle = written.exchange.addSink(0);
        ExchangeSink late =
                manager.createSink(written.exchange.instantiateSink(handle, 3).get(60, SECONDS));
        late.add(0, Slices.utf8Slice("attempt finished after another was selected"));
        late.finish().get(60, SECONDS);
        written.exchange.sinkFinished(handle, 3);
        ExchangeSink aborted =
                manager.createSink(written.exchange.instantiateSink(handle, 4).get(60, SECONDS));
        aborted.add(1, Slices.utf8Slice("aborted attempt"));
        aborted.abort().get(60, SECONDS);
        written.exchange.sinkFinished(handle, 4);
        ExchangeSink lost =
                manager.createSink(written.exchange.instantiateSink(handle, 5).get(60, SECONDS));
        lost.add(1, Slices.utf8Slice("attempt neither finished nor aborted"));
        written.checkEveryPage(manager);
        written.closeAndCheckRemoval();
    }

    @Test
    void testDataCommittedByAKilledDaemonIsReadThroughAnother()
            throws Exception
    {
        try (TestingStopover own = new TestingStopover(storage)) {
            ExchangeManager ownManager = manager(own.properties());
            Written written = new Written(ownManager, 20, false);
            written.write(
                    ownManager, 0, 0, new Random(1).ints(500, 1, 50_000).boxed()
                    .toList(), new Random(1));
            ExchangeSinkHandle handle = written.exchange.addSink(1);
            ExchangeSink unfinished =
                    ownManager.createSink(
                    written.exchange.instantiateSink(handle, 0).get(60, SECONDS));
            Slice page = Slices.wrappedBuffer(new byte[1 << 20]);
            for (int i = 0; i < 8; i++) {
                unfinished.isBlocked().get(60, SECONDS);
                unfinished.add(i, page);
            }
            // the first batch is acknowledged by now: the second is sent only after that
            unfinished.isBlocked().get(60, SECONDS);
            awaitMemory(unfinished, 5 << 20);
            own.first().kill();
            assertThatThrownBy(() -> {
                for (int i = 0; i < 8; i++) {
                    unfinished.add(i, page);
                }
                unfinished.finish().get(60, SECONDS);
            }).hasStackTraceContaining("Cannot write attempt 0 of task 1");

            written.write(
                    ownManager, 1, 1, new Random(2).ints(500, 1, 50_000).boxed()
                    .toList(), new Random(2));
            written.checkEveryPage(ownManager);
            written.exchange.close();
            ownManager.shutdown();
        }
    }

    private static void awaitMemory(ExchangeSink sink, long bytes)
            throws InterruptedException
    {
        long deadline = System.nanoTime() + SECONDS.toNanos(60);
        while (sink.getMemoryUsage() > bytes) {
            assertThat(System.nanoTime()).isLessThan(deadline);
            Thread.sleep(10);
        }
    }

    private static ExchangeManager manager(Map<String, String> properties)
    {
        return new StopoverExchangeManagerFactory()
                .create(properties, new TestExchangeManagerContext());
    }

    /** An exchange and the pages expected from it. */
    private final class Written
    {
        private final ExchangeId id = createRandomExchangeId();
        private final QueryId queryId =
                new QueryId("query_" + id.getId().replaceAll("[^a-z0-9]", ""));
        private final int partitions;
        private final boolean ordered;
        private final Exchange exchange;
        /** Pages of each task, by partition. */
        private final Map<Integer, Map<Integer, List<Slice>>> expected = new TreeMap<>();
        private final Map<Integer, Integer> attempts = new HashMap<>();

        private Written(int partitions, boolean ordered)
        {
            this(manager, partitions, ordered);
        }

        private Written(ExchangeManager exchangeManager, int partitions, boolean ordered)
        {
            this.partitions = partitions;
            this.ordered = ordered;
            exchange = exchangeManager.createExchange(
                    new TestingExchangeContext(queryId, id), partitions, ordered);
        }

        private void write(
                ExchangeManager writer, int task, int attempt, List<Integer> sizes, Random random)
                throws Exception
        {
            ExchangeSinkHandle handle = exchange.addSink(task);
            ExchangeSink sink =
                    writer.createSink(exchange.instantiateSink(handle, attempt).get(60, SECONDS));
            Map<Integer, List<Slice>> pages = new HashMap<>();
            for (int size : sizes) {
                byte[] bytes = new byte[size];
                random.nextBytes(bytes);
                int partition = random.nextInt(partitions);
                Slice page = Slices.wrappedBuffer(bytes);
                pages.computeIfAbsent(partition, _ -> new ArrayList<>()).add(page);
                sink.isBlocked().get(60, SECONDS);
                sink.add(partition, page);
            }
            sink.finish().get(60, SECONDS);
            assertThat(sink.getMemoryUsage()).isZero();
            exchange.sinkFinished(handle, attempt);
            expected.put(task, pages);
            attempts.put(task, attempt);
        }

        private void checkEveryPage(ExchangeManager reader)
                throws Exception
        {
            exchange.noMoreSinks();
            exchange.allRequiredSinksFinished();
            Map<Integer, List<ExchangeSourceHandle>> handles = new TreeMap<>();
            ExchangeSourceHandleSource batches = exchange.getSourceHandles();
            boolean last = false;
            while (!last) {
                ExchangeSourceHandleBatch batch = batches.getNextBatch().get(60, SECONDS);
                batch.handles().forEach(handle ->
                        handles.computeIfAbsent(handle.getPartitionId(), _ -> new ArrayList<>())
                                .add(handle));
                last = batch.lastBatch();
            }
            for (int partition = 0; partition < partitions; partition++) {
                List<ExchangeSourceHandle> own = handles.getOrDefault(partition, List.of());
                checkPartition(partition, own, readAll(reader, own));
            }
        }

        private void checkPartition(
                int partition, List<ExchangeSourceHandle> handles, List<Slice> read)
        {
            List<List<Slice>> writers = expected.values().stream()
                    .map(task -> task.getOrDefault(partition, List.of())).toList();
            List<Slice> all = writers.stream().flatMap(List::stream).toList();
            assertThat(handles.stream().mapToLong(ExchangeSourceHandle::getDataSizeInBytes).sum())
                    .isEqualTo(all.stream().mapToLong(Slice::length).sum());
            assertThat(handles).allMatch(handle -> handle.getDataSizeInBytes() > 0);
            assertThat(read).as("partition %s", partition).containsExactlyInAnyOrderElementsOf(all);
            if (ordered) {
                assertThat(handles).hasSizeLessThanOrEqualTo(1);
                writers.forEach(writer -> assertThat(read).containsSubsequence(writer));
            }
        }

        private List<Slice> readAll(ExchangeManager reader, List<ExchangeSourceHandle> handles)
                throws Exception
        {
            ExchangeSourceOutputSelector.Builder selector =
                    ExchangeSourceOutputSelector.builder(Set.of(id));
            attempts.forEach((task, attempt) -> selector.include(id, task, attempt));
            ImmutableList.Builder<Slice> pages = ImmutableList.builder();
            try (ExchangeSource source = reader.createSource()) {
                source.addSourceHandles(handles);
                source.setOutputSelector(
                        selector.setPartitionCount(id, attempts.size()).setFinal().build());
                source.noMoreSourceHandles();
                while (!source.isFinished()) {
                    source.isBlocked().get(60, SECONDS);
                    Slice page = source.read();
                    if (page != null) {
                        pages.add(page);
                    }
                }
            }
            return pages.build();
        }

        private void closeAndCheckRemoval()
                throws Exception
        {
            assertThat(stopover.filesOf(queryId.toString())).isNotEmpty();
            exchange.close();
            exchange.close();
            long deadline = System.nanoTime() + SECONDS.toNanos(60);
            List<Path> left = stopover.filesOf(queryId.toString());
            while (!left.isEmpty() && System.nanoTime() < deadline) {
                Thread.sleep(50);
                left = stopover.filesOf(queryId.toString());
            }
            assertThat(left).isEmpty();
        }
    }
}
