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

import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.api.trace.TracerProvider;
import io.stopover.trino.testing.SmallExchanges;
import io.stopover.trino.testing.TestingExchangeContext;
import io.stopover.trino.testing.TestingStopover;
import io.trino.server.PluginManager;
import io.trino.spi.Plugin;
import io.trino.spi.QueryId;
import io.trino.spi.exchange.ExchangeContext;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeManagerContext;
import io.trino.spi.exchange.ExchangeManagerFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.MalformedURLException;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.ServiceLoader;
import java.util.stream.Stream;

import static com.google.common.collect.Iterables.getOnlyElement;
import static io.stopover.trino.testing.TestingStopover.Storage.LOCAL;
import static org.assertj.core.api.Assertions.assertThat;

/**
 * The plugin as it is installed: from its folder, with its own libraries, by the class loader that
 * this version of Trino has for plugins.
 */
@Timeout(120)
class TestInstalledPlugin
{
    private static final Path FOLDER = Path.of("../stopover/target/trino-stopover-0.1.0");
    private static final ExchangeContext CONTEXT = new TestingExchangeContext(
            new QueryId("20261123_000000_00000_abcde"), new ExchangeId("external-exchange-1"));
    private static final int TASKS = 20;

    @Test
    void testPluginLoadsAndMovesPages()
            throws Exception
    {
        ClassLoader loader = PluginManager.createClassLoader("stopover", jars());
        Plugin plugin = getOnlyElement(ServiceLoader.load(Plugin.class, loader));
        assertThat(plugin.getClass().getClassLoader()).isSameAs(loader);
        ExchangeManagerFactory factory = getOnlyElement(plugin.getExchangeManagerFactories());
        assertThat(factory.getName()).isEqualTo("stopover");
        try (TestingStopover stopover = new TestingStopover(LOCAL)) {
            ExchangeManager manager = create(factory, loader, stopover);
            SmallExchanges.writeAndRead(manager, CONTEXT, TASKS);
            manager.shutdown();
        }
    }

    private static List<URL> jars()
            throws IOException
    {
        try (Stream<Path> files = Files.list(FOLDER)) {
            return files.sorted().map(TestInstalledPlugin::url).toList();
        }
    }

    private static URL url(Path file)
    {
        try {
            return file.toUri().toURL();
        }
        catch (MalformedURLException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** With the context class loader that Trino sets. */
    private static ExchangeManager create(
            ExchangeManagerFactory factory, ClassLoader loader, TestingStopover stopover)
    {
        ClassLoader before = Thread.currentThread().getContextClassLoader();
        Thread.currentThread().setContextClassLoader(loader);
        try {
            return factory.create(stopover.properties(), new ExchangeManagerContext()
            {
                @Override
                public Tracer getTracer()
                {
                    return TracerProvider.noop().get("test");
                }
            });
        }
        finally {
            Thread.currentThread().setContextClassLoader(before);
        }
    }
}
