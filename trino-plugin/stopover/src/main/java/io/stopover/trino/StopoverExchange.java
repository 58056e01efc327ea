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

import io.airlift.log.Logger;
import io.stopover.trino.client.Backoff;
import io.stopover.trino.client.Cancellation;
import io.stopover.trino.client.CancelledException;
import io.stopover.trino.client.DaemonClient;
import io.stopover.trino.client.DaemonFailover;
import io.stopover.trino.client.PlannedHandle;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeSinkHandle;
import io.trino.spi.exchange.ExchangeSinkInstanceHandle;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceHandleSource;

import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Supplier;

import static com.google.common.base.Preconditions.checkArgument;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_EXCHANGE_CLOSED;
import static java.util.Objects.requireNonNull;

/**
 * One exchange, on the coordinator: announced to the daemons, its lease renewed while it is open,
 * its handles planned once all sinks have finished, and removed when it is closed. The first {@code
 * sinkFinished} of a task decides which of its attempts is read. Trino repeats nothing here, so
 * every request is repeated inside; no method waits for one.
 *
 * <p>Announcing, renewing and removing are done by one thread after another, never at once: an
 * announcement that overtook the removal would open the exchange again.
 */
final class StopoverExchange
        implements Exchange
{
    private static final Logger log = Logger.get(StopoverExchange.class);
    private static final int RENEWALS_PER_LEASE = 3;

    private final ExchangeId id;
    private final String name;
    private final int partitions;
    private final boolean ordered;
    private final long targetSize;
    private final DaemonClient client;
    private final DaemonFailover failover;
    private final Supplier<Backoff> backoffs;
    private final VirtualThreads threads;
    private final Map<Integer, Integer> chosenAttempts = new ConcurrentSkipListMap<>();
    private final CompletableFuture<Void> announced = new CompletableFuture<>();
    private final CompletableFuture<List<ExchangeSourceHandle>> handles = new CompletableFuture<>();
    private final AtomicBoolean handlesRequested = new AtomicBoolean();
    private final Cancellation whileOpen = new Cancellation();
    private final Cancellation planning = new Cancellation();

    StopoverExchange(
            ExchangeId id,
            String name,
            int partitions,
            boolean ordered,
            long targetSize,
            DaemonClient client,
            DaemonFailover failover,
            Supplier<Backoff> backoffs,
            VirtualThreads threads)
    {
        checkArgument(partitions > 0, "an exchange has output partitions, not %s", partitions);
        this.id = requireNonNull(id, "id is null");
        this.name = requireNonNull(name, "name is null");
        this.partitions = partitions;
        this.ordered = ordered;
        this.targetSize = targetSize;
        this.client = requireNonNull(client, "client is null");
        this.failover = requireNonNull(failover, "failover is null");
        this.backoffs = requireNonNull(backoffs, "backoffs is null");
        this.threads = requireNonNull(threads, "threads is null");
    }

    /**
     * Announces the exchange and keeps it alive until it is closed; then removes it and reports its
     * end.
     */
    void start(Runnable removed)
    {
        threads.start(() -> {
            try {
                keepAlive();
                remove();
            }
            finally {
                removed.run();
            }
        });
    }

    private void keepAlive()
    {
        try {
            long leaseSeconds = announce();
            announced.complete(null);
            while (whileOpen.pauseSeconds(Math.max(1, leaseSeconds / RENEWALS_PER_LEASE))) {
                leaseSeconds = renew(leaseSeconds);
            }
        }
        catch (CancelledException e) {
            // closed
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        catch (IOException | RuntimeException e) {
            announced.completeExceptionally(Failures.toTrino("Cannot open exchange " + name, e));
            waitUntilClosed();
        }
        announced.completeExceptionally(closedException());
    }

    private long announce()
            throws IOException
    {
        return failover.call(
                daemon -> client.announce(daemon, name, partitions, ordered, whileOpen),
                backoffs.get(),
                whileOpen);
    }

    /**
     * A lease that could not be renewed is tried again: the query may still end before it runs out.
     */
    private long renew(long leaseSeconds)
            throws CancelledException
    {
        try {
            return failover.call(
                    daemon -> client.renew(daemon, name, partitions, ordered, whileOpen),
                    backoffs.get(),
                    whileOpen);
        }
        catch (CancelledException e) {
            throw e;
        }
        catch (IOException e) {
            log.warn(e, "Cannot renew the lease of exchange %s", name);
            return leaseSeconds;
        }
    }

    private void waitUntilClosed()
    {
        try {
            while (whileOpen.pauseSeconds(Long.MAX_VALUE / 2_000_000_000)) {
                // still open
            }
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private void remove()
    {
        Cancellation never = new Cancellation();
        try {
            failover.call(
                    daemon -> {
                        client.close(daemon, name, never);
                        return null;
                    },
                    backoffs.get(),
                    never);
        }
        catch (IOException | RuntimeException e) {
            log.warn(e, "Cannot remove exchange %s; it goes when its lease has run out", name);
        }
    }

    @Override
    public ExchangeId getId()
    {
        return id;
    }

    @Override
    public ExchangeSinkHandle addSink(int taskPartition)
    {
        return new StopoverSinkHandle(taskPartition);
    }

    @Override
    public void noMoreSinks() {}

    @Override
    public CompletableFuture<ExchangeSinkInstanceHandle> instantiateSink(
            ExchangeSinkHandle sinkHandle, int taskAttempt)
    {
        int task = ((StopoverSinkHandle) sinkHandle).taskPartition();
        return announced.thenApply(
                _ -> new StopoverSinkInstanceHandle(name, task, taskAttempt, partitions));
    }

    @Override
    public CompletableFuture<ExchangeSinkInstanceHandle> updateSinkInstanceHandle(
            ExchangeSinkHandle sinkHandle, int taskAttempt)
    {
        throw new UnsupportedOperationException("sinks of Stopover never ask for another handle");
    }

    @Override
    public void sinkFinished(ExchangeSinkHandle sinkHandle, int taskAttempt)
    {
        if (!handlesRequested.get()) {
            chosenAttempts.putIfAbsent(
                    ((StopoverSinkHandle) sinkHandle).taskPartition(), taskAttempt);
        }
    }

    @Override
    public void allRequiredSinksFinished()
    {
        if (handlesRequested.compareAndSet(false, true)) {
            threads.start(this::planHandles);
        }
    }

    private void planHandles()
    {
        try {
            List<PlannedHandle> planned = chosenAttempts.isEmpty() ? List.of() : failover.call(
                    daemon -> client.handles(daemon, name, chosenAttempts, targetSize, planning),
                    backoffs.get(),
                    planning);
            handles.complete(planned.stream().map(this::toSourceHandle).toList());
        }
        catch (IOException | RuntimeException e) {
            handles.completeExceptionally(planning.isCancelled()
                    ? closedException()
                    : Failures.toTrino("Cannot plan the reading of exchange " + name, e));
        }
    }

    private ExchangeSourceHandle toSourceHandle(PlannedHandle planned)
    {
        return new StopoverSourceHandle(
                id,
                planned.partition(),
                planned.bytes(),
                planned.pages(),
                ordered,
                planned.handle());
    }

    @Override
    public ExchangeSourceHandleSource getSourceHandles()
    {
        return new HandleBatches(handles);
    }

    @Override
    public void close()
    {
        planning.cancel();
        whileOpen.cancel();
        handles.completeExceptionally(closedException());
    }

    private TrinoException closedException()
    {
        return new TrinoException(
                STOPOVER_EXCHANGE_CLOSED, "Exchange %s is closed".formatted(name));
    }
}
