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

import io.airlift.slice.Slice;
import io.airlift.slice.Slices;
import io.stopover.trino.testing.DaemonProcess;
import io.stopover.trino.testing.TestingCertificate;
import io.stopover.trino.testing.TestingExchangeContext;
import io.trino.plugin.exchange.filesystem.TestExchangeManagerContext;
import io.trino.spi.QueryId;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSink;
import io.trino.spi.exchange.ExchangeSinkHandle;
import io.trino.spi.exchange.ExchangeSource;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceOutputSelector;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;

import static io.stopover.trino.StopoverErrorCode.STOPOVER_UNAUTHORIZED;
import static io.trino.spi.exchange.ExchangeId.createRandomExchangeId;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowable;

/**
 * TLS and tokens against a real daemon: trust, client certificates, token scopes and rotation, and
 * the error messages of each failure.
 */
@Timeout(300)
class TestStopoverTls
{
    private static final String ALL = "all-rights-0123456789";
    private static final String READER = "only-reads-0123456789";
    private static final Slice PAGE = Slices.utf8Slice("page over TLS".repeat(10_000));

    @TempDir
    private static Path certificates;
    private static TestingCertificate server;
    private static TestingCertificate client;
    private static TestingCertificate stranger;

    @TempDir
    private Path folder;
    private Path tokens;
    private DaemonProcess daemon;

    @BeforeAll
    static void generateCertificates()
    {
        server = new TestingCertificate(certificates, "server", "ip:127.0.0.1");
        client = new TestingCertificate(certificates, "client", "dns:client");
        stranger = new TestingCertificate(certificates, "stranger", "ip:127.0.0.1");
    }

    @BeforeEach
    void start()
            throws Exception
    {
        tokens = Files.writeString(
                folder.resolve("tokens"),
                "coordinate,write,read %s\nread %s\n".formatted(ALL, READER));
        daemon = daemon(server, "tls_client_ca_file = \"%s\"\ntoken_file = \"%s\"\n"
                .formatted(client.certificate(), tokens));
    }

    @AfterEach
    void stop()
    {
        daemon.close();
    }

    @Test
    void testPemAndPkcs12StoresAreAccepted()
            throws Exception
    {
        assertThat(writeAndRead(properties())).isEqualTo(PAGE);
        Map<String, String> pkcs12 = properties();
        pkcs12.put("stopover.tls.truststore-path", server.pkcs12().toString());
        pkcs12.put("stopover.tls.truststore-password", TestingCertificate.PASSWORD);
        pkcs12.put("stopover.tls.keystore-path", client.pkcs12().toString());
        pkcs12.put("stopover.tls.keystore-password", TestingCertificate.PASSWORD);
        assertThat(writeAndRead(pkcs12)).isEqualTo(PAGE);
    }

    @Test
    void testUntrustedDaemonIsRefused()
    {
        Map<String, String> trustsAnother = properties();
        trustsAnother.put("stopover.tls.truststore-path", stranger.certificate().toString());
        assertUnauthorized(trustsAnother, "stopover.tls.truststore-path");

        Map<String, String> trustsTheJvm = properties();
        trustsTheJvm.remove("stopover.tls.truststore-path");
        assertUnauthorized(trustsTheJvm, "stopover.tls.truststore-path");
    }

    @Test
    void testCertificateForAnotherNameIsRefused()
    {
        TestingCertificate elsewhere = new TestingCertificate(folder, "elsewhere", "dns:elsewhere");
        try (DaemonProcess other = daemon(elsewhere, "")) {
            Map<String, String> properties = properties();
            properties.put("stopover.uris", other.tlsUri().toString());
            properties.put("stopover.tls.truststore-path", elsewhere.certificate().toString());
            assertUnauthorized(properties, "names in the daemon's certificate");
        }
    }

    @Test
    void testMissingClientCertificateIsReported()
    {
        Map<String, String> without = properties();
        without.remove("stopover.tls.keystore-path");
        assertUnauthorized(without, "client certificate");

        Map<String, String> unknown = properties();
        unknown.put("stopover.tls.keystore-path", stranger.certificateAndKey().toString());
        // the JDK offers only certificates of the CAs that the daemon names: as if there were none
        assertUnauthorized(unknown, "client certificate");
    }

    @Test
    void testErrorNamesTheScopeThatTheTokenLacks()
    {
        Map<String, String> properties = properties();
        properties.put("stopover.token", READER);
        assertUnauthorized(properties, "scope coordinate");
    }

    @Test
    void testTokenIsRotatedWhileBothRun()
            throws Exception
    {
        Path token = Files.writeString(folder.resolve("token"), ALL);
        Map<String, String> properties = properties();
        properties.remove("stopover.token");
        properties.put("stopover.token-file", token.toString());
        ExchangeManager manager = manager(properties);
        try {
            assertThat(writeAndRead(manager)).isEqualTo(PAGE);
            String renewed = "renewed-0123456789ab";
            replace(tokens, "coordinate,write,read %s\n".formatted(renewed));
            replace(token, renewed);
            // the daemon refuses the new token until it has reloaded its file
            long deadline = System.nanoTime() + SECONDS.toNanos(60);
            while (catchThrowable(() -> writeAndRead(manager)) != null) {
                assertThat(System.nanoTime()).isLessThan(deadline);
                replace(token, renewed);
            }
            replace(tokens, "read %s\n".formatted(renewed));
            while (catchThrowable(() -> writeAndRead(manager)) == null) {
                assertThat(System.nanoTime()).isLessThan(deadline);
            }
        }
        finally {
            manager.shutdown();
        }
    }

    private DaemonProcess daemon(TestingCertificate certificate, String more)
    {
        String configuration = """
                [server]
                tls_certificate_file = "%s"
                tls_key_file = "%s"
                reload_interval = "100ms"
                %s
                [memory]
                budget = "128MiB"

                [[base_directory]]
                uri = "%s"
                fsync = false
                """.formatted(
                certificate.certificate(), certificate.key(), more, folder.resolve("data").toUri());
        return new DaemonProcess(folder, "daemon-" + System.nanoTime(), configuration);
    }

    private Map<String, String> properties()
    {
        Map<String, String> properties = new HashMap<>();
        properties.put("stopover.uris", daemon.tlsUri().toString());
        properties.put("stopover.token", ALL);
        properties.put("stopover.tls.truststore-path", server.certificate().toString());
        properties.put("stopover.tls.keystore-path", client.certificateAndKey().toString());
        properties.put("stopover.coordinator-retry-time", "1s");
        return properties;
    }

    private static void replace(Path file, String content)
            throws Exception
    {
        Path whole = Files.writeString(file.resolveSibling(file.getFileName() + ".new"), content);
        Files.move(whole, file, StandardCopyOption.ATOMIC_MOVE);
    }

    private static ExchangeManager manager(Map<String, String> properties)
    {
        return new StopoverExchangeManagerFactory()
                .create(properties, new TestExchangeManagerContext());
    }

    private static void assertUnauthorized(Map<String, String> properties, String message)
    {
        assertThat(catchThrowable(() -> writeAndRead(properties)))
                .isInstanceOfSatisfying(TrinoException.class, failure -> assertThat(
                        failure.getErrorCode()).isEqualTo(STOPOVER_UNAUTHORIZED.toErrorCode()))
                .hasMessageContaining(message)
                .hasMessageNotContaining(ALL)
                .hasMessageNotContaining(READER);
    }

    private static Slice writeAndRead(Map<String, String> properties)
            throws Exception
    {
        ExchangeManager manager = manager(properties);
        try {
            return writeAndRead(manager);
        }
        finally {
            manager.shutdown();
        }
    }

    private static Slice writeAndRead(ExchangeManager manager)
            throws Exception
    {
        ExchangeId id = createRandomExchangeId();
        QueryId query = new QueryId("tls_" + id.getId().replaceAll("[^a-z0-9]", ""));
        Exchange exchange = manager.createExchange(new TestingExchangeContext(query, id), 1, false);
        try {
            ExchangeSinkHandle handle = exchange.addSink(0);
            ExchangeSink sink =
                    manager.createSink(exchange.instantiateSink(handle, 0).get(60, SECONDS));
            sink.add(0, PAGE);
            sink.finish().get(60, SECONDS);
            exchange.sinkFinished(handle, 0);
            exchange.noMoreSinks();
            exchange.allRequiredSinksFinished();
            List<ExchangeSourceHandle> handles =
                    exchange.getSourceHandles().getNextBatch().get(60, SECONDS).handles();
            return read(manager, id, handles);
        }
        catch (ExecutionException e) {
            if (e.getCause() instanceof TrinoException failure) {
                throw failure;
            }
            throw e;
        }
        finally {
            exchange.close();
        }
    }

    private static Slice read(
            ExchangeManager manager, ExchangeId id, List<ExchangeSourceHandle> handles)
            throws Exception
    {
        try (ExchangeSource source = manager.createSource()) {
            source.addSourceHandles(handles);
            source.setOutputSelector(ExchangeSourceOutputSelector.builder(Set.of(id))
                    .include(id, 0, 0)
                    .setPartitionCount(id, 1)
                    .setFinal()
                    .build());
            source.noMoreSourceHandles();
            while (!source.isFinished()) {
                source.isBlocked().get(60, SECONDS);
                Slice page = source.read();
                if (page != null) {
                    return page;
                }
            }
            return Slices.EMPTY_SLICE;
        }
    }
}
