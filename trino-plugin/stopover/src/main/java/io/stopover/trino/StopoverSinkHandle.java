package io.stopover.trino;

import io.trino.spi.exchange.ExchangeSinkHandle;

/** A task partition of an exchange. Stays on the coordinator. */
public record StopoverSinkHandle(int taskPartition)
        implements ExchangeSinkHandle {}
