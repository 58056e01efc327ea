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
import io.stopover.trino.FakeDaemon.Fault;
import io.stopover.trino.testing.FaultyProxy;
import io.stopover.trino.testing.Leftovers;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSinkHandle;
import io.trino.spi.exchange.ExchangeSource;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceHandleSource.ExchangeSourceHandleBatch;
import org.junit.jupiter.api.Test;

import java.io.IOException;
import java.net.ServerSocket;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

import static io.stopover.trino.Testing.exchange;
import static io.stopover.trino.Testing.metric;
import static io.stopover.trino.Testing.selector;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.NANOSECONDS;
import static org.assertj.core.api.Assertions.assertThat;

/**
 * Daemons that answer with every fault at random: slow, silent, truncated, reset, refused, 4xx,
 * 5xx, noise, lost memory, failing DNS and TLS. Every operation ends within its bound, no page is
 * lost or duplicated, and no thread, connection or byte is left.
 *
 * <p>{@code mvn test -Dtest=TestRandomFaults -Dstopover.test.fault-operations=100000} runs more
 * operations, {@code -Dstopover.test.fault-seed=N} others.
 */
class TestRandomFaults
{
    private static final int OPERATIONS =
            Integer.getInteger("stopover.test.fault-operations", 3_000);
    private static final long SEED = Long.getLong("stopover.test.fault-seed", 1);
    private static final int CONCURRENCY = 16;
    private static final int TASKS = 4;
    private static final int PARTITIONS = 3;
    private static final int MAX_ATTEMPTS = 20;
    private static final int TIMEOUT_MILLIS = 400;
    private static final int RETRY_MILLIS = 1_000;
    private static final int URIS = 4;
    /** The documented bound of an operation, and time for a machine that is busy. */
    private static final long BOUND_MILLIS =
            2 * URIS * TIMEOUT_MILLIS + 2 * TIMEOUT_MILLIS + RETRY_MILLIS + 20_000;
    private static final long LEFTOVER_SECONDS = 2 * MILLISECONDS.toSeconds(BOUND_MILLIS);
    private static final List<String> PROBLEMS = List.of(
            "invalid-request", "checksum-mismatch", "invalid-handle", "unauthorized", "forbidden",
            "not-found", "exchange-not-found", "sink-not-found", "method-not-allowed",
            "exchange-conflict", "batch-out-of-order", "count-mismatch", "sink-failed",
            "attempt-not-committed", "exchange-closed", "data-lost", "data-corrupt",
            "storage-unavailable", "draining", "overloaded", "timeout", "internal", "unheard-of");

    private final AtomicInteger operations = new AtomicInteger();
    private final AtomicInteger failures = new AtomicInteger();
    private final AtomicInteger verifiedPages = new AtomicInteger();
    private final AtomicLong homeBytes = new AtomicLong();
    private final AtomicLong hotBytes = new AtomicLong();
    private final Map<String, Long> slowestMillis = new ConcurrentHashMap<>();

    /** Ids of threads that other tests in this JVM have left. */
    private final Set<String> otherThreads = new HashSet<>();
    private int threadsSeen;
    private int connectionsSeen;

    @Test
    void testEveryOperationEndsAndNoPageIsLostOrDuplicated()
            throws Exception
    {
        threads().forEach(thread -> otherThreads.add(id(thread)));
        FakeDaemon.Store store = new FakeDaemon.Store();
        try (FakeDaemon first = new FakeDaemon(store);
                FakeDaemon second = new FakeDaemon(store);
                FaultyProxy firstProxy = proxy(first, SEED);
                FaultyProxy secondProxy = proxy(second, SEED + 1);
                ServerSocket notTls = new ServerSocket(0)) {
            closeConnections(notTls);
            Random random = new Random(SEED);
            // the name that does not exist could be another machine
            first.setAdvertise("http://first.test:7077");
            second.setAdvertise("http://second.test:7077");
            first.remembers = true;
            // Daemons that never answer are told of a close for as long as that.
            first.leaseSeconds = 20;
            second.leaseSeconds = 20;
            second.remembers = true;
            first.chaos = () -> randomFault(random);
            second.chaos = () -> randomFault(random);
            ExchangeManager manager = manager(
                    firstProxy.uri().toString(),
                    secondProxy.uri().toString(),
                    "http://unknown-host.invalid:7077",
                    "https://127.0.0.1:" + notTls.getLocalPort());
            try (ExecutorService executor = Executors.newVirtualThreadPerTaskExecutor()) {
                List<Future<?>> workers = new ArrayList<>();
                for (int worker = 0; worker < CONCURRENCY; worker++) {
                    long seed = SEED * CONCURRENCY + worker;
                    workers.add(executor.submit(() -> {
                        Random own = new Random(seed);
                        while (operations.get() < OPERATIONS) {
                            runExchange(manager, own);
                        }
                        return null;
                    }));
                }
                while (workers.stream().noneMatch(Future::isDone)) {
                    restart(random.nextBoolean() ? first : second,
                            random.nextBoolean() ? firstProxy : secondProxy);
                    Thread.sleep(300);
                    threadsSeen = Math.max(threadsSeen, threads().size());
                    connectionsSeen = Math.max(connectionsSeen,
                            Leftovers.connections(
                                    Set.of(firstProxy.port(), secondProxy.port())).size());
                }
                for (Future<?> worker : workers) {
                    worker.get();
                }
            }
            first.chaos = Optional::empty;
            second.chaos = Optional::empty;
            firstProxy.heal();
            secondProxy.heal();
            assertNothingIsLeft(manager, Set.of(firstProxy.port(), secondProxy.port()));
        }
        assertThat(homeBytes.get()).as("bytes written at a home").isPositive();
        assertThat(hotBytes.get()).as("bytes read from memory").isPositive();
        System.out.printf("%s operations, %s failures, %s pages verified, slowest in ms: %s%n",
                operations, failures, verifiedPages, slowestMillis);
        assertThat(failures.get()).as("faults that no retry cured").isPositive();
        assertThat(verifiedPages.get()).isGreaterThan(OPERATIONS / 10);
        assertThat(threadsSeen).as("threads are counted").isPositive();
        assertThat(connectionsSeen).as("connections are counted").isPositive();
    }

    private static FaultyProxy proxy(FakeDaemon daemon, long seed)
            throws IOException
    {
        return new FaultyProxy(
                daemon.port(), seed, 0.03, FaultyProxy.Fault.OF_CONNECTIONS, 2 * TIMEOUT_MILLIS);
    }

    private static void restart(FakeDaemon daemon, FaultyProxy proxy)
            throws Exception
    {
        daemon.restart();
        proxy.restart(30);
    }

    private static void closeConnections(ServerSocket server)
    {
        Thread.startVirtualThread(() -> {
            while (true) {
                try {
                    server.accept().close();
                }
                catch (IOException e) {
                    return;
                }
            }
        });
    }

    private static ExchangeManager manager(String... uris)
    {
        Map<String, String> properties = new HashMap<>();
        properties.put("stopover.uris", String.join(",", uris));
        properties.put("stopover.homes", "true");
        properties.put("stopover.home-timeout", TIMEOUT_MILLIS + "ms");
        properties.put("stopover.batch-size", "64kB");
        properties.put("stopover.sink-max-buffered", "256kB");
        properties.put("stopover.read-buffer-size", "64kB");
        properties.put("stopover.connect-timeout", TIMEOUT_MILLIS + "ms");
        properties.put("stopover.request-timeout", TIMEOUT_MILLIS + "ms");
        properties.put("stopover.write-timeout", TIMEOUT_MILLIS + "ms");
        properties.put("stopover.read-timeout", TIMEOUT_MILLIS + "ms");
        properties.put("stopover.coordinator-retry-time", RETRY_MILLIS + "ms");
        properties.put("stopover.sink-retry-time", RETRY_MILLIS + "ms");
        properties.put("stopover.read-retry-time", RETRY_MILLIS + "ms");
        properties.put("stopover.retry-initial-delay", "1ms");
        properties.put("stopover.retry-max-delay", "50ms");
        properties.put("stopover.daemon-cooldown", "10ms");
        properties.put("stopover.daemon-max-cooldown", "200ms");
        return Testing.manager(properties);
    }

    private static Optional<Fault> randomFault(Random shared)
    {
        // one generator for all requests: which request gets which fault depends on their order
        synchronized (shared) {
            if (shared.nextInt(100) >= 15) {
                return Optional.empty();
            }
            return Optional.of(switch (shared.nextInt(9)) {
                case 0 -> FakeDaemon.delay(shared.nextInt(2 * TIMEOUT_MILLIS));
                case 1 -> FakeDaemon.trickle(1 + shared.nextInt(20), shared.nextInt(50));
                case 2 -> FakeDaemon.silence(2 * TIMEOUT_MILLIS, shared.nextBoolean());
                case 3 -> FakeDaemon.loseResponse();
                case 4 -> FakeDaemon.truncateAt(shared.nextDouble());
                case 5 -> FakeDaemon.answeredByAStranger();
                case 6 -> (daemon, request, body) -> {
                    request.sendResponseHeaders(502, 0);
                    request.close();
                };
                default -> FakeDaemon.problem(
                        PROBLEMS.get(shared.nextInt(PROBLEMS.size())),
                        shared.nextBoolean() ? 400 : 503,
                        shared.nextInt(4) > 0);
            });
        }
    }

    /** Writes, plans and reads one exchange, repeating failed attempts as Trino does. */
    private void runExchange(ExchangeManager manager, Random random)
            throws Exception
    {
        Exchange exchange = exchange(manager, PARTITIONS, false);
        Map<Integer, Integer> attempts = new TreeMap<>();
        Set<String> expected = new HashSet<>();
        try {
            for (int task = 0; task < TASKS; task++) {
                for (int attempt = 0; !attempts.containsKey(task); attempt++) {
                    assertThat(attempt).as("attempts of one task").isLessThan(MAX_ATTEMPTS);
                    Optional<Set<String>> written = write(manager, exchange, task, attempt, random);
                    if (written.isPresent()) {
                        attempts.put(task, attempt);
                        expected.addAll(written.get());
                    }
                }
            }
            exchange.noMoreSinks();
            exchange.allRequiredSinksFinished();
            ExchangeSourceHandleBatch planned =
                    await("plan", exchange.getSourceHandles().getNextBatch(), 1);
            assertThat(planned.lastBatch()).isTrue();
            read(manager, planned.handles(), attempts, expected);
        }
        catch (TrinoException e) {
            // the query fails, as failures of the coordinator are not repeated
            failures.incrementAndGet();
        }
        finally {
            exchange.close();
            operations.incrementAndGet();
        }
    }

    /** The pages of the attempt if it was committed; throws if the whole exchange failed. */
    private Optional<Set<String>> write(
            ExchangeManager manager, Exchange exchange, int task, int attempt, Random random)
            throws Exception
    {
        ExchangeSinkHandle handle = exchange.addSink(task);
        ExchangeSink sink = manager.createSink(
                await("announce", exchange.instantiateSink(handle, attempt), 1));
        int count = random.nextInt(12);
        Set<String> pages = new HashSet<>();
        try {
            for (int page = 0; page < count; page++) {
                String content = "%s/%s/%s ".formatted(task, attempt, page)
                        + "x".repeat(random.nextInt(40_000));
                await("write", sink.isBlocked(), 4);
                sink.add(random.nextInt(PARTITIONS), Slices.utf8Slice(content));
                pages.add(content);
            }
            if (random.nextInt(10) == 0) {
                await("abort", sink.abort(), 4);
                return Optional.empty();
            }
            await("finish", sink.finish(), 1 + count);
            exchange.sinkFinished(handle, attempt);
            homeBytes.addAndGet(
                    metric(sink.getMetrics().orElseThrow(), "StopoverSink.homeBytes"));
            return Optional.of(pages);
        }
        catch (TrinoException e) {
            failures.incrementAndGet();
            await("abort", sink.abort(), 4);
            return Optional.empty();
        }
        finally {
            assertThat(sink.isBlocked()).isDone();
            assertThat(sink.getMemoryUsage()).as("bytes of a sink that ended").isZero();
        }
    }

    private void read(
            ExchangeManager manager,
            List<ExchangeSourceHandle> handles,
            Map<Integer, Integer> attempts,
            Set<String> expected)
            throws Exception
    {
        for (int attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
            List<String> pages = new ArrayList<>();
            ExchangeSource source = manager.createSource();
            try {
                source.addSourceHandles(handles);
                source.setOutputSelector(selector(attempts));
                source.noMoreSourceHandles();
                while (!source.isFinished()) {
                    await("read", source.isBlocked(), 2);
                    Slice page = source.read();
                    if (page != null) {
                        pages.add(page.toStringUtf8());
                    }
                }
                assertThat(pages).hasSameSizeAs(expected);
                assertThat(expected.equals(Set.copyOf(pages))).as("every page once").isTrue();
                verifiedPages.addAndGet(pages.size());
                hotBytes.addAndGet(
                        metric(source.getMetrics().orElseThrow(), "StopoverSource.homeBytes"));
                return;
            }
            catch (TrinoException e) {
                failures.incrementAndGet();
                assertThat(pages).doesNotHaveDuplicates();
                assertThat(expected.containsAll(pages)).as("only pages that were written").isTrue();
            }
            finally {
                source.close();
                assertThat(source.getMemoryUsage()).as("bytes of a closed source").isZero();
            }
        }
    }

    /** @param requests how many requests, one after another, the operation may consist of */
    private <T> T await(String operation, CompletableFuture<T> future, int requests)
            throws Exception
    {
        long start = System.nanoTime();
        try {
            return future.get(requests * BOUND_MILLIS, MILLISECONDS);
        }
        catch (ExecutionException e) {
            if (e.getCause() instanceof TrinoException failure) {
                throw failure;
            }
            throw new AssertionError("not a TrinoException", e.getCause());
        }
        catch (TimeoutException e) {
            throw new AssertionError(
                    "%s not ended after %s ms".formatted(operation, requests * BOUND_MILLIS), e);
        }
        finally {
            operations.incrementAndGet();
            slowestMillis.merge(
                    operation,
                    NANOSECONDS.toMillis(System.nanoTime() - start) / requests,
                    Math::max);
        }
    }

    private void assertNothingIsLeft(ExchangeManager manager, Set<Integer> ports)
            throws Exception
    {
        // exchanges are removed in the background
        assertThat(Leftovers.await(this::threads, LEFTOVER_SECONDS)).isEmpty();
        manager.shutdown();
        assertThat(Leftovers.await(() -> Leftovers.connections(ports), LEFTOVER_SECONDS)).isEmpty();
        assertThat(threads()).isEmpty();
    }

    private List<String> threads()
    {
        return Leftovers.threads().stream()
                .filter(thread -> !otherThreads.contains(id(thread)))
                .toList();
    }

    private static String id(String thread)
    {
        return thread.substring(0, thread.indexOf(' '));
    }
}
