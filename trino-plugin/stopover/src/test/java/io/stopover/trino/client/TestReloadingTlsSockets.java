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
package io.stopover.trino.client;

import io.stopover.trino.StopoverConfig;
import io.stopover.trino.StopoverTlsConfig;
import org.apache.hc.core5.http.protocol.HttpCoreContext;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

import java.io.IOException;
import java.net.InetAddress;
import java.net.Socket;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.util.Base64;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;

import static java.nio.charset.StandardCharsets.US_ASCII;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

/** Certificates can be rotated without a restart of Trino. */
@Timeout(60)
class TestReloadingTlsSockets
{
    private static final String PASSWORD = "password";

    @TempDir
    private Path directory;

    @Test
    void testChangedTruststoreIsReread()
            throws Exception
    {
        Path truststore = directory.resolve("trust.pem");
        KeyStore before = certificate("before");
        KeyStore after = certificate("after");
        Files.writeString(truststore, pem(before));
        AtomicLong nanos = new AtomicLong();
        ReloadingTlsSockets sockets = new ReloadingTlsSockets(
                new StopoverTlsConfig().setTruststorePath(truststore.toFile()), nanos::get);
        try (SSLServerSocket server = server(before)) {
            connect(sockets, server);
        }
        try (SSLServerSocket server = server(after)) {
            assertThatThrownBy(() -> connect(sockets, server)).isInstanceOf(SSLException.class);

            Files.writeString(truststore, pem(before) + pem(after));
            nanos.addAndGet(SECONDS.toNanos(1));
            connect(sockets, server);

            Files.writeString(truststore, "-----BEGIN CERTIFICATE-----\nhalf written");
            nanos.addAndGet(SECONDS.toNanos(1));
            connect(sockets, server);
        }
    }

    /** A certificate need not name each address of a pool. */
    @Test
    void testCertificateIsVerifiedAgainstTheConfiguredNameWhateverTheAddress()
            throws Exception
    {
        KeyStore pool = certificate("pool", "dns:pool.test");
        Path truststore = Files.writeString(directory.resolve("pool.pem"), pem(pool));
        StopoverConfig config = new StopoverConfig();
        HttpTransport transport = new HttpTransport(
                config,
                new StopoverTlsConfig().setTruststorePath(truststore.toFile()),
                new Token(config));
        Optional<InetAddress> address = Optional.of(InetAddress.getLoopbackAddress());
        try (SSLServerSocket server = server(pool)) {
            int port = server.getLocalPort();
            Daemon named = new Daemon(URI.create("https://pool.test:" + port), address);
            assertThatThrownBy(() -> new DaemonProbe(transport, config).info(named))
                    .as("trusted, but it does not speak HTTP")
                    .isInstanceOf(RequestFailedException.class)
                    .hasMessageContaining("the connection broke")
                    .hasMessageContaining("https://pool.test:" + port)
                    .hasMessageContaining("(127.0.0.1)");
            Daemon other = new Daemon(URI.create("https://other.test:" + port), address);
            assertThatThrownBy(() -> new DaemonProbe(transport, config).info(other))
                    .isInstanceOf(DaemonNotTrustedException.class);
        }
        finally {
            transport.close();
        }
    }

    private static void connect(ReloadingTlsSockets sockets, SSLServerSocket server)
            throws IOException
    {
        try (Socket socket = new Socket(server.getInetAddress(), server.getLocalPort());
                SSLSocket upgraded = sockets.upgrade(
                        socket, "127.0.0.1", server.getLocalPort(), null,
                        HttpCoreContext.create())) {
            assertThat(upgraded.getSession().isValid()).isTrue();
        }
    }

    private static SSLServerSocket server(KeyStore store)
            throws Exception
    {
        KeyManagerFactory keys =
                KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(store, PASSWORD.toCharArray());
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), null, null);
        SSLServerSocket server = (SSLServerSocket) context.getServerSocketFactory()
                .createServerSocket(0, 10, InetAddress.getLoopbackAddress());
        Thread.startVirtualThread(() -> {
            while (!server.isClosed()) {
                try (SSLSocket socket = (SSLSocket) server.accept()) {
                    socket.startHandshake();
                    socket.getInputStream().read();
                }
                catch (IOException e) {
                    // The client closes the connection, or the test the server.
                }
            }
        });
        return server;
    }

    private KeyStore certificate(String name)
            throws Exception
    {
        return certificate(name, "ip:127.0.0.1");
    }

    private KeyStore certificate(String name, String subject)
            throws Exception
    {
        Path file = directory.resolve(name + ".p12");
        Process keytool = new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "keytool").toString(),
                "-genkeypair", "-alias", name, "-keyalg", "EC", "-groupname", "secp256r1",
                "-dname", "CN=" + name, "-ext", "SAN=" + subject, "-validity", "2",
                "-storetype", "PKCS12", "-keystore", file.toString(), "-storepass", PASSWORD)
                .inheritIO()
                .start();
        assertThat(keytool.waitFor()).isZero();
        return KeyStore.getInstance(file.toFile(), PASSWORD.toCharArray());
    }

    private static String pem(KeyStore store)
            throws Exception
    {
        byte[] certificate =
                store.getCertificate(store.aliases().nextElement()).getEncoded();
        return "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n".formatted(
                Base64.getMimeEncoder(64, "\n".getBytes(US_ASCII)).encodeToString(certificate));
    }
}
