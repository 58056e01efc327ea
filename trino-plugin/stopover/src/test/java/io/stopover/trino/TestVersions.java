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

import io.airlift.slice.Slices;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;

import static io.stopover.trino.StopoverErrorCode.STOPOVER_PROTOCOL;
import static io.stopover.trino.Testing.exchange;
import static io.stopover.trino.Testing.handles;
import static io.stopover.trino.Testing.readAll;
import static io.stopover.trino.Testing.source;
import static io.stopover.trino.Testing.write;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

/** Daemons and plugin of different versions, as during a rolling upgrade. */
@Timeout(60)
class TestVersions
{
    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final FakeDaemon first = new FakeDaemon(store);
    private final FakeDaemon second = new FakeDaemon(store);
    private final ExchangeManager manager = Testing.manager(Map.of(), first, second);

    @AfterEach
    void stop()
    {
        manager.shutdown();
        first.close();
        second.close();
    }

    private List<String> read(Exchange exchange)
            throws Exception
    {
        exchange.allRequiredSinksFinished();
        return readAll(source(manager, handles(exchange), Map.of(0, 0, 1, 0)));
    }

    /** The plugin queries each daemon at its start, in the background. */
    private void awaitStartupCheck()
            throws Exception
    {
        while (first.probes.size() + second.probes.size() < 4) {
            Thread.sleep(10);
        }
    }

    @Test
    void testDaemonsThatSpeakANewerProtocolTooServeThisPlugin()
            throws Exception
    {
        Exchange exchange = exchange(manager, 1, false);
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "before")));
        first.upgrade(1, 2);
        write(manager, exchange, 1, 0, List.of(Map.entry(0, "after")));
        second.upgrade(1, 2);
        assertThat(read(exchange)).containsExactlyInAnyOrder("before", "after");
        assertThat(second.requests("")).as("only asked what it knows")
                .isEqualTo(second.requests("/hot-handles"));
    }

    @Test
    void testDaemonThatNoLongerSpeaksTheProtocolIsPassedOverInARunningQuery()
            throws Exception
    {
        Exchange exchange = exchange(manager, 1, false);
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "before")));
        first.upgrade(2, 2);
        write(manager, exchange, 1, 0, List.of(Map.entry(0, "after")));
        assertThat(read(exchange)).containsExactlyInAnyOrder("before", "after");
        assertThat(second.requests("/1/0/finish")).hasSize(1);
    }

    @Test
    void testOlderDaemonsAreAnErrorThatIsNotRetried()
    {
        first.upgrade(0, 0);
        second.upgrade(0, 0);
        Exchange exchange = exchange(manager, 1, false);
        assertThatThrownBy(() -> exchange.instantiateSink(exchange.addSink(0), 0).get(10, SECONDS))
                .isInstanceOf(ExecutionException.class)
                .hasMessageContaining("unsupported-protocol")
                .cause()
                .isInstanceOfSatisfying(TrinoException.class, e ->
                        assertThat(e.getErrorCode()).isEqualTo(STOPOVER_PROTOCOL.toErrorCode()));
        assertThat(first.requests("PUT")).hasSize(1);
    }

    /** Handles of an upgraded daemon were refused by one that was not upgraded yet. */
    @Test
    void testHandlesArePlannedInTheNewestVersionThatAllDaemonsRead()
            throws Exception
    {
        awaitStartupCheck();
        Exchange exchange = exchange(manager, 1, false);
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "before")));
        first.upgradeHandles(2);
        write(manager, exchange, 1, 0, List.of(Map.entry(0, "after")));
        assertThat(read(exchange)).containsExactlyInAnyOrder("before", "after");
        assertThat(second.requests("/handles")).as("planned by the older daemon").hasSize(1);

        second.upgradeHandles(2);
        Exchange next = exchange(manager, 1, false);
        ExchangeSink sink = Testing.sink(manager, next, 0, 0);
        sink.add(0, Slices.utf8Slice("page"));
        sink.finish().get(10, SECONDS);
        next.sinkFinished(next.addSink(0), 0);
        next.allRequiredSinksFinished();
        assertThat(handles(next)).as("planned although nothing reported the second upgrade")
                .hasSize(1);
    }
}
