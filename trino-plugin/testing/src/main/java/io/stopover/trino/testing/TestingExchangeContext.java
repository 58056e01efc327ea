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

import io.opentelemetry.api.trace.Span;
import io.trino.spi.QueryId;
import io.trino.spi.exchange.ExchangeContext;
import io.trino.spi.exchange.ExchangeId;

/** The engine's context of an exchange. */
public record TestingExchangeContext(QueryId queryId, ExchangeId exchangeId, Span parentSpan)
        implements ExchangeContext
{
    /** Without tracing. */
    public TestingExchangeContext(QueryId queryId, ExchangeId exchangeId)
    {
        this(queryId, exchangeId, Span.getInvalid());
    }

    @Override
    public QueryId getQueryId()
    {
        return queryId;
    }

    @Override
    public ExchangeId getExchangeId()
    {
        return exchangeId;
    }

    @Override
    public Span getParentSpan()
    {
        return parentSpan;
    }
}
