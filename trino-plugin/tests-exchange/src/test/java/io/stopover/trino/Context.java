package io.stopover.trino;

import io.opentelemetry.api.trace.Span;
import io.trino.spi.QueryId;
import io.trino.spi.exchange.ExchangeContext;
import io.trino.spi.exchange.ExchangeId;

/** What the engine tells of an exchange that it opens, without tracing. */
record Context(QueryId queryId, ExchangeId exchangeId)
        implements ExchangeContext
{
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
        return Span.getInvalid();
    }
}
