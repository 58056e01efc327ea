package io.stopover.trino.client;

import static java.util.Objects.requireNonNull;

/** One attempt of one task of an exchange. */
public record SinkId(String exchange, int task, int attempt)
{
    public SinkId
    {
        requireNonNull(exchange, "exchange is null");
    }

    String path()
    {
        return "/v1/exchanges/%s/sinks/%s/%s".formatted(exchange, task, attempt);
    }

    @Override
    public String toString()
    {
        return "attempt %s of task %s of exchange %s".formatted(attempt, task, exchange);
    }
}
