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

import com.sun.net.httpserver.HttpExchange;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.data.SpanData;
import io.opentelemetry.sdk.trace.export.SimpleSpanProcessor;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeManager;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;

import static io.stopover.trino.Testing.handles;
import static io.stopover.trino.Testing.manager;
import static io.stopover.trino.Testing.readAll;
import static io.stopover.trino.Testing.source;
import static io.stopover.trino.Testing.write;
import static org.assertj.core.api.Assertions.assertThat;

/** Spans of the plugin belong to the trace of the query, and daemons learn which trace that is. */
@Timeout(60)
class TestTracing
{
    private static final String TRACE_ID = "0af7651916cd43dd8448eb211c80319c";

    private final List<SpanData> spans = new CopyOnWriteArrayList<>();
    private final List<String> traceparents = new CopyOnWriteArrayList<>();
    private final FakeDaemon daemon = new FakeDaemon(new FakeDaemon.Store());
    private final SdkTracerProvider provider = SdkTracerProvider.builder()
            .addSpanProcessor(SimpleSpanProcessor.create(new Exporter()))
            .build();
    private final ExchangeManager manager = manager(Map.of(), provider.get("test"), daemon);

    @AfterEach
    void stop()
    {
        provider.close();
        daemon.close();
    }

    @Test
    void testSpansAndRequestsBelongToTheTraceOfTheQuery()
            throws Exception
    {
        recordTraceparents();
        SpanContext parent = SpanContext.create(
                TRACE_ID, "b7ad6b7169203331", TraceFlags.getSampled(), TraceState.getDefault());
        writeAndRead(Testing.exchange(manager, Span.wrap(parent)));
        assertThat(spans).extracting(SpanData::getName)
                .containsExactlyInAnyOrder("stopover.exchange", "stopover.sink", "stopover.read");
        assertThat(spans).extracting(SpanData::getTraceId).containsOnly(TRACE_ID);
        SpanData exchange = spans.stream()
                .filter(span -> span.getName().equals("stopover.exchange"))
                .findFirst()
                .orElseThrow();
        assertThat(exchange.getParentSpanId()).isEqualTo(parent.getSpanId());
        assertThat(spans).filteredOn(span -> span != exchange)
                .extracting(SpanData::getParentSpanId)
                .containsOnly(exchange.getSpanId());
        assertThat(traceparents).hasSizeGreaterThanOrEqualTo(4).allSatisfy(traceparent ->
                assertThat(traceparent).startsWith("00-" + TRACE_ID + "-"));
    }

    @Test
    void testQueryThatIsNotTracedHasNoSpans()
            throws Exception
    {
        recordTraceparents();
        writeAndRead(Testing.exchange(manager, Span.getInvalid()));
        assertThat(spans).isEmpty();
        assertThat(traceparents).hasSizeGreaterThanOrEqualTo(4).containsOnly("none");
    }

    private void writeAndRead(Exchange exchange)
            throws Exception
    {
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "page")));
        exchange.allRequiredSinksFinished();
        readAll(source(manager, handles(exchange), Map.of(0, 0)));
        exchange.close();
        manager.shutdown();
    }

    /** Makes the daemon drop the first request of each kind, after recording its header. */
    private void recordTraceparents()
    {
        for (String request : List.of("PUT .*-[0-9a-f]{12}$", "/pages", "/finish", "/read")) {
            daemon.onNext(request, (_, http, _) -> record(http));
        }
    }

    private void record(HttpExchange http)
    {
        String traceparent = http.getRequestHeaders().getFirst("traceparent");
        traceparents.add(traceparent == null ? "none" : traceparent);
        http.close();
    }

    private final class Exporter
            implements SpanExporter
    {
        @Override
        public CompletableResultCode export(Collection<SpanData> ended)
        {
            spans.addAll(ended);
            return CompletableResultCode.ofSuccess();
        }

        @Override
        public CompletableResultCode flush()
        {
            return CompletableResultCode.ofSuccess();
        }

        @Override
        public CompletableResultCode shutdown()
        {
            return CompletableResultCode.ofSuccess();
        }
    }
}
