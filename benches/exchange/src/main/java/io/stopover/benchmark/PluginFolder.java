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
package io.stopover.benchmark;

import io.opentelemetry.api.OpenTelemetry;
import io.opentelemetry.api.trace.Tracer;
import io.trino.spi.Plugin;
import io.trino.spi.classloader.ThreadContextClassLoader;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeManagerContext;
import io.trino.spi.exchange.ExchangeManagerFactory;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.ServiceLoader;
import java.util.stream.Stream;

/**
 * A plugin directory of a Trino server, loaded as Trino loads it: in its own class loader that
 * shares only the SPI packages with the server.
 */
final class PluginFolder
{
    /** The packages that Trino 476 shares with plugins. */
    private static final List<String> SHARED_PACKAGES = List.of(
            "io.trino.spi.",
            "com.fasterxml.jackson.annotation.",
            "io.airlift.slice.",
            "org.openjdk.jol.",
            "io.opentelemetry.api.",
            "io.opentelemetry.context.");

    private final String name;
    private final ClassLoader classLoader;

    PluginFolder(Path folder)
    {
        this.name = folder.getFileName().toString();
        this.classLoader = new Loader(name, jars(folder));
    }

    private static URL[] jars(Path folder)
    {
        try (Stream<Path> files = Files.list(folder)) {
            URL[] jars = files.filter(file -> file.toString().endsWith(".jar"))
                    .sorted()
                    .map(PluginFolder::url)
                    .toArray(URL[]::new);
            if (jars.length == 0) {
                throw new IllegalArgumentException(
                        folder + " contains no jars: not a plugin directory");
            }
            return jars;
        }
        catch (IOException e) {
            throw new UncheckedIOException("cannot read plugin directory " + folder, e);
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

    String name()
    {
        return name;
    }

    ClassLoader classLoader()
    {
        return classLoader;
    }

    ExchangeManager create(String managerName, Map<String, String> properties)
    {
        try (ThreadContextClassLoader _ = new ThreadContextClassLoader(classLoader)) {
            for (Plugin plugin : ServiceLoader.load(Plugin.class, classLoader)) {
                for (ExchangeManagerFactory factory : plugin.getExchangeManagerFactories()) {
                    if (factory.getName().equals(managerName)) {
                        return factory.create(properties, new Context());
                    }
                }
            }
        }
        throw new IllegalArgumentException(
                "the plugin %s has no exchange manager %s".formatted(name, managerName));
    }

    private record Context()
            implements ExchangeManagerContext
    {
        @Override
        public OpenTelemetry getOpenTelemetry()
        {
            return OpenTelemetry.noop();
        }

        @Override
        public Tracer getTracer()
        {
            return OpenTelemetry.noop().getTracer("benchmark");
        }
    }

    private static final class Loader
            extends URLClassLoader
    {
        static {
            registerAsParallelCapable();
        }

        private Loader(String name, URL[] jars)
        {
            super(name, jars, ClassLoader.getPlatformClassLoader());
        }

        @Override
        protected Class<?> loadClass(String className, boolean resolve)
                throws ClassNotFoundException
        {
            if (SHARED_PACKAGES.stream().anyMatch(className::startsWith)) {
                return PluginFolder.class.getClassLoader().loadClass(className);
            }
            return super.loadClass(className, resolve);
        }
    }
}
