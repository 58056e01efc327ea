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

import com.google.common.collect.Maps;
import com.google.inject.Injector;
import io.airlift.bootstrap.Bootstrap;
import io.airlift.log.Logger;
import io.trino.plugin.base.jmx.MBeanServerModule;
import io.trino.plugin.base.jmx.PrefixObjectNameGeneratorModule;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeManagerContext;
import io.trino.spi.exchange.ExchangeManagerFactory;
import org.weakref.jmx.guice.MBeanModule;

import java.util.Map;
import java.util.TreeSet;

/**
 * Creates the exchange manager from its properties. An invalid, missing or unknown property stops
 * Trino's start.
 */
public class StopoverExchangeManagerFactory
        implements ExchangeManagerFactory
{
    private static final Logger log = Logger.get(StopoverExchangeManagerFactory.class);
    /** Properties of Trino's own manager; its Helm chart always sets one of them. */
    private static final String FILESYSTEM_PREFIX = "exchange.";

    @Override
    public String getName()
    {
        return "stopover";
    }

    @Override
    public ExchangeManager create(Map<String, String> config, ExchangeManagerContext context)
    {
        warnAboutFilesystemProperties(config);
        Injector injector = new Bootstrap(
                new MBeanModule(),
                new MBeanServerModule(),
                new PrefixObjectNameGeneratorModule(
                        "io.stopover.trino", "trino.plugin.exchange.stopover"),
                new StopoverModule(),
                binder -> binder.bind(Tracing.class).toInstance(Tracing.of(context)))
                .doNotInitializeLogging()
                .setRequiredConfigurationProperties(
                        Maps.filterKeys(config, name -> !name.startsWith(FILESYSTEM_PREFIX)))
                .initialize();
        return injector.getInstance(StopoverExchangeManager.class);
    }

    private static void warnAboutFilesystemProperties(Map<String, String> config)
    {
        TreeSet<String> ignored = new TreeSet<>(config.keySet());
        ignored.removeIf(name -> !name.startsWith(FILESYSTEM_PREFIX));
        if (!ignored.isEmpty()) {
            log.warn("Ignoring properties of Trino's filesystem exchange manager: %s. "
                    + "Configure storage at the daemons instead: see docs/trino.md", ignored);
        }
    }
}
