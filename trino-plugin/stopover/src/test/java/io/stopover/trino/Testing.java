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
import io.opentelemetry.api.trace.Span;
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

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.stream.Stream;

import static java.util.concurrent.TimeUnit.SECONDS;
import static java.util.stream.Collectors.joining;

/** The engine's part, in few words, for tests. */
final class Testing
{
    static final ExchangeId EXCHANGE_ID = new ExchangeId("external-exchange-1");

    private Testing() {}

    static ExchangeManager manager(Map<String, String> properties, FakeDaemon... daemons)
    {
        ImmutableMap.Builder<String, String> all = ImmutableMap.builder();
        all.put("stopover.uris", Stream.of(daemons).map(daemon -> daemon.uri().toString())
                .collect(joining(",")));
        all.put("stopover.retry-initial-delay", "5ms");
        all.put("stopover.retry-max-delay", "50ms");
        all.put("stopover.coordinator-retry-time", "3s");
        all.put("stopover.sink-retry-time", "3s");
        all.put("stopover.read-retry-time", "3s");
        all.putAll(properties);
        return new StopoverExchangeManagerFactory()
                .create(all.buildKeepingLast(), new ExchangeManagerContext() {});
    }

    static Exchange exchange(ExchangeManager manager, int partitions, boolean ordered)
    {
        return manager.createExchange(new Context(EXCHANGE_ID), partitions, ordered);
    }

    static ExchangeSink sink(ExchangeManager manager, Exchange exchange, int task, int attempt)
            throws Exception
    {
        return manager.createSink(
                exchange.instantiateSink(exchange.addSink(task), attempt).get(10, SECONDS));
    }

    /** Writes an attempt of (partition, text) pages and tells the exchange. */
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

    private record Context(ExchangeId exchangeId)
            implements ExchangeContext
    {
        @Override
        public QueryId getQueryId()
        {
            return new QueryId("20261123_000000_00000_abcde");
        }

        @Override
        public ExchangeId getExchangeId()
        {
            return exchangeId;
        }

        @Override
        public Span getParentSpan()
        {
            return Span.getInvalid();
        }
    }
}
