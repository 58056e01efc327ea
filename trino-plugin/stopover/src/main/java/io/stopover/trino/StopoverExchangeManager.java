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
import io.airlift.units.Duration;
import io.stopover.trino.client.Backoff;
import io.stopover.trino.client.Cancellation;
import io.stopover.trino.client.DaemonClient;
import io.stopover.trino.client.DaemonFailover;
import io.stopover.trino.client.SinkId;
import io.stopover.trino.client.SinkWriter;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeContext;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSinkInstanceHandle;
import io.trino.spi.exchange.ExchangeSource;

import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Supplier;

import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.NANOSECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

/**
 * Makes exchanges, sinks and sources; none of its methods waits for a daemon, but {@code shutdown}.
 */
public class StopoverExchangeManager
        implements ExchangeManager
{
    private static final Duration ABORT_RETRY_TIME = new Duration(5, SECONDS);
    private static final Duration SHUTDOWN_TIME = new Duration(10, SECONDS);
    /** The daemons take 160 characters, of which the UUID and its hyphen use 37. */
    private static final int MAX_QUERY_ID_LENGTH = 120;

    private final StopoverConfig config;
    private final DaemonClient client;
    private final DaemonFailover failover;
    private final VirtualThreads threads;
    private final LifeCycleManager lifeCycleManager;
    private final Backoff.Delays delays;
    private final Set<StopoverExchange> exchanges = ConcurrentHashMap.newKeySet();

    @Inject
    public StopoverExchangeManager(
            StopoverConfig config,
            DaemonClient client,
            DaemonFailover failover,
            VirtualThreads threads,
            LifeCycleManager lifeCycleManager)
    {
        this.config = requireNonNull(config, "config is null");
        this.client = requireNonNull(client, "client is null");
        this.failover = requireNonNull(failover, "failover is null");
        this.threads = requireNonNull(threads, "threads is null");
        this.lifeCycleManager = requireNonNull(lifeCycleManager, "lifeCycleManager is null");
        this.delays = new Backoff.Delays(config.getRetryInitialDelay(), config.getRetryMaxDelay());
    }

    @Override
    public Exchange createExchange(
            ExchangeContext context, int outputPartitionCount, boolean preserveOrderWithinPartition)
    {
        String queryId = context.getQueryId().toString();
        String name = queryId.substring(0, Math.min(queryId.length(), MAX_QUERY_ID_LENGTH)) + "-"
                + UUID.randomUUID();
        StopoverExchange exchange = new StopoverExchange(
                context.getExchangeId(),
                name,
                outputPartitionCount,
                preserveOrderWithinPartition,
                config.getSourceHandleTargetSize().toBytes(),
                client,
                failover,
                backoffs(config.getCoordinatorRetryTime()),
                threads);
        exchanges.add(exchange);
        exchange.start(() -> exchanges.remove(exchange));
        return exchange;
    }

    @Override
    public ExchangeSink createSink(ExchangeSinkInstanceHandle handle)
    {
        StopoverSinkInstanceHandle sink = (StopoverSinkInstanceHandle) handle;
        Cancellation cancellation = new Cancellation();
        SinkId id = new SinkId(sink.exchange(), sink.task(), sink.attempt());
        SinkWriter writer = new SinkWriter(
                client, failover, id, backoffs(config.getSinkRetryTime()), cancellation);
        threads.start(writer::declareSink);
        return new StopoverSink(
                id,
                sink.partitions(),
                StopoverSink.Sizes.of(config),
                writer,
                backoffs(ABORT_RETRY_TIME),
                cancellation,
                threads);
    }

    @Override
    public ExchangeSource createSource()
    {
        return new StopoverSource(
                config, client, failover, backoffs(config.getReadRetryTime()), threads);
    }

    /**
     * Not yet: with {@code true} Trino starts readers while the writers still run, which asks for
     * handles at each finished task. The daemons can do that; the plugin does not use it.
     */
    @Override
    public boolean supportsConcurrentReadAndWrite()
    {
        return false;
    }

    @Override
    public void shutdown()
    {
        exchanges.forEach(StopoverExchange::close);
        long deadline = System.nanoTime() + SHUTDOWN_TIME.roundTo(NANOSECONDS);
        try {
            while (!exchanges.isEmpty() && System.nanoTime() < deadline) {
                MILLISECONDS.sleep(20);
            }
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        lifeCycleManager.stop();
    }

    private Supplier<Backoff> backoffs(Duration budget)
    {
        return () -> new Backoff(delays, budget, System::nanoTime);
    }
}
