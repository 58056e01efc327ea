package io.stopover.trino;

import com.google.common.collect.ImmutableList;
import io.trino.spi.Plugin;
import io.trino.spi.exchange.ExchangeManagerFactory;

/** Where Trino finds the exchange manager {@code stopover}. */
public class StopoverPlugin
        implements Plugin
{
    @Override
    public Iterable<ExchangeManagerFactory> getExchangeManagerFactories()
    {
        return ImmutableList.of(new StopoverExchangeManagerFactory());
    }
}
