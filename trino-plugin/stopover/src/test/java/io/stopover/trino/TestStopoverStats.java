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

import com.fasterxml.jackson.databind.ObjectMapper;
import io.airlift.json.ObjectMapperProvider;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.metrics.Metrics;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import javax.management.JMException;
import javax.management.MBeanServer;
import javax.management.ObjectName;

import java.lang.management.ManagementFactory;
import java.util.List;
import java.util.Map;

import static io.stopover.trino.FakeDaemon.problem;
import static io.stopover.trino.Testing.exchange;
import static io.stopover.trino.Testing.handles;
import static io.stopover.trino.Testing.manager;
import static io.stopover.trino.Testing.metric;
import static io.stopover.trino.Testing.readAll;
import static io.stopover.trino.Testing.sink;
import static io.stopover.trino.Testing.source;
import static io.stopover.trino.Testing.write;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

/**
 * Trino's jmx catalog shows the totals of the node and its failures by kind; the statistics of a
 * query contain the metrics of its sinks and sources.
 */
@Timeout(60)
class TestStopoverStats
{
    private final MBeanServer server = ManagementFactory.getPlatformMBeanServer();

    @Test
    void testTotalsAndFailuresAreExportedToJmx()
            throws Exception
    {
        ObjectName name = new ObjectName("trino.plugin.exchange.stopover:name=StopoverStats");
        ObjectName daemons = new ObjectName("trino.plugin.exchange.stopover.client:name=Daemons");
        unregister(name);
        unregister(daemons);
        try (FakeDaemon daemon = new FakeDaemon(new FakeDaemon.Store())) {
            ExchangeManager manager = manager(Map.of(), daemon);
            Exchange exchange = exchange(manager, 1, false);
            write(manager, exchange, 0, 0, List.of(Map.entry(0, "page"), Map.entry(0, "other")));
            exchange.allRequiredSinksFinished();
            readAll(source(manager, handles(exchange), Map.of(0, 0)));
            daemon.onNext("/finish", problem("sink-failed", 503, false));
            assertThatThrownBy(() -> sink(manager, exchange, 1, 0).finish().get(10, SECONDS));

            assertThat(server.getAttribute(name, "Sinks.Pages")).isEqualTo(2L);
            assertThat(server.getAttribute(name, "Sinks.Bytes")).isEqualTo(9L);
            assertThat(server.getAttribute(name, "Sources.Pages")).isEqualTo(2L);
            assertThat((Long) server.getAttribute(name, "Exchanges.Requests")).isPositive();
            assertThat(server.getAttribute(name, "OpenExchanges")).isEqualTo(1L);
            assertThat(server.getAttribute(name, "SinkLostFailures")).isEqualTo(1L);
            assertThat(server.getAttribute(name, "UnavailableFailures")).isEqualTo(0L);
            assertThat(server.getAttribute(daemons, "InRotation"))
                    .isEqualTo("[%s]".formatted(daemon.uri()));
            assertThat(server.getAttribute(daemons, "OutOfRotation")).isEqualTo("[]");
            manager.shutdown();
            assertThat(server.getAttribute(name, "OpenExchanges")).isEqualTo(0L);
        }
    }

    /** A metric of a class of the plugin would fail the task status that contains it. */
    @Test
    void testMetricsAreOfClassesThatEveryNodeHas()
            throws Exception
    {
        TransferStats stats = new TransferStats();
        stats.addPages(2, 9);
        ObjectMapper mapper = new ObjectMapperProvider().get();
        String json = mapper.writeValueAsString(stats.toMetrics("StopoverSink"));
        assertThat(mapper.readTree(json).findValuesAsText("@class"))
                .hasSize(7)
                .containsOnly("io.trino.plugin.base.metrics.LongCount");
        Metrics metrics = mapper.readValue(json, Metrics.class);
        assertThat(metric(metrics, "StopoverSink.bytes")).isEqualTo(9);
        assertThat(metric(metrics.mergeWith(metrics), "StopoverSink.pages")).isEqualTo(4);
    }

    /** Managers of other tests in this JVM have registered theirs. */
    private void unregister(ObjectName name)
            throws JMException
    {
        if (server.isRegistered(name)) {
            server.unregisterMBean(name);
        }
    }
}
