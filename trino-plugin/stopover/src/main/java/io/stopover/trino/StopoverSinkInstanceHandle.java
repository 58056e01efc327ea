package io.stopover.trino;

import com.fasterxml.jackson.annotation.JsonCreator;
import com.fasterxml.jackson.annotation.JsonProperty;
import io.trino.spi.exchange.ExchangeSinkInstanceHandle;

import static java.util.Objects.requireNonNull;

/**
 * One attempt of one task, as it travels to the worker.
 *
 * @param exchange the daemons' name of the exchange, unique in the world
 * @param partitions number of output partitions
 */
public record StopoverSinkInstanceHandle(
        @JsonProperty("exchange") String exchange,
        @JsonProperty("task") int task,
        @JsonProperty("attempt") int attempt,
        @JsonProperty("partitions") int partitions)
        implements ExchangeSinkInstanceHandle
{
    @JsonCreator
    public StopoverSinkInstanceHandle
    {
        requireNonNull(exchange, "exchange is null");
    }
}
