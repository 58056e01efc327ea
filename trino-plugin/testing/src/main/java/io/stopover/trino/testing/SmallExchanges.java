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
package io.stopover.trino.testing;

import io.airlift.slice.Slice;
import io.airlift.slice.Slices;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeContext;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSource;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceOutputSelector;

import java.util.HashSet;
import java.util.List;
import java.util.Set;

import static java.util.concurrent.TimeUnit.SECONDS;

/** Writes and reads exchanges of a few small pages through Trino's SPI. */
public final class SmallExchanges
{
    private SmallExchanges() {}

    /**
     * Writes one page for each task, the tasks one after another, reads all of them, and closes the
     * exchange.
     */
    public static void writeAndRead(ExchangeManager manager, ExchangeContext context, int tasks)
            throws Exception
    {
        ExchangeId id = context.getExchangeId();
        Exchange exchange = manager.createExchange(context, 2, false);
        ExchangeSourceOutputSelector.Builder selector =
                ExchangeSourceOutputSelector.builder(Set.of(id));
        Set<Slice> written = new HashSet<>();
        for (int task = 0; task < tasks; task++) {
            ExchangeSink sink = manager.createSink(
                    exchange.instantiateSink(exchange.addSink(task), 0).get(60, SECONDS));
            Slice page = Slices.utf8Slice("page of task " + task);
            sink.add(task % 2, page);
            sink.finish().get(60, SECONDS);
            if (sink.getMetrics().isEmpty()) {
                throw new AssertionError("a sink has no metrics");
            }
            exchange.sinkFinished(exchange.addSink(task), 0);
            selector.include(id, task, 0);
            written.add(page);
        }
        exchange.allRequiredSinksFinished();
        List<ExchangeSourceHandle> handles =
                exchange.getSourceHandles().getNextBatch().get(60, SECONDS).handles();
        selector.setPartitionCount(id, tasks).setFinal();
        Set<Slice> read = readAll(manager, handles, selector.build());
        if (!read.equals(written)) {
            throw new AssertionError("%s pages were read of %s".formatted(read, written));
        }
        exchange.close();
    }

    /** Reads all pages, none of which may be equal to another one. */
    public static Set<Slice> readAll(
            ExchangeManager manager,
            List<ExchangeSourceHandle> handles,
            ExchangeSourceOutputSelector selector)
            throws Exception
    {
        Set<Slice> pages = new HashSet<>();
        try (ExchangeSource source = manager.createSource()) {
            source.addSourceHandles(handles);
            source.setOutputSelector(selector);
            source.noMoreSourceHandles();
            while (!source.isFinished()) {
                source.isBlocked().get(60, SECONDS);
                Slice page = source.read();
                if (page != null && !pages.add(page)) {
                    throw new AssertionError("a page was read twice: " + page.toStringUtf8());
                }
            }
        }
        return pages;
    }
}
