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

import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.api.trace.TracerProvider;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.Scope;
import io.opentelemetry.context.propagation.TextMapGetter;
import io.trino.spi.exchange.ExchangeManagerContext;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

import static java.util.Objects.requireNonNull;

/**
 * Spans of the plugin, under the span that the engine passes to the exchange. Handles carry the W3C
 * {@code traceparent} of that span to the workers. Without a valid parent there are no spans.
 */
final class Tracing
{
    private static final String TRACEPARENT = "traceparent";
    private static final TextMapGetter<String> GETTER = new TextMapGetter<>()
    {
        @Override
        public Iterable<String> keys(String traceparent)
        {
            return List.of(TRACEPARENT);
        }

        @Override
        public String get(String traceparent, String key)
        {
            return key.equals(TRACEPARENT) ? traceparent : null;
        }
    };

    private final Tracer tracer;

    Tracing(Tracer tracer)
    {
        this.tracer = requireNonNull(tracer, "tracer is null");
    }

    static Tracing of(ExchangeManagerContext context)
    {
        try {
            return new Tracing(context.getTracer());
        }
        catch (UnsupportedOperationException e) {
            // The SPI's default: the engine does not trace.
            return new Tracing(TracerProvider.noop().get("stopover"));
        }
    }

    Span start(String name, Span parent)
    {
        if (!parent.getSpanContext().isValid()) {
            return Span.getInvalid();
        }
        return tracer.spanBuilder(name).setParent(Context.root().with(parent)).startSpan();
    }

    Span start(String name, Optional<String> traceparent)
    {
        return start(name, traceparent.map(Tracing::parse).orElse(Span.getInvalid()));
    }

    private static Span parse(String traceparent)
    {
        return Span.fromContext(W3CTraceContextPropagator.getInstance()
                .extract(Context.root(), traceparent, GETTER));
    }

    static Optional<String> traceparent(Span span)
    {
        Map<String, String> headers = new HashMap<>();
        W3CTraceContextPropagator.getInstance()
                .inject(Context.root().with(span), headers, Map::put);
        return Optional.ofNullable(headers.get(TRACEPARENT));
    }

    /** Makes {@code span} the current one of the task's thread, so that its requests carry it. */
    static VirtualThreads.Task within(Span span, VirtualThreads.Task task)
    {
        return () -> {
            try (Scope _ = span.makeCurrent()) {
                task.run();
            }
        };
    }

    static void fail(Span span, Throwable failure)
    {
        span.recordException(failure);
        span.setStatus(StatusCode.ERROR);
    }
}
