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

import com.google.inject.Inject;
import io.airlift.bootstrap.LifeCycleManager;
import io.airlift.log.Logger;
import io.airlift.units.Duration;
import io.opentelemetry.api.trace.Span;
import io.stopover.trino.client.Backoff;
import io.stopover.trino.client.Cancellation;
import io.stopover.trino.client.DaemonClient;
import io.stopover.trino.client.DaemonFailover;
import io.stopover.trino.client.DescribedExchange;
import io.stopover.trino.client.Fleet;
import io.stopover.trino.client.HandlePlanner;
import io.stopover.trino.client.Homes;
import io.stopover.trino.client.SinkId;
import io.stopover.trino.client.SinkWriter;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeContext;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSinkInstanceHandle;
import io.trino.spi.exchange.ExchangeSource;

import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Supplier;

import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.NANOSECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

/**
 * Creates exchanges, sinks and sources. No method waits for a daemon, except {@code shutdown}.
 */
public class StopoverExchangeManager
        implements ExchangeManager
{
    private static final Logger log = Logger.get(StopoverExchangeManager.class);
    private static final Duration ABORT_RETRY_TIME = new Duration(5, SECONDS);
    private static final Duration SHUTDOWN_TIMEOUT = new Duration(10, SECONDS);
    /**
     * With {@code retry-policy=QUERY} Trino waits 60 s for {@code instantiateSink}, then fails the
     * query with an error that does not name the cause.
     */
    private static final Duration QUERY_POLICY_INSTANTIATE_TIMEOUT = new Duration(50, SECONDS);
    /** Exchange names have at most 160 characters, of which a hyphen and the UUID use 37. */
    private static final int MAX_QUERY_ID_LENGTH = 120;

    private final StopoverConfig config;
    private final Services services;
    private final LifeCycleManager lifeCycleManager;
    private final Backoff.Delays delays;
    private final Set<StopoverExchange> exchanges = ConcurrentHashMap.newKeySet();
    /** The open exchanges, and removed ones whose close some daemon has not heard of yet. */
    private final Set<StopoverExchange> running = ConcurrentHashMap.newKeySet();

    @Inject
    StopoverExchangeManager(
            StopoverConfig config,
            DaemonClient client,
            DaemonFailover failover,
            Fleet fleet,
            Homes homes,
            HandlePlanner planner,
            VirtualThreads threads,
            StopoverStats stats,
            Tracing tracing,
            LifeCycleManager lifeCycleManager)
    {
        this.config = requireNonNull(config, "config is null");
        this.services = new Services(
                client, failover, fleet, homes, planner, threads, stats, tracing);
        this.lifeCycleManager = requireNonNull(lifeCycleManager, "lifeCycleManager is null");
        this.delays = new Backoff.Delays(config.getRetryInitialDelay(), config.getRetryMaxDelay());
    }

    @Override
    public Exchange createExchange(
            ExchangeContext context, int outputPartitionCount, boolean preserveOrderWithinPartition)
    {
        services.fleet().keepCurrent();
        String queryId = context.getQueryId().toString();
        String name = queryId.substring(0, Math.min(queryId.length(), MAX_QUERY_ID_LENGTH)) + "-"
                + UUID.randomUUID();
        StopoverExchange exchange = new StopoverExchange(
                new StopoverExchange.Settings(
                        context.getExchangeId(),
                        name,
                        outputPartitionCount,
                        preserveOrderWithinPartition,
                        config.getSourceHandleTargetSize().toBytes(),
                        instantiateTimeout(context.getExchangeId())),
                backoffs(config.getCoordinatorRetryTime()),
                services,
                context.getParentSpan());
        exchanges.add(exchange);
        running.add(exchange);
        services.stats().exchangeOpened();
        exchange.start(
                () -> {
                    if (exchanges.remove(exchange)) {
                        services.stats().exchangeClosed();
                    }
                },
                () -> running.remove(exchange));
        return exchange;
    }

    /** The SPI does not report the retry policy, but Trino's exchange ids depend on it. */
    static Optional<Duration> instantiateTimeout(ExchangeId id)
    {
        boolean queryPolicy = id.getId().startsWith("direct-exchange-")
                || id.getId().startsWith("query-results-exchange-");
        return queryPolicy ? Optional.of(QUERY_POLICY_INSTANTIATE_TIMEOUT) : Optional.empty();
    }

    @Override
    public ExchangeSink createSink(ExchangeSinkInstanceHandle handle)
    {
        services.fleet().keepCurrent();
        StopoverSinkInstanceHandle sink = (StopoverSinkInstanceHandle) handle;
        Cancellation cancellation = new Cancellation();
        DescribedExchange exchange =
                new DescribedExchange(sink.exchange(), Optional.of(sink.descriptor()));
        SinkId id = new SinkId(exchange, sink.task(), sink.attempt());
        SinkWriter writer = new SinkWriter(
                services.client(),
                services.failover(),
                services.fleet(),
                id,
                services.homes().find(sink.homes()),
                backoffs(config.getSinkRetryTime()),
                cancellation);
        Span span = services.tracing().start("stopover.sink", sink.traceparent());
        span.setAttribute("stopover.sink", id.toString());
        services.threads().start(
                Tracing.within(span, writer::declareSink),
                t -> log.debug(t, "Cannot declare %s; it is only a hint", id));
        return new StopoverSink(
                id,
                sink.partitions(),
                StopoverSink.Sizes.of(config, services.fleet()),
                writer,
                backoffs(ABORT_RETRY_TIME),
                cancellation,
                services,
                span);
    }

    @Override
    public ExchangeSource createSource()
    {
        return new StopoverSource(config, backoffs(config.getReadRetryTime()), services);
    }

    /**
     * With {@code true} Trino starts readers while writers still run, which requires handles after
     * each finished task. The daemons support that, the plugin does not use it yet.
     */
    @Override
    public boolean supportsConcurrentReadAndWrite()
    {
        return false;
    }

    /** Waits, for a limited time, until the daemons have removed the open exchanges. */
    @Override
    public void shutdown()
    {
        exchanges.forEach(StopoverExchange::close);
        long deadline = System.nanoTime() + SHUTDOWN_TIMEOUT.roundTo(NANOSECONDS);
        try {
            while (!exchanges.isEmpty() && System.nanoTime() < deadline) {
                MILLISECONDS.sleep(20);
            }
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        running.forEach(StopoverExchange::stop);
        lifeCycleManager.stop();
    }

    private Supplier<Backoff> backoffs(Duration budget)
    {
        return () -> new Backoff(delays, budget, System::nanoTime);
    }
}
