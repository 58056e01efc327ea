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

import com.google.common.collect.ImmutableMap;
import io.airlift.configuration.ConfigurationFactory;
import io.airlift.units.DataSize;
import io.airlift.units.Duration;
import io.trino.spi.exchange.ExchangeManagerContext;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;

import static io.airlift.configuration.testing.ConfigAssertions.assertFullMapping;
import static io.airlift.configuration.testing.ConfigAssertions.assertRecordedDefaults;
import static io.airlift.configuration.testing.ConfigAssertions.recordDefaults;
import static io.airlift.units.DataSize.Unit.MEGABYTE;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.MINUTES;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

/** Defaults are those of docs/plugin.md; an invalid property stops the start and is named. */
class TestStopoverConfig
{
    @Test
    void testDefaults()
    {
        assertRecordedDefaults(recordDefaults(StopoverConfig.class)
                .setUris("")
                .setZone(null)
                .setToken(null)
                .setTokenFile(null)
                .setBatchSize(DataSize.of(4, MEGABYTE))
                .setSinkMaxBuffered(DataSize.of(16, MEGABYTE))
                .setSourceHandleTargetSize(DataSize.of(64, MEGABYTE))
                .setReadConcurrency(4)
                .setReadBufferSize(DataSize.of(32, MEGABYTE))
                .setMaxPageSize(DataSize.of(16, MEGABYTE))
                .setHomesEnabled(true)
                .setHomeTimeout(new Duration(5, SECONDS))
                .setConnectTimeout(new Duration(5, SECONDS))
                .setRequestTimeout(new Duration(30, SECONDS))
                .setWriteTimeout(new Duration(5, MINUTES))
                .setReadTimeout(new Duration(2, MINUTES))
                .setCoordinatorRetryTime(new Duration(150, SECONDS))
                .setSinkRetryTime(new Duration(30, SECONDS))
                .setReadRetryTime(new Duration(2, MINUTES))
                .setRetryInitialDelay(new Duration(100, MILLISECONDS))
                .setRetryMaxDelay(new Duration(5, SECONDS))
                .setDaemonCooldown(new Duration(1, SECONDS))
                .setDaemonMaxCooldown(new Duration(30, SECONDS)));
    }

    @Test
    void testExplicitValues()
    {
        Map<String, String> properties = ImmutableMap.<String, String>builder()
                .put("stopover.uris", "http://a:1, https://b:2/")
                .put("stopover.zone", "zone-1")
                .put("stopover.token", "secret")
                .put("stopover.batch-size", "1MB")
                .put("stopover.sink-max-buffered", "2MB")
                .put("stopover.source-handle-target-size", "3MB")
                .put("stopover.read-concurrency", "5")
                .put("stopover.read-buffer-size", "6MB")
                .put("stopover.max-page-size", "7MB")
                .put("stopover.homes", "false")
                .put("stopover.home-timeout", "19s")
                .put("stopover.connect-timeout", "8s")
                .put("stopover.request-timeout", "9s")
                .put("stopover.write-timeout", "10s")
                .put("stopover.read-timeout", "11s")
                .put("stopover.coordinator-retry-time", "12s")
                .put("stopover.sink-retry-time", "13s")
                .put("stopover.read-retry-time", "14s")
                .put("stopover.retry-initial-delay", "15ms")
                .put("stopover.retry-max-delay", "16s")
                .put("stopover.daemon-cooldown", "17s")
                .put("stopover.daemon-max-cooldown", "18s")
                .buildOrThrow();
        StopoverConfig expected = new StopoverConfig()
                .setUris("http://a:1,https://b:2")
                .setZone("zone-1")
                .setToken("secret")
                .setBatchSize(DataSize.of(1, MEGABYTE))
                .setSinkMaxBuffered(DataSize.of(2, MEGABYTE))
                .setSourceHandleTargetSize(DataSize.of(3, MEGABYTE))
                .setReadConcurrency(5)
                .setReadBufferSize(DataSize.of(6, MEGABYTE))
                .setMaxPageSize(DataSize.of(7, MEGABYTE))
                .setHomesEnabled(false)
                .setHomeTimeout(new Duration(19, SECONDS))
                .setConnectTimeout(new Duration(8, SECONDS))
                .setRequestTimeout(new Duration(9, SECONDS))
                .setWriteTimeout(new Duration(10, SECONDS))
                .setReadTimeout(new Duration(11, SECONDS))
                .setCoordinatorRetryTime(new Duration(12, SECONDS))
                .setSinkRetryTime(new Duration(13, SECONDS))
                .setReadRetryTime(new Duration(14, SECONDS))
                .setRetryInitialDelay(new Duration(15, MILLISECONDS))
                .setRetryMaxDelay(new Duration(16, SECONDS))
                .setDaemonCooldown(new Duration(17, SECONDS))
                .setDaemonMaxCooldown(new Duration(18, SECONDS));
        // Not assertFullMapping: it requires all properties, and two are mutually exclusive.
        assertThat(new ConfigurationFactory(properties).build(StopoverConfig.class))
                .usingRecursiveComparison()
                .isEqualTo(expected);
        assertThat(new StopoverConfig().setTokenFile("/a/token").getTokenFile())
                .contains(Path.of("/a/token"));
    }

    @Test
    void testInvalidPropertyStopsTheStartAndIsNamed(@TempDir Path folder)
            throws IOException
    {
        Path empty = Files.createFile(folder.resolve("empty"));
        assertRefused("stopover.uris", Map.of());
        assertRefused("stopover.uris", Map.of("stopover.uris", ""));
        assertRefused("stopover.uris", Map.of("stopover.uris", "127.0.0.1:7077"));
        assertRefused("stopover.uris", Map.of("stopover.uris", "http://ok:1,ftp://no:2"));
        assertRefused("stopover.uris", Map.of("stopover.uris", "http://ok:1/path"));
        assertRefused("stopover.zone", with("stopover.zone", "a b"));
        assertRefused("stopover.no-such-thing", with("stopover.no-such-thing", "1"));
        assertRefused("stopover.batch-size", with("stopover.batch-size", "4 apples"));
        assertRefused("stopover.batch-size", with("stopover.batch-size", "1kB"));
        assertRefused("stopover.read-concurrency", with("stopover.read-concurrency", "0"));
        assertRefused("stopover.sink-max-buffered", with("stopover.sink-max-buffered", "1MB"));
        assertRefused("stopover.retry-max-delay", with("stopover.retry-max-delay", "50ms"));
        assertRefused(
                "stopover.token-file", with("stopover.token", "a", "stopover.token-file", "b"));
        assertRefused("stopover.token-file", with("stopover.token-file", folder + "/missing"));
        assertRefused("stopover.token-file", with("stopover.token-file", empty.toString()));
        assertRefused("stopover.token", with("stopover.token", " "));
        for (String store : List.of("stopover.tls.truststore", "stopover.tls.keystore")) {
            assertRefused(store + "-path", with(store + "-path", folder + "/missing"));
            assertRefused(store + "-path", with(store + "-path", empty.toString()));
            assertRefused(store + "-path", with(store + "-password", "secret"));
        }
    }

    @Test
    void testTlsDefaultsAndExplicitValues(@TempDir Path folder)
            throws IOException
    {
        assertRecordedDefaults(recordDefaults(StopoverTlsConfig.class)
                .setTruststorePath(null)
                .setTruststorePassword(null)
                .setKeystorePath(null)
                .setKeystorePassword(null));
        Path trust = Files.createFile(folder.resolve("trust"));
        Path keys = Files.createFile(folder.resolve("keys"));
        assertFullMapping(
                Map.of(
                        "stopover.tls.truststore-path", trust.toString(),
                        "stopover.tls.truststore-password", "one",
                        "stopover.tls.keystore-path", keys.toString(),
                        "stopover.tls.keystore-password", "two"),
                new StopoverTlsConfig()
                        .setTruststorePath(trust.toFile())
                        .setTruststorePassword("one")
                        .setKeystorePath(keys.toFile())
                        .setKeystorePassword("two"));
    }

    /** Trino's Helm chart always writes a property of the filesystem exchange manager. */
    @Test
    void testPropertiesOfTheFilesystemManagerAreIgnoredWithAWarning()
    {
        List<String> warnings = new CopyOnWriteArrayList<>();
        Logger logger = Logger.getLogger(StopoverExchangeManagerFactory.class.getName());
        Handler handler = new Handler()
        {
            @Override
            public void publish(LogRecord record)
            {
                warnings.add(record.getMessage());
            }

            @Override
            public void flush() {}

            @Override
            public void close() {}
        };
        logger.addHandler(handler);
        try {
            new StopoverExchangeManagerFactory()
                    .create(with("exchange.base-directories", "", "exchange.s3.region", "x"),
                            new ExchangeManagerContext() {})
                    .shutdown();
        }
        finally {
            logger.removeHandler(handler);
        }
        assertThat(warnings).singleElement().asString()
                .contains("exchange.base-directories", "exchange.s3.region", "docs/trino.md");
        assertRefused("exchanges.typo", with("exchanges.typo", "1"));
    }

    private static Map<String, String> with(String... properties)
    {
        ImmutableMap.Builder<String, String> all = ImmutableMap.builder();
        all.put("stopover.uris", "http://ok:1");
        for (int i = 0; i < properties.length; i += 2) {
            all.put(properties[i], properties[i + 1]);
        }
        return all.buildOrThrow();
    }

    private static void assertRefused(String property, Map<String, String> properties)
    {
        StopoverExchangeManagerFactory factory = new StopoverExchangeManagerFactory();
        assertThatThrownBy(() -> factory.create(properties, new ExchangeManagerContext() {}))
                .as("%s", properties)
                .hasStackTraceContaining(property);
    }
}
