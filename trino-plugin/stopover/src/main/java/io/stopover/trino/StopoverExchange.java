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

import com.google.common.collect.ImmutableSortedMap;
import io.airlift.log.Logger;
import io.airlift.units.Duration;
import io.opentelemetry.api.trace.Span;
import io.stopover.trino.client.Announcers;
import io.stopover.trino.client.Backoff;
import io.stopover.trino.client.Cancellation;
import io.stopover.trino.client.CancelledException;
import io.stopover.trino.client.Daemon;
import io.stopover.trino.client.DaemonClient;
import io.stopover.trino.client.DaemonFailover;
import io.stopover.trino.client.DescribedExchange;
import io.stopover.trino.client.HandlePlanner;
import io.stopover.trino.client.Home;
import io.stopover.trino.client.Homes;
import io.stopover.trino.client.PlannedHandle;
import io.stopover.trino.client.ProblemException;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeSinkHandle;
import io.trino.spi.exchange.ExchangeSinkInstanceHandle;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceHandleSource;
import io.trino.spi.metrics.Metrics;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Supplier;

import static com.google.common.base.Preconditions.checkArgument;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_EXCHANGE_CLOSED;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_UNAVAILABLE;
import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.NANOSECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

/**
 * One exchange, on the coordinator. Announces it to the daemons, renews its lease until it is
 * closed, plans its source handles once all sinks have finished, and removes it in the end. The
 * first {@code sinkFinished} of a task selects the attempt that is read. Trino retries nothing
 * here, so each request is retried inside; no method blocks.
 *
 * <p>One thread announces, renews and removes, in this order: an announcement after the removal
 * would reopen the exchange.
 */
final class StopoverExchange
        implements Exchange
{
    private static final Logger log = Logger.get(StopoverExchange.class);
    private static final int RENEWALS_PER_LEASE = 3;
    private static final long MAX_RENEWAL_RETRY_NANOS = SECONDS.toNanos(5);
    /** Where no daemon has said how long the lease is, nothing was written. */
    private static final long DEFAULT_LEASE_NANOS = SECONDS.toNanos(20);

    /**
     * @param name globally unique id of the exchange at the daemons
     * @param instantiateTimeout how long the engine waits for {@code instantiateSink}, if limited
     */
    record Settings(
            ExchangeId id,
            String name,
            int partitions,
            boolean ordered,
            long sourceHandleTargetSize,
            Optional<Duration> instantiateTimeout)
    {
        Settings
        {
            requireNonNull(id, "id is null");
            requireNonNull(name, "name is null");
            checkArgument(partitions > 0, "partition count is not positive: %s", partitions);
            requireNonNull(instantiateTimeout, "instantiateTimeout is null");
        }
    }

    private final Settings settings;
    private final String name;
    private final Supplier<Backoff> backoffs;
    private final Services services;
    private final TransferStats stats;
    private final Span span;
    private final Optional<String> traceparent;
    private final Map<Integer, Integer> selectedAttempts = new ConcurrentSkipListMap<>();
    /** The homes that sinks of each block of tasks were given; a retried task may have others. */
    private final Map<Integer, Set<Home>> homes = new ConcurrentHashMap<>();
    private final CompletableFuture<String> announced = new CompletableFuture<>();
    /** With its descriptor once it was announced. */
    private volatile DescribedExchange exchange;
    /** Used by the thread that announces, renews and removes. */
    private long leaseNanos = DEFAULT_LEASE_NANOS;
    /** Replaced when the exchange is closed, so that a closed exchange retains no handles. */
    private volatile CompletableFuture<List<ExchangeSourceHandle>> handles =
            new CompletableFuture<>();
    private final AtomicBoolean handlesRequested = new AtomicBoolean();
    private final AtomicReference<TrinoException> failure = new AtomicReference<>();
    private final Cancellation whileOpen = new Cancellation();
    private final Cancellation planning = new Cancellation();
    private final Cancellation untilStopped = new Cancellation();
    private final Announcers announcers;
    private final ChosenAttempts chosen;

    StopoverExchange(
            Settings settings, Supplier<Backoff> backoffs, Services services, Span parentSpan)
    {
        this.settings = requireNonNull(settings, "settings is null");
        this.name = settings.name();
        this.exchange = new DescribedExchange(name, Optional.empty());
        this.backoffs = requireNonNull(backoffs, "backoffs is null");
        this.services = requireNonNull(services, "services is null");
        this.stats = new TransferStats(services.stats().getExchanges());
        this.span = services.tracing().start("stopover.exchange", parentSpan);
        this.span.setAttribute("stopover.exchange", name);
        this.traceparent = Tracing.traceparent(span);
        this.announcers = new Announcers(services.failover());
        this.chosen = new ChosenAttempts(() -> exchange, services, span);
    }

    /**
     * Announces the exchange and renews its lease until it is closed, then removes it and calls
     * {@code onRemoved}, which must be idempotent; {@code onEnded} once every daemon that may have
     * the announcement knows of it, or {@link #stop} was called.
     */
    void start(Runnable onRemoved, Runnable onEnded)
    {
        services.threads().start(
                Tracing.within(span, () -> {
                    keepOpen();
                    remove();
                    span.end();
                    onRemoved.run();
                    announcers.closeAtOthers(closing(untilStopped), leaseNanos, untilStopped);
                    onEnded.run();
                }),
                t -> {
                    onRemoved.run();
                    onEnded.run();
                    fail("Exchange %s failed", t);
                },
                announced,
                handles);
    }

    private void keepOpen()
            throws InterruptedException
    {
        try {
            Optional<Daemon> home = services.homes().find(services.homes().choose(name, 0));
            DaemonClient.Announced answer = announce(home);
            exchange = answer.exchange();
            announced.complete(exchange.descriptor().orElseThrow());
            confirm(home);
            leaseNanos = SECONDS.toNanos(answer.leaseSeconds());
            renewUntilClosed();
        }
        catch (CancelledException e) {
            // Closed by the engine.
        }
        catch (Throwable t) {
            fail("Cannot open exchange %s", t);
            // The engine closes the exchange because of the failure, or with the query.
            whileOpen.pause(Long.MAX_VALUE);
        }
        announced.completeExceptionally(closedException());
    }

    /**
     * Announces at the home of the first tasks, which then knows when the announcement is durable
     * and need not ask the store for it. The first request is answered at once; one that repeats
     * it, after the store was asked.
     */
    private DaemonClient.Announced announce(Optional<Daemon> home)
            throws IOException
    {
        if (home.isPresent()) {
            try {
                return once(home.get(), announcers.announcing(
                        daemon -> services.client().announceAtHome(
                                daemon,
                                name,
                                settings.partitions(),
                                settings.ordered(),
                                whileOpen)));
            }
            catch (CancelledException e) {
                throw e;
            }
            catch (IOException e) {
                // logged; another daemon repeats it
            }
        }
        AtomicBoolean isNew = new AtomicBoolean(home.isEmpty());
        DaemonFailover.Operation<DaemonClient.Announced> announcement =
                daemon -> isNew.getAndSet(false)
                        ? services.client().announceNew(
                                daemon, name, settings.partitions(), settings.ordered(), whileOpen)
                        : services.client().announce(
                                daemon, name, settings.partitions(), settings.ordered(), whileOpen);
        return callBlocking(announcers.announcing(announcement), whileOpen);
    }

    /** Until the announcement is durable, no daemon acknowledges a task. */
    private void confirm(Optional<Daemon> home)
            throws IOException
    {
        DaemonFailover.Operation<?> confirm = announcers.announcing(
                daemon -> services.client().confirm(
                        daemon, exchange, settings.partitions(), settings.ordered(), whileOpen));
        if (home.isPresent()) {
            try {
                once(home.get(), confirm);
                return;
            }
            catch (CancelledException e) {
                throw e;
            }
            catch (IOException e) {
                // logged; another daemon writes the same
            }
        }
        call(confirm, whileOpen);
    }

    /** Renews in good time and, after a failure, again soon: the lease still has some time left. */
    private void renewUntilClosed()
            throws CancelledException, InterruptedException
    {
        long delay = leaseNanos / RENEWALS_PER_LEASE;
        while (whileOpen.pause(delay)) {
            try {
                leaseNanos = SECONDS.toNanos(renew().leaseSeconds());
                delay = leaseNanos / RENEWALS_PER_LEASE;
            }
            catch (CancelledException e) {
                throw e;
            }
            catch (Throwable t) {
                if (Failures.isExchangeClosed(t)) {
                    fail("Lost the lease of exchange %s", t);
                    whileOpen.pause(Long.MAX_VALUE);
                    return;
                }
                log.warn(t, "Cannot renew the lease of exchange %s, will retry", name);
                delay = Math.min(leaseNanos / RENEWALS_PER_LEASE, MAX_RENEWAL_RETRY_NANOS);
            }
        }
    }

    private DaemonClient.Announced renew()
            throws IOException
    {
        return call(
                daemon -> services.client().renew(
                        daemon, exchange, settings.partitions(), settings.ordered(), whileOpen),
                whileOpen);
    }

    /** Closes where the exchange was announced, or else at any daemon. */
    private void remove()
    {
        Cancellation never = new Cancellation();
        DaemonFailover.Operation<?> close = announcers.closing(closing(never));
        Optional<Daemon> announcer = announcers.first();
        try {
            if (announcer.isPresent()) {
                try {
                    once(announcer.get(), close);
                    return;
                }
                catch (IOException e) {
                    // logged; another daemon closes it
                }
            }
            call(close, never);
        }
        catch (Throwable t) {
            log.warn(t, "Cannot remove exchange %s: it remains until its lease expires", name);
        }
    }

    private DaemonFailover.Operation<?> closing(Cancellation cancellation)
    {
        return daemon -> {
            services.client().close(daemon, exchange, cancellation);
            return null;
        };
    }

    /** A call whose result the engine waits for. */
    private <T> T callBlocking(DaemonFailover.Operation<T> operation, Cancellation cancellation)
            throws IOException
    {
        long start = System.nanoTime();
        try {
            return call(operation, cancellation);
        }
        finally {
            stats.addBlocked(System.nanoTime() - start);
        }
    }

    private <T> T once(Daemon daemon, DaemonFailover.Operation<T> operation)
            throws IOException
    {
        stats.addRequests(1, 0);
        return services.failover().once(daemon, operation);
    }

    private <T> T call(DaemonFailover.Operation<T> operation, Cancellation cancellation)
            throws IOException
    {
        AtomicLong requests = new AtomicLong();
        try {
            return services.failover().call(
                    daemon -> {
                        requests.incrementAndGet();
                        return operation.ask(daemon);
                    },
                    backoffs.get(),
                    cancellation);
        }
        finally {
            stats.addRequests(requests.get(), Math.max(0, requests.get() - 1));
        }
    }

    /** Fails everything that the engine waits for, or will ask for. */
    private void fail(String action, Throwable cause)
    {
        TrinoException exception = Failures.toTrino(action.formatted(name), cause);
        if (failure.compareAndSet(null, exception)) {
            services.stats().failed(Failures.code(cause));
            Tracing.fail(span, exception);
        }
        announced.completeExceptionally(exception);
        handles.completeExceptionally(exception);
        planning.cancel();
    }

    @Override
    public ExchangeId getId()
    {
        return settings.id();
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
        TrinoException failed = failure.get();
        if (failed != null) {
            return CompletableFuture.failedFuture(failed);
        }
        int task = ((StopoverSinkHandle) sinkHandle).taskPartition();
        return announcedInTime().thenApply(descriptor -> new StopoverSinkInstanceHandle(
                name,
                descriptor,
                task,
                taskAttempt,
                settings.partitions(),
                chooseHomes(task),
                traceparent));
    }

    private List<Home> chooseHomes(int task)
    {
        List<Home> chosen = services.homes().choose(name, task);
        homes.computeIfAbsent(Homes.block(task), _ -> ConcurrentHashMap.newKeySet())
                .addAll(chosen);
        return chosen;
    }

    private CompletableFuture<String> announcedInTime()
    {
        if (settings.instantiateTimeout().isEmpty() || announced.isDone()) {
            return announced;
        }
        Duration timeout = settings.instantiateTimeout().get();
        return announced.copy()
                .orTimeout(timeout.roundTo(NANOSECONDS), NANOSECONDS)
                .exceptionallyCompose(e -> CompletableFuture.failedFuture(
                        e instanceof TimeoutException ? notAnnounced(timeout) : e));
    }

    private TrinoException notAnnounced(Duration timeout)
    {
        return new TrinoException(STOPOVER_UNAVAILABLE,
                "No daemon opened exchange %s within %s: check that one of %s is ready".formatted(
                        name, timeout, services.failover().daemons().all()));
    }

    @Override
    public CompletableFuture<ExchangeSinkInstanceHandle> updateSinkInstanceHandle(
            ExchangeSinkHandle sinkHandle, int taskAttempt)
    {
        throw new UnsupportedOperationException("sinks never require a handle update");
    }

    @Override
    public void sinkFinished(ExchangeSinkHandle sinkHandle, int taskAttempt)
    {
        int task = ((StopoverSinkHandle) sinkHandle).taskPartition();
        if (!handlesRequested.get() && selectedAttempts.putIfAbsent(task, taskAttempt) == null) {
            chosen.add(task, taskAttempt);
        }
    }

    @Override
    public void allRequiredSinksFinished()
    {
        if (!handlesRequested.compareAndSet(false, true)) {
            return;
        }
        chosen.stop();
        CompletableFuture<List<ExchangeSourceHandle>> result = handles;
        Map<Integer, Integer> attempts = ImmutableSortedMap.copyOf(selectedAttempts);
        services.threads().start(
                Tracing.within(span, () -> result.complete(planHandles(attempts))),
                t -> planningFailed(result, t),
                result);
    }

    private List<ExchangeSourceHandle> planHandles(Map<Integer, Integer> attempts)
            throws IOException
    {
        if (attempts.isEmpty()) {
            return List.of();
        }
        HandlePlanner.Plan hot = services.planner().planFromMemory(new HandlePlanner.Request(
                exchange,
                settings.ordered(),
                attempts,
                homes,
                settings.sourceHandleTargetSize()));
        stats.addRequests(hot.requests(), 0);
        List<ExchangeSourceHandle> handles = new ArrayList<>();
        for (HandlePlanner.HotHandle planned : hot.handles()) {
            handles.add(toSourceHandle(planned.handle(), planned.holder()));
        }
        if (!hot.rest().isEmpty()) {
            for (PlannedHandle planned : planAtOneDaemon(hot.rest(), hot.asked())) {
                handles.add(toSourceHandle(planned, Optional.empty()));
            }
        }
        return handles;
    }

    private List<PlannedHandle> planAtOneDaemon(Map<Integer, Integer> attempts, Set<String> asked)
            throws IOException
    {
        try {
            return requestHandles(attempts, asked);
        }
        catch (ProblemException e) {
            if (!e.problem().is("unsupported-protocol")) {
                throw e;
            }
            // daemons that this node does not talk to may have been upgraded meanwhile
            services.fleet().refresh();
            return requestHandles(attempts, asked);
        }
    }

    private List<PlannedHandle> requestHandles(Map<Integer, Integer> attempts, Set<String> asked)
            throws IOException
    {
        return callBlocking(
                daemon -> services.client().handles(
                        daemon,
                        exchange,
                        attempts,
                        settings.sourceHandleTargetSize(),
                        services.fleet().handleVersion(),
                        asked,
                        planning),
                planning);
    }

    private void planningFailed(CompletableFuture<?> result, Throwable cause)
    {
        if (planning.isCancelled()) {
            result.completeExceptionally(closedException());
            return;
        }
        services.stats().failed(Failures.code(cause));
        result.completeExceptionally(
                Failures.toTrino("Cannot plan the source handles of exchange " + name, cause));
    }

    private ExchangeSourceHandle toSourceHandle(PlannedHandle planned, Optional<Home> holder)
    {
        stats.addPages(planned.pages(), planned.bytes());
        return new StopoverSourceHandle(
                settings.id(),
                planned.partition(),
                planned.bytes(),
                planned.pages(),
                settings.ordered(),
                planned.handle(),
                holder,
                traceparent);
    }

    @Override
    public ExchangeSourceHandleSource getSourceHandles()
    {
        return new HandleBatches(handles);
    }

    /** Implements a method that the SPI has from Trino 480 on, also after {@code close}. */
    public Metrics getMetrics()
    {
        return stats.toMetrics("StopoverExchange");
    }

    @Override
    public void close()
    {
        chosen.stop();
        planning.cancel();
        whileOpen.cancel();
        CompletableFuture<List<ExchangeSourceHandle>> pending = handles;
        handles = CompletableFuture.failedFuture(closedException());
        pending.completeExceptionally(closedException());
        selectedAttempts.clear();
    }

    /** The node shuts down: no daemon is told any more that this exchange is closed. */
    void stop()
    {
        untilStopped.cancel();
    }

    private TrinoException closedException()
    {
        return new TrinoException(
                STOPOVER_EXCHANGE_CLOSED, "Exchange %s is closed".formatted(name));
    }
}
