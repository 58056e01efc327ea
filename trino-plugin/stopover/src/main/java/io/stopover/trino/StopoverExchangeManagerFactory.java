package io.stopover.trino;

import com.google.inject.Injector;
import io.airlift.bootstrap.Bootstrap;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeManagerContext;
import io.trino.spi.exchange.ExchangeManagerFactory;

import java.util.Map;

/**
 * Puts the plugin together from its properties; a property that is wrong, missing or unknown stops
 * Trino's start.
 */
public class StopoverExchangeManagerFactory
        implements ExchangeManagerFactory
{
    @Override
    public String getName()
    {
        return "stopover";
    }

    @Override
    public ExchangeManager create(Map<String, String> config, ExchangeManagerContext context)
    {
        Injector injector = new Bootstrap(new StopoverModule())
                .doNotInitializeLogging()
                .setRequiredConfigurationProperties(config)
                .initialize();
        return injector.getInstance(StopoverExchangeManager.class);
    }
}
