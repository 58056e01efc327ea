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

import com.google.common.collect.ImmutableMap;
import io.airlift.slice.Slice;
import io.airlift.slice.Slices;
import io.airlift.units.Duration;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.api.trace.TracerProvider;
import io.stopover.trino.client.Backoff;
import io.stopover.trino.client.DaemonClient;
import io.stopover.trino.client.DaemonFailover;
import io.stopover.trino.client.DaemonProbe;
import io.stopover.trino.client.Daemons;
import io.stopover.trino.client.FailureLog;
import io.stopover.trino.client.Fleet;
import io.stopover.trino.client.HandlePlanner;
import io.stopover.trino.client.Homes;
import io.stopover.trino.client.HttpTransport;
import io.stopover.trino.client.Token;
import io.stopover.trino.testing.TestingExchangeContext;
import io.trino.plugin.base.metrics.LongCount;
import io.trino.spi.QueryId;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeContext;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeManagerContext;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSinkHandle;
import io.trino.spi.exchange.ExchangeSource;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceHandleSource;
import io.trino.spi.exchange.ExchangeSourceHandleSource.ExchangeSourceHandleBatch;
import io.trino.spi.exchange.ExchangeSourceOutputSelector;
import io.trino.spi.metrics.Metrics;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.stream.Stream;

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static java.util.stream.Collectors.joining;

/** Drives the plugin as the engine does. */
final class Testing
{
    static final ExchangeId EXCHANGE_ID = new ExchangeId("external-exchange-1");

    private Testing() {}

    static ExchangeManager manager(Map<String, String> properties, FakeDaemon... daemons)
    {
        return manager(properties, TracerProvider.noop().get("test"), daemons);
    }

    static ExchangeManager manager(
            Map<String, String> properties, Tracer tracer, FakeDaemon... daemons)
    {
        ImmutableMap.Builder<String, String> all = ImmutableMap.builder();
        all.put("stopover.uris", uris(daemons));
        // most tests determine which daemon is used
        all.put("stopover.homes", "false");
        all.put("stopover.retry-initial-delay", "5ms");
        all.put("stopover.retry-max-delay", "50ms");
        all.put("stopover.coordinator-retry-time", "3s");
        all.put("stopover.sink-retry-time", "3s");
        all.put("stopover.read-retry-time", "3s");
        all.putAll(properties);
        return new StopoverExchangeManagerFactory()
                .create(all.buildKeepingLast(), new ExchangeManagerContext()
                {
                    @Override
                    public Tracer getTracer()
                    {
                        return tracer;
                    }
                });
    }

    /** The collaborators of an exchange, sink or source that a test creates itself. */
    static Services services(FakeDaemon... daemons)
    {
        return services(new VirtualThreads(), daemons);
    }

    static Services services(VirtualThreads threads, FakeDaemon... daemons)
    {
        StopoverConfig config = new StopoverConfig().setUris(uris(daemons));
        HttpTransport transport =
                new HttpTransport(config, new StopoverTlsConfig(), new Token(config));
        DaemonProbe probe = new DaemonProbe(transport, config);
        Daemons all = new Daemons(config);
        DaemonClient client = new DaemonClient(transport, config);
        DaemonFailover failover = new DaemonFailover(all, probe, new FailureLog());
        Fleet fleet = new Fleet(config, probe, all);
        Homes homes = new Homes(config, all, fleet);
        return new Services(
                client,
                failover,
                fleet,
                homes,
                new HandlePlanner(client, failover, fleet, homes),
                threads,
                new StopoverStats(),
                new Tracing(TracerProvider.noop().get("test")));
    }

    static Backoff backoff()
    {
        return new Backoff(
                new Backoff.Delays(new Duration(5, MILLISECONDS), new Duration(50, MILLISECONDS)),
                new Duration(3, SECONDS),
                System::nanoTime);
    }

    static long metric(Metrics metrics, String name)
    {
        return ((LongCount) metrics.getMetrics().get(name)).getTotal();
    }

    static String uris(FakeDaemon... daemons)
    {
        return Stream.of(daemons).map(daemon -> daemon.uri().toString()).collect(joining(","));
    }

    static Exchange exchange(ExchangeManager manager, int partitions, boolean ordered)
    {
        return manager.createExchange(
                context(Span.getInvalid()), partitions, ordered);
    }

    static Exchange exchange(ExchangeManager manager, Span parent)
    {
        return manager.createExchange(context(parent), 1, false);
    }

    private static ExchangeContext context(Span parent)
    {
        return new TestingExchangeContext(
                new QueryId("20261123_000000_00000_abcde"), EXCHANGE_ID, parent);
    }

    static ExchangeSink sink(ExchangeManager manager, Exchange exchange, int task, int attempt)
            throws Exception
    {
        return manager.createSink(
                exchange.instantiateSink(exchange.addSink(task), attempt).get(10, SECONDS));
    }

    /** Writes and commits an attempt of (partition, text) pages, and reports it as finished. */
    static void write(
            ExchangeManager manager, Exchange exchange, int task, int attempt,
            List<Map.Entry<Integer, String>> pages)
            throws Exception
    {
        ExchangeSinkHandle handle = exchange.addSink(task);
        ExchangeSink sink =
                manager.createSink(exchange.instantiateSink(handle, attempt).get(10, SECONDS));
        pages.forEach(page -> sink.add(page.getKey(), Slices.utf8Slice(page.getValue())));
        sink.finish().get(10, SECONDS);
        exchange.sinkFinished(handle, attempt);
    }

    static List<ExchangeSourceHandle> handles(Exchange exchange)
            throws Exception
    {
        List<ExchangeSourceHandle> handles = new ArrayList<>();
        ExchangeSourceHandleSource batches = exchange.getSourceHandles();
        while (true) {
            ExchangeSourceHandleBatch batch = batches.getNextBatch().get(10, SECONDS);
            handles.addAll(batch.handles());
            if (batch.lastBatch()) {
                return handles;
            }
        }
    }

    static ExchangeSourceOutputSelector selector(Map<Integer, Integer> attempts)
    {
        ExchangeSourceOutputSelector.Builder builder =
                ExchangeSourceOutputSelector.builder(Set.of(EXCHANGE_ID));
        attempts.forEach((task, attempt) -> builder.include(EXCHANGE_ID, task, attempt));
        return builder.setPartitionCount(EXCHANGE_ID, attempts.size()).setFinal().build();
    }

    static ExchangeSource source(
            ExchangeManager manager,
            List<ExchangeSourceHandle> handles,
            Map<Integer, Integer> attempts)
    {
        ExchangeSource source = manager.createSource();
        source.addSourceHandles(handles);
        source.setOutputSelector(selector(attempts));
        source.noMoreSourceHandles();
        return source;
    }

    static List<String> readAll(ExchangeSource source)
            throws Exception
    {
        List<String> pages = new ArrayList<>();
        while (!source.isFinished()) {
            source.isBlocked().get(10, SECONDS);
            Slice page = source.read();
            if (page != null) {
                pages.add(page.toStringUtf8());
            }
        }
        return pages;
    }

    static Slice randomPage(Random random, int size)
    {
        byte[] bytes = new byte[size];
        random.nextBytes(bytes);
        return Slices.wrappedBuffer(bytes);
    }
}
