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
package io.stopover.benchmark;

import io.airlift.slice.Slice;
import io.stopover.trino.testing.TestingExchangeContext;
import io.trino.spi.QueryId;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSinkHandle;
import io.trino.spi.exchange.ExchangeSinkInstanceHandle;
import io.trino.spi.exchange.ExchangeSource;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceHandleSource;
import io.trino.spi.exchange.ExchangeSourceHandleSource.ExchangeSourceHandleBatch;
import io.trino.spi.exchange.ExchangeSourceOutputSelector;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;

import static io.trino.spi.exchange.ExchangeId.createRandomExchangeId;
import static java.util.concurrent.TimeUnit.SECONDS;

/**
 * One exchange from creation to close, driven as the engine drives it. Tasks write concurrently and
 * wait while the sink is blocked; when all have finished, the coordinator lists the handles; then
 * one source per partition reads. Every page is checked. Writing and reading slots are spread
 * evenly over the nodes; each takes the next task or partition when it is free.
 */
final class Shuffle
{
    private static final long TIMEOUT_SECONDS = 600;

    /** Durations in seconds, and peaks. */
    record Outcome(
            double write,
            double plan,
            double read,
            List<Double> finishes,
            Peak sinks,
            Peak sources,
            long handles,
            long handleBytes)
    {
        double total()
        {
            return write + plan + read;
        }
    }

    private final Side side;
    private final Workload workload;
    private final Pages pages;
    private final int writers;
    private final int readers;
    private final ExchangeId id = createRandomExchangeId();
    private final Peak sinkPeak = new Peak();
    private final Peak sourcePeak = new Peak();
    private final AtomicLong handleBytes = new AtomicLong();
    private final double[] finishes;

    Shuffle(Side side, Workload workload, Pages pages, int writers, int readers)
    {
        this.side = side;
        this.workload = workload;
        this.pages = pages;
        this.writers = writers;
        this.readers = readers;
        this.finishes = new double[workload.tasks()];
    }

    /** @param afterReading runs after the last read and before the exchange is closed */
    Outcome run(QueryId query, Runnable afterReading)
    {
        long start = System.nanoTime();
        Exchange exchange = side.coordinator()
                .createExchange(
                        new TestingExchangeContext(query, id), workload.partitions(), false);
        try {
            List<ExchangeSinkHandle> sinks = IntStream.range(0, workload.tasks())
                    .mapToObj(exchange::addSink)
                    .toList();
            exchange.noMoreSinks();
            runConcurrently(
                    writers, workload.tasks(), (slot, task) ->
                            write(slot, exchange, sinks.get(task), task));
            double write = secondsSince(start);

            long planStart = System.nanoTime();
            exchange.allRequiredSinksFinished();
            Map<Integer, List<byte[]>> handles = handles(exchange);
            double plan = secondsSince(planStart);

            long readStart = System.nanoTime();
            ExchangeSourceOutputSelector selector = selector();
            runConcurrently(readers, workload.partitions(), (slot, partition) ->
                    read(slot, partition, handles.getOrDefault(partition, List.of()), selector));
            double read = secondsSince(readStart);
            afterReading.run();
            return new Outcome(
                    write,
                    plan,
                    read,
                    IntStream.range(0, finishes.length).mapToObj(i -> finishes[i]).toList(),
                    sinkPeak,
                    sourcePeak,
                    handles.values().stream().mapToLong(List::size).sum(),
                    handleBytes.get());
        }
        finally {
            exchange.close();
        }
    }

    private void write(int slot, Exchange exchange, ExchangeSinkHandle handle, int task)
    {
        byte[] instance = side.codec().encode(await(exchange.instantiateSink(handle, 0)));
        ExchangeSink sink = side.writer(slot).createSink(
                side.codec().decode(instance, ExchangeSinkInstanceHandle.class));
        try (Peak.One memory = sinkPeak.one()) {
            for (int number = 0; number < workload.pagesOfATask(); number++) {
                await(sink.isBlocked());
                sink.add(pages.partition(task, number), pages.page(task, number));
                memory.now(sink.getMemoryUsage());
            }
            long start = System.nanoTime();
            await(sink.finish());
            finishes[task] = secondsSince(start);
        }
        exchange.sinkFinished(handle, 0);
    }

    /** Encoded handles by partition. */
    private Map<Integer, List<byte[]>> handles(Exchange exchange)
    {
        Map<Integer, List<byte[]>> handles = new TreeMap<>();
        try (ExchangeSourceHandleSource batches = exchange.getSourceHandles()) {
            while (true) {
                ExchangeSourceHandleBatch batch = await(batches.getNextBatch());
                for (ExchangeSourceHandle handle : batch.handles()) {
                    byte[] encoded = side.codec().encode(handle);
                    handleBytes.addAndGet(encoded.length);
                    handles.computeIfAbsent(handle.getPartitionId(), _ -> new ArrayList<>())
                            .add(encoded);
                }
                if (batch.lastBatch()) {
                    return handles;
                }
            }
        }
    }

    private ExchangeSourceOutputSelector selector()
    {
        ExchangeSourceOutputSelector.Builder selector =
                ExchangeSourceOutputSelector.builder(Set.of(id));
        IntStream.range(0, workload.tasks()).forEach(task -> selector.include(id, task, 0));
        return selector.setPartitionCount(id, workload.tasks()).setFinal().build();
    }

    private void read(
            int slot,
            int partition,
            List<byte[]> handles,
            ExchangeSourceOutputSelector selector)
    {
        Pages.Checker checker = pages.checker(partition);
        try (ExchangeSource source = side.reader(slot).createSource();
                Peak.One memory = sourcePeak.one()) {
            source.setOutputSelector(selector);
            source.addSourceHandles(handles.stream()
                    .map(handle -> side.codec().decode(handle, ExchangeSourceHandle.class))
                    .toList());
            source.noMoreSourceHandles();
            while (!source.isFinished()) {
                await(source.isBlocked());
                Slice page = source.read();
                if (page != null) {
                    checker.accept(page);
                    memory.now(source.getMemoryUsage());
                }
            }
        }
        checker.checkComplete();
    }

    /** Receives the number of a slot and that of the job that runs in it. */
    interface Job
    {
        void run(int slot, int number);
    }

    /**
     * Runs jobs 0 to {@code count} - 1, one at a time in each of {@code slots}, and throws the
     * exception of the first slot in which one failed.
     */
    static void runConcurrently(int slots, int count, Job job)
    {
        AtomicInteger next = new AtomicInteger();
        try (ExecutorService executor = Executors.newFixedThreadPool(slots)) {
            List<Future<?>> running = new ArrayList<>();
            for (int i = 0; i < slots; i++) {
                int slot = i;
                running.add(executor.submit(() -> {
                    for (int number = next.getAndIncrement(); number < count;
                            number = next.getAndIncrement()) {
                        job.run(slot, number);
                    }
                }));
            }
            try {
                running.forEach(Shuffle::await);
            }
            catch (RuntimeException e) {
                executor.shutdownNow();
                throw e;
            }
        }
    }

    private static <T> T await(Future<T> future)
    {
        try {
            return future.get(TIMEOUT_SECONDS, SECONDS);
        }
        catch (ExecutionException e) {
            throw new IllegalStateException(e.getCause());
        }
        catch (TimeoutException e) {
            throw new IllegalStateException(
                    "no progress within %s s".formatted(TIMEOUT_SECONDS), e);
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(e);
        }
    }

    private static double secondsSince(long nanos)
    {
        return (System.nanoTime() - nanos) / 1e9;
    }
}
